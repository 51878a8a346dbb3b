"""Streamable HTTP by the SDK. Imported beside the running server, because it takes long."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexus.runtime import Runtime
from nexus_channels.mcp.announcer import Announcer
from nexus_channels.mcp.direct import Direct
from nexus_channels.mcp.peers import SESSION_ID
from nexus_channels.mcp.server import NexusServer

_VERSION = MCP_PROTOCOL_VERSION_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Served:
    """`app` answers what comes to /mcp, `direct` some of it past the SDK; `close` ends the streams on which
    clients listen."""

    app: ASGIApp
    direct: Direct
    close: Callable[[], None]


@asynccontextmanager
async def serving(runtime: Runtime, limit: int, largest: int) -> AsyncIterator[Served]:
    """Serve for as long as it is entered; leave it in the task that entered it. Arguments may have `limit`
    bytes, a message `largest`."""
    announcer = Announcer(runtime)
    server = NexusServer(runtime, announcer, limit=limit)
    modern = _manager(server, largest, plain=False)
    # Answers as plain JSON, not as event streams: these would break off as soon as the server is told to
    # end, because sse-starlette watches uvicorn. Progress and questions to the user would need the streams.
    handshake = _manager(server, largest, plain=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        version = next((value for name, value in scope["headers"] if name == _VERSION), None)
        older = version is None or version.decode("latin-1") in HANDSHAKE_PROTOCOL_VERSIONS
        if older:
            # A session of the protocol is for who has opened it; to others the SDK says that there is none.
            scope = {**scope, "user": _user(scope["nexus.session"].id)}
            await server.peers.before(scope)
        if older and scope["method"] == "GET":
            await stream(scope, receive, send)
        else:
            await (handshake if older else modern).handle_request(scope, receive, send)

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        """What a client of the handshake is told unasked goes over a stream that it opens, and may lose."""
        with ExitStack() as while_open:

            async def watched(message: Message) -> None:
                await send(message)
                if message["type"] == "http.response.start" and message["status"] == 200:
                    session_id = next(value for name, value in scope["headers"] if name == SESSION_ID)
                    while_open.enter_context(announcer.streaming(session_id.decode("latin-1")))

            await handshake.handle_request(scope, receive, watched)

    async with modern.run(), handshake.run(), announcer.announcing():
        try:
            yield Served(app, Direct(server, app), announcer.close)
        finally:
            await server.stop()


@functools.lru_cache(maxsize=1024)
def _user(session: str) -> AuthenticatedUser:
    """A session of Nexus, as the SDK knows its callers."""
    return AuthenticatedUser(AccessToken(token="", client_id=session, scopes=[]))


def _manager(server: NexusServer, largest: int, *, plain: bool) -> StreamableHTTPSessionManager:
    return StreamableHTTPSessionManager(
        server,
        json_response=plain,
        max_request_body_size=largest,
        # The host has checked Host and Origin already, for all channels alike; with an API key a server may
        # be reached under any name.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
