"""What is kept of a run: its table, how it is written there, and what is told of it."""

from __future__ import annotations

import datetime
import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import inspect

from nexus.arguments import Given
from nexus.errors import InvalidInput, NexusError
from nexus.operation import Operation
from nexus.ports import Column, RecordTable, Row
from nexus.session import ALL, Session

State: TypeAlias = Literal["running", "done", "failed", "cancelled", "abandoned"]

INPUT_LIMIT = 1 << 16
OUTPUT_LIMIT = 1 << 18
MOST_NODES = 1000
_ERROR_LIMIT = 1 << 14
_SHOWN = 1000
_LONGEST_KEY = 255
_MORE = "…"  # no node can have this id
_HIDDEN = "(secret)"

_KEYS = (
    "id workflow version state session actor tenant channel repeat input_digest owner lease cancelled_by"
    " started finished changed"
)
_TEXTS = "inputs nodes output error"

RUNS = RecordTable(
    "nexus_runs",
    (
        *(Column(name, "key") for name in _KEYS.split()),
        *(Column(name, "text") for name in _TEXTS.split()),
        Column("kept", "number"),
    ),
    unique=("repeat",),
    indexed=("state", "changed"),
)
SUMMARY_COLUMNS = tuple(
    column.name for column in RUNS.columns if column.name not in ("inputs", "nodes", "output")
)


class RunSummary(msgspec.Struct, kw_only=True):
    """A run as a list shows it. `kept` says that something which it wrote was committed, even if it failed
    later, and is null where that cannot be known; `version` is a digest of the workflow's declaration."""

    id: str
    workflow: str
    version: str
    state: State
    user: str
    session: str
    tenant: str | None
    channel: str
    started: str
    finished: str | None
    seconds: float | None
    kept: bool | None
    cancel_requested: bool
    error: dict[str, Any] | None


class Run(RunSummary, kw_only=True):
    """A run in full: what it was given, how far each node came, and its result."""

    inputs: Any
    nodes: dict[str, Any]
    output: Any


class RunList(msgspec.Struct):
    """`next` is the cursor of the following page, null at the end."""

    records: list[RunSummary]
    count: int
    limit: int
    next: str | None


class Started(msgspec.Struct):
    """The answer to a start that is not waited for."""

    run_id: str
    state: State


def new_id() -> str:
    """Ids sort by the time at which their runs began."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def now(later: float = 0.0) -> str:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clipped(text: str) -> str:
    return text[:_LONGEST_KEY]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def input_digest(given: Given) -> str:
    """Equal for the same arguments in any order. What was given and not what was made of it, where a default
    may differ each time. Raises InvalidInput for arguments that cannot be compared."""
    try:
        plain = msgspec.json.decode(given) if isinstance(given, bytes) else dict(given)
        text = msgspec.json.encode(plain, enc_hook=repr, order="sorted")
    except Exception as failure:  # whatever a value's own code raises
        raise InvalidInput("An input that JSON cannot hold cannot have an idempotency key.") from failure
    return hashlib.sha256(text).hexdigest()


def inputs_json(operation: Operation, arguments: msgspec.Struct) -> str:
    """Arguments as they are kept. Those that are declared as write-only are not."""
    hidden = _secrets(operation)
    given: Any = arguments
    if hidden:
        given = {
            name: _HIDDEN if name in hidden else value
            for name, value in msgspec.structs.asdict(arguments).items()
            if value is not msgspec.UNSET
        }
    return bounded_json(given, INPUT_LIMIT)


def bounded_json(value: object, limit: int) -> str:
    """A value as JSON of at most about `limit` bytes; in place of a larger one, how it begins. A value that
    JSON cannot hold is named by its type."""
    try:
        text = msgspec.json.encode(value)
    except Exception as failure:  # whatever the value's own code raises: a record never fails its run
        return msgspec.json.encode(
            {"unserializable": f"{type(value).__name__}: {type(failure).__name__}"}
        ).decode()
    if len(text) <= limit:
        return text.decode()
    start = text[: _SHOWN * 4].decode(errors="ignore")[:_SHOWN]
    return msgspec.json.encode({"truncated": True, "bytes": len(text), "start": start}).decode()


def error_json(failure: NexusError) -> str:
    described = {**failure.describe(), "status": failure.status, "exit_code": failure.exit_code}
    return bounded_json(described, _ERROR_LIMIT)


def nodes_json(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """The first nodes, those that did not end well before those that did, and how many more there were."""
    kept: Mapping[str, Mapping[str, Any]] = nodes
    if len(nodes) > MOST_NODES:
        bad_first = sorted(nodes, key=lambda name: nodes[name]["status"] == "done")
        kept = {name: nodes[name] for name in bad_first[:MOST_NODES]}
        kept = {**kept, _MORE: {"status": "truncated", "more": len(nodes) - MOST_NODES}}
    return msgspec.json.encode(kept).decode()


def summary_from(row: Row) -> RunSummary:
    return RunSummary(**_summary(row))


def run_from(row: Row) -> Run:
    return Run(
        **_summary(row),
        inputs=_read(row["inputs"]),
        nodes=_read(row["nodes"]) or {},
        output=_read(row["output"]),
    )


def may_see(session: Session, row: Row) -> bool:
    """A session sees the runs of its own user; one that may do everything, those of all. Neither sees those
    of another tenant."""
    if session.tenant is not None and row["tenant"] != clipped(session.tenant):
        return False
    return ALL in session.scopes or row["actor"] == clipped(session.user)


def _summary(row: Row) -> dict[str, Any]:
    started, finished = row["started"], row["finished"]
    return {
        "id": row["id"],
        "workflow": row["workflow"],
        "version": row["version"],
        "state": row["state"],
        "user": row["actor"],
        "session": row["session"],
        "tenant": row["tenant"],
        "channel": row["channel"],
        "started": started,
        "finished": finished,
        "seconds": None if finished is None else _between(started, finished),
        "kept": None if row["kept"] is None else bool(row["kept"]),
        "cancel_requested": row["cancelled_by"] is not None,
        "error": _read(row["error"]),
    }


def _between(started: str, finished: str) -> float:
    first, last = (datetime.datetime.fromisoformat(moment) for moment in (started, finished))
    return round((last - first).total_seconds(), 6)


def _read(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


_secret_fields: dict[type[msgspec.Struct], frozenset[str]] = {}


def _secrets(operation: Operation) -> frozenset[str]:
    found = _secret_fields.get(operation.input)
    if found is None:
        fields = operation.arguments.fields.items()
        found = frozenset(name for name, field in fields if _is_write_only(field.type))
        _secret_fields[operation.input] = found
    return found


def _is_write_only(wanted: Any) -> bool:
    """Whether a type is annotated with `Meta(extra_json_schema={"writeOnly": True})`."""
    info: inspect.Type = inspect.type_info(wanted)
    while isinstance(info, inspect.Metadata):
        if (info.extra_json_schema or {}).get("writeOnly"):
            return True
        info = info.type
    return False
