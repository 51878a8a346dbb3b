"""What REST adds to the start of a run: not waiting for it (RFC 7240), and starting it once.

POST …/execute   with `Prefer: respond-async`: 202, and where the run can be looked at
                 with `Idempotency-Key: …`: the same run for the same key and the same body
"""

from __future__ import annotations

import msgspec
from starlette.types import Scope

from nexus.demands import Demands
from nexus.errors import InvalidInput
from nexus.operation import Operation
from nexus.runs.record import Started
from nexus_channels.asgi import JSON, Reply, root_of

RUNS = "runs"
CANCEL = "/cancel"

_ASYNC = "respond-async"


def demands_of(scope: Scope, operation: Operation, *, recording: bool) -> Demands | None:
    """Raises InvalidInput for more than one key. A preference that cannot be honoured, as runs of this
    operation are not recorded, is left aside, which its RFC allows."""
    keys: list[str] = []
    preferences: set[str] = set()
    for name, value in scope["headers"]:
        if name == b"idempotency-key":
            keys.append(_text(value))
        elif name == b"prefer":
            preferences |= {part.partition(";")[0].strip().lower() for part in _text(value).split(",")}
    if len(keys) > 1:
        raise InvalidInput("There is more than one Idempotency-Key.")
    background = _ASYNC in preferences and operation.recorded and recording
    if not keys and not background:
        return None
    return Demands(key=_unquoted(keys[0]) if keys else None, background=background)


def reply_started(scope: Scope, started: Started, demands: Demands | None) -> Reply:
    """202: the run goes on, and here it is."""
    location = f"{root_of(scope)}/{RUNS}/{started.run_id}"
    headers = [JSON, (b"location", location.encode())]
    if demands is not None and demands.background:
        headers.append((b"preference-applied", _ASYNC.encode()))
    return 202, msgspec.json.encode(started), headers


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _unquoted(key: str) -> str:
    """The draft of the header has it in quotes, most clients send it without."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
