"""Operations as MCP tools: their descriptions, and their results and failures in MCP's form."""

from __future__ import annotations

import base64
import binascii
import bisect
import logging
from dataclasses import dataclass
from typing import Any

import msgspec
from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from nexus.demands import Noted
from nexus.errors import InvalidCursor, KeyInFlight, NexusError
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus.runs.record import Started
from nexus.schema import json_schema
from nexus_channels.mcp.demands import ETAG, IF_MATCH, REPLAYED, takes_tag, with_argument, with_member

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
_HEADER_KEYWORD = '"x-mcp-header"'


@dataclass(frozen=True, slots=True)
class Described:
    """An operation and what MCP is told of it. `wraps` says that its result is sent as {"result": …}: MCP
    wants objects. None leaves that to each result. `checked` is the input schema, if anything in it concerns
    HTTP headers."""

    operation: Operation
    tool: Tool
    wraps: bool | None
    checked: dict[str, Any] | None


class Toolbox:
    """The tools of a registry, as they are now. What was described is kept for as long as its operation is
    registered."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._described: dict[str, Described] = {}
        self._listed: tuple[int, list[Described]] = (-1, [])

    def find(self, name: str) -> Described:
        """Raises UnknownOperation."""
        return self._describe(self._registry.outside(name))

    def page(self, cursor: str | None) -> tuple[list[Tool], str | None]:
        """Raises InvalidCursor."""
        listed = self._list()
        names, following = page([described.tool.name for described in listed], cursor)
        return [listed[index].tool for index in names], following

    def checked_schema(self, name: str) -> dict[str, Any] | None:
        """For the SDK, which compares arguments with HTTP headers where a schema asks for it."""
        return self.find(name).checked if name in self._registry else None

    def _list(self) -> list[Described]:
        version, listed = self._listed
        if version != self._registry.version:
            version = self._registry.version  # read first: a change meanwhile is then seen the next time
            operations = self._registry.public()
            kept = {operation.name: self._describe(operation) for operation in operations}
            listed = sorted(kept.values(), key=lambda described: described.tool.name)
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
    return Described(operation, tool, wraps, checked)


def success(described: Described, result: Any, noted: Noted) -> CallToolResult:
    """Raises NexusError for a result that JSON cannot hold, KeyInFlight for a run that goes on."""
    if isinstance(result, Started):
        raise KeyInFlight(f"Repeat it later, or look at the run {result.run_id} with runs_get.")
    try:
        # Encoded and read again, and not converted: so both forms agree, and JSON columns may stay raw.
        text = msgspec.json.encode(result)
        structured = msgspec.json.decode(text)
    except Exception as failure:
        name = described.operation.name
        logger.exception("what '%s' returned cannot be sent", name)
        raise NexusError(
            f"What '{name}' returned cannot be sent.", remedy="The server's log says why."
        ) from failure
    operation, wraps = described.operation, described.wraps
    tag = None if operation.tag is None else operation.tag(result, text)
    if tag is not None and operation.shows_tag:
        structured[IF_MATCH] = tag
        text = msgspec.json.encode(structured)
    if wraps or (wraps is None and not isinstance(structured, dict)):
        text = b'{"result":%b}' % text
        structured = {"result": structured}
    return CallToolResult(
        content=[TextContent(text=text.decode())],
        structured_content=structured,
        is_error=False,
        _meta=_beside(tag, noted),
    )


def _beside(tag: str | None, noted: Noted) -> dict[str, Any] | None:
    meta = ({} if tag is None else {ETAG: tag}) | ({REPLAYED: True} if noted.replayed else {})
    return meta or None


def refusal(failure: NexusError) -> CallToolResult:
    """The code, what is wrong and what to do; then the same as JSON.

    Not as structured content: clients that validate it expect the schema of a success even there."""
    described = msgspec.json.encode(failure.describe()).decode()
    texts = (f"{failure.code} {failure}", described)
    return CallToolResult(content=[TextContent(text=text) for text in texts], is_error=True)


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
