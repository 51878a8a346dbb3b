"""The application as one ASGI application: every channel at its path, behind the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeAlias

from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.app import Nexus
from nexus.channel import Channel
from nexus.errors import ConfigurationError, MethodNotAllowed, NotFound
from nexus_channels import asyncapi
from nexus_channels.asgi import JSON, Reply, allow, answer, refuse, reply_json
from nexus_channels.guard import Guard
from nexus_channels.openapi.serving import described, release
from nexus_channels.pages import pages

Page: TypeAlias = Callable[[Scope], Awaitable[Reply]]


def build_host(app: Nexus) -> ASGIApp:
    """What any ASGI server can serve; ours does."""
    return Guard(Host(app), app.sessions, app.settings)


class Host:
    """The channels of an application at their paths, and the few addresses that belong to none.

    A server that speaks the lifespan protocol starts and ends what they need; another enters
    `running`.
    """

    def __init__(self, app: Nexus) -> None:
        self.app = app
        app.runtime.request_timeout = app.settings.request_timeout or None
        self.channels = app.load_channels()
        self._router = Router(
            routes=[ChannelRoute(channel, app) for channel in self.channels],
            redirect_slashes=False,
            default=self._own,
            lifespan=lambda _: self.running(),
        )
        paths = [channel.path for channel in self.channels]
        for path in paths:
            if not path.startswith("/") or path.endswith("/") or paths.count(path) > 1:
                raise ConfigurationError(f"No channel, or no other, can be at '{path}'.")
        self._described = described(app)
        self._pages: dict[str, Page] = {
            **{path: self._json(content) for path, content in _STATES.items()},
            **{path: file.reply for path, file in pages().items()},
            "/openapi.json": self._document,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.app(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The application's and every channel's own lifespan."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.app.running())
            for channel in self.channels:
                await stack.enter_async_context(channel.running())
            yield

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._pages.get(scope["path"])
        if page is None or scope["type"] != "http":
            nothing = f"There is nothing at '{scope['path'][:200]}'."
            await refuse(scope, receive, send, NotFound(nothing, remedy="See '/'."))
        elif scope["method"] == "OPTIONS":
            await answer(send, (204, b"", [(b"allow", allow(_METHODS))]))
        elif scope["method"] not in _METHODS:
            await refuse(
                scope, receive, send, MethodNotAllowed(f"{scope['method']} does not apply here.", _METHODS)
            )
        else:
            try:
                reply = await page(scope)
            except NotFound as missing:
                await refuse(scope, receive, send, missing)
                return
            await answer(send, reply, head=scope["method"] == "HEAD")

    async def _document(self, scope: Scope) -> Reply:
        root = scope.get("root_path", "")
        made = self._described.known(root)
        if made is None:
            made = await asyncio.to_thread(self._described.document, root)
        return 200, made, [JSON, (b"cache-control", b"no-cache")]

    def _json(self, content: Callable[[Host], object]) -> Page:
        async def page(scope: Scope) -> Reply:
            return reply_json(content(self))

        return page


class ChannelRoute(BaseRoute):
    """A channel's path and everything below it, for requests and for websockets alike."""

    def __init__(self, channel: Channel, app: Nexus) -> None:
        self._path = channel.path
        self._below = channel.path + "/"
        self._channel: ASGIApp = channel.build(app.runtime, app.sessions, app.settings)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        if root:
            path = path.removeprefix(root)
        if path == self._path or path.startswith(self._below):
            return Match.FULL, {"root_path": root + self._path}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._channel(scope, receive, send)


def _index(host: Host) -> dict[str, object]:
    return {
        "title": host.app.title,
        "version": release(),
        "channels": {channel.name: channel.path for channel in host.channels},
    }


def _frames(host: Host) -> dict[str, object]:
    for channel in host.channels:
        if channel.name == "websocket":
            return asyncapi.describe(host.app, release(), channel.path)
    raise NotFound("The websocket is not served here.", remedy="See '/'.")


def _live(host: Host) -> dict[str, object]:
    return {"status": "ok"}


def _ready(host: Host) -> dict[str, object]:
    return {"status": "ok", "channels": [channel.name for channel in host.channels]}


_METHODS = ("GET", "HEAD", "OPTIONS")
_STATES: dict[str, Callable[[Host], object]] = {
    "/": _index,
    "/livez": _live,
    "/health": _live,
    "/readyz": _ready,
    "/ready": _ready,
    "/asyncapi.json": _frames,
}
