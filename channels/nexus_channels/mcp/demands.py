"""What a call asks beside its arguments: in its `_meta`, and, where a model asks for it, as an argument.

A language model sees nothing but arguments and results. So where a change must say which state of the record
it is meant for, the tools take `if_match`, and what reads the record answers with it, as one of its members.
An idempotency key is for the program around the model, which repeats what was cut off: it stands in `_meta`,
as does what else may be asked of a call:

nexus/idempotency_key   done once, however often it is repeated
nexus/dry_run           true: do everything, answer, and keep nothing
nexus/max_affected      a number: do nothing where more records would be written
nexus/if_match          a tag: change the record only in the state that it says
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from nexus.arguments import Arguments
from nexus.demands import Demands
from nexus.errors import InvalidInput
from nexus.operation import Operation

PREFIX = "nexus/"
ETAG = PREFIX + "etag"
REPLAYED = PREFIX + "replayed"
IF_MATCH = "if_match"

_ARGUMENT = {
    "type": "string",
    "description": "'if_match' as it came with the record when it was read: nothing is done if the record has"
    " changed since",
}
_MEMBER = {"type": "string", "description": "To be given back as 'if_match' when the record is changed"}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of `_meta` that begin with `nexus/`."""

    if_match: str | None = None
    idempotency_key: str | None = None
    background: bool = False
    dry_run: bool = False
    max_affected: Annotated[int, msgspec.Meta(ge=0)] | None = None


_accept = Arguments("_meta", _Asked).accept


def demands_of(
    operation: Operation, meta: Mapping[str, Any] | None, arguments: dict[str, Any]
) -> Demands | None:
    """What of the arguments is none is taken out of them. Raises InvalidInput."""
    given = {key.removeprefix(PREFIX): value for key, value in (meta or {}).items() if key.startswith(PREFIX)}
    if takes_tag(operation) and IF_MATCH in arguments:
        if IF_MATCH in given:
            raise InvalidInput(f"'{IF_MATCH}' is given twice: in '_meta', and as an argument.")
        given[IF_MATCH] = arguments.pop(IF_MATCH)
    if not given:
        return None
    asked = _accept(given)
    if asked.background:
        raise InvalidInput(
            "A tool is not run in the background: its result has to be what its schema says.",
            remedy="Start it over REST, with 'Prefer: respond-async', and look at it with runs_get.",
        )
    return Demands(
        key=asked.idempotency_key,
        if_match=asked.if_match,
        dry_run=asked.dry_run,
        max_affected=asked.max_affected,
    )


def takes_tag(operation: Operation) -> bool:
    """Whether `if_match` is an argument of the tool."""
    return operation.matches and operation.asks_match is not None


def with_argument(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what a tool takes, with `if_match`."""
    properties = {**schema.get("properties", {}), IF_MATCH: _ARGUMENT}
    return {**schema, "properties": properties, "required": [*schema.get("required", ()), IF_MATCH]}


def with_member(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of what a tool gives, with `if_match`."""
    return {**schema, "properties": {**schema.get("properties", {}), IF_MATCH: _MEMBER}}
