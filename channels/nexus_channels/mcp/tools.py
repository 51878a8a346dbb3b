"""Operations as MCP tools, and how they are described."""

from __future__ import annotations

import base64
import binascii
import bisect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp_types import Tool, ToolAnnotations

from nexus.errors import InvalidCursor, UnknownOperation
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus.schema import json_schema
from nexus_channels.mcp.demands import takes_tag, with_argument, with_member

logger = logging.getLogger("nexus")

PAGE = 100

_ANNOTATIONS = {
    Effect.READ: ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    ),
    Effect.CREATE: ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
    ),
    # Not idempotent: an update may say "five more than there are".
    Effect.UPDATE: ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
    ),
    Effect.DELETE: ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    ),
    # What a workflow does is not known here: the worst is to be assumed.
    Effect.RUN: ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    ),
}
_CAUTIONS = {
    Effect.UPDATE: "Changes what is stored.",
    Effect.DELETE: "What is deleted cannot be brought back.",
}
# What there is may change at any time.
_FRESH = {"ttlMs": 0, "cacheScope": "private"}
_HEADER_KEYWORD = '"x-mcp-header"'


@dataclass(frozen=True, slots=True)
class Described:
    """An operation and what MCP is told of it: `tool`, as JSON has it. `wraps` says that its result is sent
    as {"result": …}: MCP wants objects. None leaves that to each result. `checked` is the input schema, if
    anything in it concerns HTTP headers."""

    operation: Operation
    tool: Mapping[str, Any]
    wraps: bool | None
    checked: dict[str, Any] | None


class Toolbox:
    """The tools of a registry, as they are now. What was described is kept for as long as its operation is
    registered."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._described: dict[str, Described] = {}
        self._listed: tuple[int, list[Described]] = (-1, [])

    @property
    def version(self) -> int:
        """Grows whenever something comes or goes."""
        return self._registry.version

    def find(self, name: str) -> Described:
        """Raises UnknownOperation."""
        return self._describe(self._registry.outside(name))

    def page(self, cursor: str | None) -> dict[str, Any]:
        """The result of `tools/list`, as JSON has it. Raises InvalidCursor."""
        listed = self._list()
        names, following = page([described.operation.tool for described in listed], cursor)
        listing = {**_FRESH, "resultType": "complete", "tools": [listed[index].tool for index in names]}
        return listing if following is None else listing | {"nextCursor": following}

    def checked_schema(self, name: str) -> dict[str, Any] | None:
        """For the SDK, which compares arguments with HTTP headers where a schema asks for it."""
        try:
            return self.find(name).checked
        except UnknownOperation:
            return None

    def _list(self) -> list[Described]:
        version, listed = self._listed
        if version != self._registry.version:
            version = self._registry.version  # read first: a change meanwhile is then seen the next time
            operations = self._registry.public()
            kept = {operation.name: self._describe(operation) for operation in operations}
            listed = sorted(kept.values(), key=lambda described: described.operation.tool)
            self._described, self._listed = kept, (version, listed)
        return listed

    def _describe(self, operation: Operation) -> Described:
        found = self._described.get(operation.name)
        if found is None or found.operation is not operation:
            found = self._described[operation.name] = describe(operation)
        return found


def describe(operation: Operation) -> Described:
    accepts = _schema(operation, operation.input) or {"type": "object"}
    if takes_tag(operation):
        accepts = with_argument(accepts)
    returns, wraps = _returns(operation)
    if operation.shows_tag and returns is not None:
        returns = with_member(returns)
    tool = Tool(
        name=operation.tool,
        title=_title(operation),
        description=_description(operation),
        input_schema=accepts,
        output_schema=returns,
        annotations=_ANNOTATIONS[operation.effect],
    )
    checked = accepts if _HEADER_KEYWORD in msgspec.json.encode(accepts).decode() else None
    described = tool.model_dump(by_alias=True, mode="json", exclude_none=True)
    return Described(operation, described, wraps, checked)


def page(names: list[str], cursor: str | None, size: int = PAGE) -> tuple[range, str | None]:
    """The indices of the next `size` of sorted `names`, and the cursor that leads on.

    A cursor names the last one given, so that additions and removals in between neither repeat nor skip
    any other. Raises InvalidCursor."""
    start = 0 if cursor is None else bisect.bisect_right(names, _redeem(cursor))
    end = min(start + size, len(names))
    return range(start, end), _issue(names[end - 1]) if end < len(names) else None


def _issue(name: str) -> str:
    return base64.urlsafe_b64encode(b"after:" + name.encode()).decode()


def _redeem(cursor: str) -> str:
    try:
        kind, _, name = base64.b64decode(cursor.encode(), b"-_", validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        kind, name = "", ""
    if kind != "after":
        raise InvalidCursor(f"'{cursor[:80]}' is no cursor of this server.", remedy="List without a cursor.")
    return name


def _title(operation: Operation) -> str:
    words = f"{operation.verb} {operation.resource}" if operation.resource else operation.name
    words = words.replace("_", " ").replace("-", " ").replace(".", " ")
    return words[:1].upper() + words[1:]


def _description(operation: Operation) -> str:
    summary = operation.summary or f"{_title(operation)}."
    parts = [summary, _CAUTIONS.get(operation.effect, "")]
    if operation.effect is Effect.RUN and operation.atomic:
        parts.append("All of it is done, or after a failure nothing.")
    return " ".join(part for part in parts if part)


def _returns(operation: Operation) -> tuple[dict[str, Any] | None, bool | None]:
    schema = _schema(operation, operation.output)
    if not schema:
        return None, None
    if schema.get("type") == "object":
        return schema, False
    definitions = schema.pop("$defs", None)
    wrapped = {"type": "object", "properties": {"result": schema}, "required": ["result"]}
    return (wrapped | {"$defs": definitions} if definitions else wrapped), True


def _schema(operation: Operation, annotation: Any) -> dict[str, Any] | None:
    try:
        return dict(json_schema(annotation))
    except TypeError as failure:  # a type of the application's own, of which msgspec knows nothing
        logger.warning("'%s' is offered without a schema: %s", operation.name, str(failure).splitlines()[-1])
        return None
