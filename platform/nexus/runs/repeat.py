"""What a start that is repeated with the same idempotency key gives: the run that there was."""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.errors import Conflict, InvalidInput, NexusError, Problem
from nexus.operation import Operation
from nexus.ports import Row
from nexus.runs.record import Started, digest
from nexus.session import CHOSEN_TENANT, Session

_LONGEST = 255
_TRUNCATED = "truncated"


class EarlierFailure(NexusError):
    """What an earlier run failed with, with the code and the status of then."""

    def __init__(self, described: dict[str, Any]) -> None:
        problems = tuple(Problem(p["code"], p["pointer"], p["detail"]) for p in described.get("errors", ()))
        super().__init__(described["detail"], remedy=described.get("remedy", ""), problems=problems)
        self.code = described["code"]
        self.title = described["title"]
        self.status = described["status"]
        self.exit_code = described["exit_code"]
        self.node = described.get("node", "")


def check_key(key: str) -> str:
    """Raises InvalidInput for what cannot be an idempotency key."""
    if not 0 < len(key) <= _LONGEST or not key.isprintable():
        raise InvalidInput(f"An idempotency key has 1 to {_LONGEST} printable characters.")
    return key


def repeat_of(session: Session, operation: Operation, key: str) -> str:
    """What is the same for all that is sent under one key. A key belongs to a session, to the tenant that it
    acts for, and to an operation. Raises InvalidInput for what cannot be a key."""
    tenant = session.tenant or CHOSEN_TENANT.get() or ""
    return digest(session.id, tenant, operation.name, check_key(key))


def repeated(row: Row, operation: Operation) -> Any:
    """The result of a run that is over, Started for one that goes on. Raises what it failed with."""
    state, identity = row["state"], row["id"]
    if state == "running":
        return Started(identity, "running")
    if state == "abandoned":
        raise Conflict(
            f"The run {identity} of this key was abandoned: its process ended.",
            remedy="Start it again with another key.",
        )
    if state != "done":
        described = msgspec.json.decode(row["error"])
        if described.get(_TRUNCATED):
            raise Conflict(f"The run {identity} of this key has failed.", remedy="See its record.")
        raise EarlierFailure(described)
    output = msgspec.json.decode(row["output"])
    if isinstance(output, dict) and output.keys() == {_TRUNCATED, "bytes", "start"}:
        raise Conflict(
            f"The run {identity} of this key is done, and its result was too large to be kept.",
            remedy="Use another key to run it again.",
        )
    try:
        return msgspec.convert(output, operation.output)
    except (msgspec.ValidationError, TypeError):  # the type of a result need not be one of JSON
        return output
