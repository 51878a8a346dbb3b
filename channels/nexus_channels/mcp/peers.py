"""Clients of the handshake revisions over HTTP, by the id of their session: what `direct` must know of them.

The SDK keeps these sessions, and ends them when for half an hour it has seen no request. So a session's first
request goes through it, and then one a minute.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from starlette.types import Scope

from nexus_channels.mcp.announcer import connection_of
from nexus_channels.mcp.calls import Begun

SEEN = 60.0
"""Seconds for which a session is known after a request that the SDK has seen."""

SESSION_ID = MCP_SESSION_ID_HEADER.encode()
BEGUN = "nexus.mcp.begun"
"""The member of a scope with the call, running already, for which a request asks."""


@dataclass(slots=True)
class Peer:
    """`owner` is the session of Nexus that it belongs to, `version` that of the protocol; `seen` is when the
    SDK has seen a request of it, and never again where it is being ended; `calls` are those of which the SDK
    knows nothing yet."""

    owner: str
    version: str
    seen: float | None
    calls: set[Begun] = field(default_factory=set)

    async def settle(self) -> None:
        """Have the SDK know all of its calls, so that it can cancel them."""
        calls = tuple(self.calls)
        for call in calls:
            call.leave()
        for call in calls:
            await call.taken()


class Peers:
    def __init__(self) -> None:
        self._known: dict[bytes, Peer] = {}

    def admit(self, ctx: ServerRequestContext[Any]) -> None:
        """The SDK has seen a request of this client."""
        connection = connection_of(ctx)
        if connection.session_id is None or ctx.request is None:
            return
        session_id = connection.session_id.encode()
        peer = self._known.get(session_id)
        if peer is None:
            owner = ctx.request.scope["nexus.session"].id
            self._known[session_id] = Peer(owner, connection.protocol_version, time.monotonic())
            connection.exit_stack.callback(self._known.pop, session_id, None)
        elif peer.seen is not None:
            peer.seen = time.monotonic()

    def find(self, session_id: bytes, owner: str) -> Peer | None:
        peer = self._known.get(session_id)
        if peer is None or peer.owner != owner or peer.seen is None or time.monotonic() - peer.seen > SEEN:
            return None
        return peer

    async def before(self, scope: Scope) -> None:
        """Before the SDK is handed a request that is none of the calls which `direct` has begun."""
        session_id = next((value for name, value in scope["headers"] if name == SESSION_ID), b"")
        peer = self._known.get(session_id)
        if peer is None or BEGUN in scope:
            return
        if scope["method"] == "DELETE" and peer.owner == scope["nexus.session"].id:
            peer.seen = None
        await peer.settle()
