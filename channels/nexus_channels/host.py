"""The application as one ASGI application: every channel at its path, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.app import Nexus
from nexus.errors import ConfigurationError, MethodNotAllowed, NotFound, Unavailable
from nexus_channels import asyncapi
from nexus_channels.asgi import JSON, Reply, allow, answer, refuse, reply_json, root_of, route_path
from nexus_channels.beside import Beside
from nexus_channels.guard import Guard
from nexus_channels.mcp.channel import McpChannel
from nexus_channels.openapi.serving import described, release
from nexus_channels.pages import pages
from nexus_channels.readiness import Readiness

Page: TypeAlias = Callable[[Scope], Awaitable[Reply]]


class Application(Guard):
    """What any ASGI server can serve, and any ASGI application mount; ours serves it.

    A server that speaks the lifespan protocol starts and ends what it needs. What it is mounted into
    does not, and takes `lifespan` as its own: `FastAPI(lifespan=mounted.lifespan)`. `mcp_port` is a port of
    the server on which there is MCP and nothing else.
    """

    def __init__(self, app: Nexus, *, mcp_port: int | None = None) -> None:
        self.host = Host(app)
        beside = self.host.beside
        inside = beside.wrap(self.host)
        plain = inside is self.host
        if mcp_port is not None:
            inside = McpPort(inside, mcp_port)
        super().__init__(inside, app.sessions, app.settings, is_open=beside.is_open, plain=plain)

    @asynccontextmanager
    async def lifespan(self, outer: object = None) -> AsyncIterator[None]:
        """To be entered by the application that this is mounted into, which gives itself."""
        async with self.host.running():
            yield


class McpPort:
    """A port on which there is MCP and nothing else."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope.get("server") or (None, None))[1] == self._port and route_path(scope) != McpChannel.path:
            nothing = NotFound(f"On this port there is nothing but '{McpChannel.path}'.")
            await refuse(scope, receive, send, nothing)
        else:
            await self._app(scope, receive, send)


class Host:
    """The channels of an application at their paths, the few addresses that belong to none, and what
    the application has beside them."""

    def __init__(self, app: Nexus) -> None:
        app.check_servable()
        self.app = app
        app.runtime.request_timeout = app.settings.request_timeout or None
        self.channels = app.load_channels()
        self._lifespan = Router(lifespan=lambda _: self.running()).lifespan
        self._built: list[tuple[str, ASGIApp]] = [
            (channel.path, channel.build(app.runtime, app.sessions, app.settings))
            for channel in self.channels
        ]
        paths = [channel.path for channel in self.channels]
        for path in paths:
            if not path.startswith("/") or path.endswith("/") or paths.count(path) > 1:
                raise ConfigurationError(f"No channel, or no other, can be at '{path}'.")
        self._readiness = Readiness(app)
        self._described = described(app)
        self._pages: dict[str, Page] = {
            **{path: self._json(content) for path, content in _STATES.items()},
            **{path: file.reply for path, file in pages().items()},
            "/readyz": self._ready,
            "/ready": self._ready,
            "/openapi.json": self._document,
        }
        self.beside = Beside(app.beside, paths, self._pages)
        self._entered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A channel has its path and everything below it, for requests and for websockets alike."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if not self._entered:
            await refuse(scope, receive, send, Unavailable("The application has not started.", remedy=_START))
            return
        path = route_path(scope)
        for above, channel in self._built:
            if path.startswith(above) and path[len(above) : len(above) + 1] in ("", "/"):
                scope["root_path"] = scope.get("root_path", "") + above
                await channel(scope, receive, send)
                return
        await self._own(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The application's lifespan, every channel's own, and those of what is mounted here."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.app.running())
            stack.push_async_callback(self._readiness.close)
            for channel in self.channels:
                await stack.enter_async_context(channel.running())
            await stack.enter_async_context(self.beside.running())
            self._entered += 1
            stack.callback(self._left)
            yield

    def _left(self) -> None:
        self._entered -= 1

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(route_path(scope))
        if page is None or scope["type"] != "http":
            if found := self.beside.find(scope):
                await found(scope, receive, send)
                return
            nothing = f"There is nothing at '{scope['path'][:200]}'."
            await refuse(scope, receive, send, NotFound(nothing, remedy=f"See '{root_of(scope)}/'."))
        elif scope["method"] == "OPTIONS":
            await answer(send, (204, b"", [(b"allow", allow(_METHODS))]))
        elif scope["method"] not in _METHODS:
            await refuse(
                scope, receive, send, MethodNotAllowed(f"{scope['method']} does not apply here.", _METHODS)
            )
        else:
            try:
                reply = await page(scope)
            except (NotFound, Unavailable) as failure:
                await refuse(scope, receive, send, failure)
                return
            await answer(send, reply, head=scope["method"] == "HEAD")

    async def _document(self, scope: Scope) -> Reply:
        root = root_of(scope)
        made = self._described.known(root)
        if made is None:
            made = await asyncio.to_thread(self._described.document, root)
        return 200, made, [JSON, (b"cache-control", b"no-cache")]

    async def _ready(self, scope: Scope) -> Reply:
        await self._readiness.check()
        return reply_json({"status": "ok", "channels": [channel.name for channel in self.channels]})

    def _json(self, content: Callable[[Host, str], object]) -> Page:
        async def page(scope: Scope) -> Reply:
            return reply_json(content(self, root_of(scope)))

        return page


def _index(host: Host, root: str) -> dict[str, object]:
    return {
        "title": host.app.title,
        "version": release(),
        "channels": {channel.name: root + channel.path for channel in host.channels},
    }


def _frames(host: Host, root: str) -> dict[str, object]:
    for channel in host.channels:
        if channel.name == "websocket":
            return asyncapi.describe(host.app, release(), root + channel.path)
    raise NotFound("The websocket is not served here.", remedy=f"See '{root}/'.")


def _live(host: Host, root: str) -> dict[str, object]:
    return {"status": "ok"}


_METHODS = ("GET", "HEAD", "OPTIONS")
_START = (
    "A server must speak the lifespan protocol. What this is mounted into takes it over:"
    " FastAPI(lifespan=mounted.lifespan), or `async with mounted.lifespan():` in its own."
)
_STATES: dict[str, Callable[[Host, str], object]] = {
    "/": _index,
    "/livez": _live,
    "/health": _live,
    "/asyncapi.json": _frames,
}
