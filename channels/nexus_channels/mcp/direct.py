"""The usual requests over HTTP, answered past the SDK: a tool called, tools listed.

Through the SDK a call by id takes 490 µs of the server's CPU, most of it for models, streams and task groups,
and a list of 25 tools 1.8 ms; past it they take 115 and 57. So what needs nothing of the SDK is decoded, run
and encoded here, by the same `Calls` as there. All the rest, and whatever is wrong with a request, is left to
the SDK, whose answers therefore stay what they are; what is answered here is answered as it would be there.

A call that takes long goes over to the SDK while it runs. From then on it is the SDK that cancels it, when
its client leaves or asks for it, and that keeps its connection alive.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
)
from mcp_types import (
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    CallToolRequestParams,
    PaginatedRequestParams,
)
from mcp_types.methods import serialize_server_result, validate_client_request
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.arguments import UNREADABLE
from nexus.errors import NexusError
from nexus_channels.asgi import JSON, answer
from nexus_channels.mcp.calls import Begun, Outcome
from nexus_channels.mcp.peers import BEGUN, SESSION_ID, Peer
from nexus_channels.mcp.server import NexusServer

MODERN = "2026-07-28"
"""The revision without sessions."""

_VERSION, _METHOD, _NAME = (
    header.encode() for header in (MCP_PROTOCOL_VERSION_HEADER, MCP_METHOD_HEADER, MCP_NAME_HEADER)
)
_MODERN = MODERN.encode()
_OLDER = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)
_BOTH = frozenset(
    {
        b"application/json, text/event-stream",
        b"application/json,text/event-stream",
        b"text/event-stream, application/json",
        b"*/*",
    }
)
_PLAIN = _BOTH | {b"application/json"}
"""What a client of an older revision may accept; of the newest, a call that takes long becomes a stream."""
_LONGEST_META = 2048


class _Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw(b"{}"))


class _CallParams(_Params, kw_only=True):
    name: str
    arguments: dict[str, Any] = {}


class _ListParams(_Params, kw_only=True):
    cursor: str | None = None


class _Message(msgspec.Struct, forbid_unknown_fields=True, tag_field="method", kw_only=True):
    jsonrpc: Literal["2.0"]
    id: int | str


class _Call(_Message, tag="tools/call", kw_only=True):
    params: _CallParams


class _List(_Message, tag="tools/list", kw_only=True):
    params: _ListParams = msgspec.field(default_factory=_ListParams)


_decode = msgspec.json.Decoder(_Call | _List).decode


@dataclass(frozen=True, slots=True)
class _Request:
    """What is answered here. With a `peer` it belongs to a session of the protocol."""

    message: _Call | _List
    version: str
    meta: Mapping[str, Any]
    peer: Peer | None
    session_id: bytes


class Direct:
    """Stands in front of `sdk`."""

    def __init__(self, server: NexusServer, sdk: ASGIApp) -> None:
        self._calls = server.calls
        self._peers = server.peers
        self._sdk = sdk
        self._stamp = {SERVER_INFO_META_KEY: server.server_info_stamp}
        self._page = functools.lru_cache(maxsize=64)(self._described)

    async def answers(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> bool:
        """Answer the request, if it is one of those; `receive` gives its body again, and what comes then."""
        request = self._read(scope, body)
        if request is None:
            return False
        if isinstance(request.message, _Call):
            await self._call(request, request.message.params, scope, receive, send)
            return True
        try:
            version = self._calls.toolbox.version
            page = self._page(version, request.version, request.message.params.cursor)
        except (NexusError, ValueError):  # as pydantic's errors are
            return False
        await self._answer(send, request, page)
        return True

    def _read(self, scope: Scope, body: bytes) -> _Request | None:
        """None for what is left to the SDK."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        version, session_id, peer = headers.get(_VERSION), headers.get(SESSION_ID, b""), None
        if version != _MODERN:
            peer = self._peers.find(session_id, scope["nexus.session"].id)
            if peer is None or not (version is None or version in _OLDER):
                return None
        if (
            headers.get(b"accept") not in (_BOTH if peer is None else _PLAIN)
            or headers.get(b"content-type") != b"application/json"
            or len(headers) != len(scope["headers"])  # something is said twice
            or not isinstance(get_tracer_provider(), ProxyTracerProvider)  # the SDK makes the spans
        ):
            return None
        try:
            message = _decode(body)
        except (msgspec.ValidationError, *UNREADABLE):
            return None
        called = message.params.name if isinstance(message, _Call) else None
        if peer is None and not _is_routed(headers, called):
            return None
        spoken = MODERN if peer is None else peer.version
        meta = _meta(spoken, called is not None, bytes(message.params.meta))
        if meta is None or (called is not None and self._calls.toolbox.checked_schema(called) is not None):
            return None
        return _Request(message, spoken, meta, peer, session_id)

    async def _call(
        self, request: _Request, params: _CallParams, scope: Scope, receive: Receive, send: Send
    ) -> None:
        call = self._calls.run(
            params.name, params.arguments, request.meta, scope["nexus.session"], scope["nexus.request"]
        )
        begun = Begun(call)
        unseen = set() if request.peer is None else request.peer.calls
        unseen.add(begun)
        try:
            outcome = await begun.soon()
            if outcome is None:
                await self._sdk({**scope, BEGUN: begun}, receive, send)
            else:
                await self._answer(send, request, self._result(request, outcome))
        finally:
            unseen.discard(begun)
            await begun.end()

    async def _answer(self, send: Send, request: _Request, result: object) -> None:
        headers = [JSON] if request.peer is None else [JSON, (SESSION_ID, request.session_id)]
        message = {"jsonrpc": "2.0", "id": request.message.id, "result": result}
        await answer(send, (200, msgspec.json.encode(message), headers))

    def _result(self, request: _Request, outcome: Outcome) -> dict[str, Any]:
        result: dict[str, Any] = {
            "content": [{"type": "text", "text": text} for text in outcome.texts],
            "isError": outcome.failed,
        }
        if outcome.structured is not None:
            result["structuredContent"] = msgspec.Raw(outcome.structured)
        meta = dict(outcome.meta or {})
        if request.peer is None:
            result["resultType"] = "complete"
            meta |= self._stamp
        if meta:
            result["_meta"] = meta
        return result

    def _described(self, registered: int, version: str, cursor: str | None) -> msgspec.Raw:
        """A page of tools, as JSON. Raises InvalidCursor, or ValidationError for what MCP has no form for."""
        page = serialize_server_result("tools/list", version, self._calls.toolbox.page(cursor))
        return msgspec.Raw(msgspec.json.encode(page | {"_meta": self._stamp} if version == MODERN else page))


def _is_routed(headers: Mapping[bytes, bytes], called: str | None) -> bool:
    """Whether the headers say what the message says, and say it plainly."""
    if called is None:
        return headers.get(_METHOD) == b"tools/list"
    name = headers.get(_NAME, b"")
    return headers.get(_METHOD) == b"tools/call" and name == called.encode() and not name.startswith(b"=?")


def _meta(version: str, calls: bool, raw: bytes) -> Mapping[str, Any] | None:
    """What stands beside a request; None if it must be left to the SDK."""
    return None if len(raw) > _LONGEST_META else _checked_meta(version, calls, raw)


@functools.lru_cache(maxsize=256)
def _checked_meta(version: str, calls: bool, raw: bytes) -> Mapping[str, Any] | None:
    """By the SDK's own rules, which take long; but a client says the same each time."""
    method, typed = ("tools/call", CallToolRequestParams) if calls else ("tools/list", PaginatedRequestParams)
    try:
        meta = msgspec.json.decode(raw)
        params = {"name": "", "_meta": meta} if calls else {"_meta": meta}
        validate_client_request(method, version, params)
        typed.model_validate(params, by_name=False)
    except (ValueError, msgspec.ValidationError, *UNREADABLE):
        return None
    if not isinstance(meta, dict) or "progressToken" in meta:  # progress is told by the SDK
        return None
    if version == MODERN:
        routed = classify_inbound_request({"method": method, "params": params})
        if isinstance(routed, InboundLadderRejection) or meta[PROTOCOL_VERSION_META_KEY] != MODERN:
            return None
    return meta
