"""What an application serves beside the channels: its own routes, mounted applications, middleware."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nexus import beside
from nexus.errors import ConfigurationError, MethodNotAllowed, NexusError
from nexus_channels.asgi import PROBLEM, allow, answer, refuse, route_path
from nexus_channels.lifespan import entered

_OF_OUTER_ROUTERS = ("app", "app_root_path", "endpoint", "path_params", "route", "router")


class Beside:
    """Found after the channels and the server's own addresses; `taken` are the paths of those: of a channel
    all below it, too. Raises ConfigurationError for what could never be reached."""

    def __init__(self, given: beside.Beside, channels: Sequence[str], pages: Iterable[str]) -> None:
        given.served = True
        self._middleware = tuple(given.middleware)
        self._places: list[_Routed | _Mounted] = []
        self._channels = tuple(channels)
        self._pages = frozenset(pages)
        for one in given.placed:
            if self._is_taken(one.path):
                raise ConfigurationError(
                    f"'{one.path}' cannot be reached: the platform answers there.",
                    remedy="Take another path.",
                )
            self._place(one)
        self._some_open = any(place.open for place in self._places)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application inside of its middleware."""
        for one in reversed(self._middleware):
            app = one.cls(app, **one.options)
        return app

    def is_open(self, scope: Scope) -> bool:
        """Whether what is at this address asks for no credential."""
        if not self._some_open or self._is_taken(route_path(scope)):
            return False
        found = self.find(scope)
        return found is not None and found.open

    def find(self, scope: Scope) -> _Routed | _Mounted | None:
        """What answers at this address, if it is none of the platform's."""
        path = route_path(scope)
        return next((place for place in self._places if place.matches(scope, path)), None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The lifespans of what is mounted, one within the other."""
        async with AsyncExitStack() as stack:
            for place in self._places:
                if isinstance(place, _Mounted):
                    place.state = await stack.enter_async_context(entered(place.app))
            yield

    def _is_taken(self, path: str) -> bool:
        return path in self._pages or any(_covers(channel, path) for channel in self._channels)

    def _place(self, one: beside.Route | beside.Mounted) -> None:
        for known in self._places:
            if isinstance(known, _Mounted) and _covers(known.path, one.path):
                raise ConfigurationError(
                    f"'{one.path}' cannot be reached: '{known.path}' is mounted and answers there.",
                    remedy="Add it before that, or take another path.",
                )
            if isinstance(known, _Routed) and isinstance(one, beside.Route) and known.path == one.path:
                known.add(one)
                return
        if isinstance(one, beside.Route):
            self._places.append(_Routed(one))
        else:
            self._places.append(_Mounted(one))


class _Routed:
    """The functions at one address, by method."""

    def __init__(self, first: beside.Route) -> None:
        self.path = first.path
        self.open = first.open
        self._by_method: dict[str, Callable[[Any], Any]] = {}
        self.add(first)
        try:
            self._pattern = Route(first.path, endpoint=self)
        except (AssertionError, ValueError) as failure:
            raise ConfigurationError(f"'{first.path}' is no path: {failure}.") from None

    def add(self, one: beside.Route) -> None:
        if twice := [method for method in one.methods if method in self._by_method]:
            raise ConfigurationError(f"There are two routes for {twice[0]} at '{self.path}'.")
        if one.open is not self.open:
            raise ConfigurationError(
                f"At '{self.path}' some methods are open and others are not.", remedy="Take two paths."
            )
        self._by_method |= dict.fromkeys(one.methods, one.handler)

    def matches(self, scope: Scope, path: str) -> bool:
        return scope["type"] == "http" and self._pattern.path_regex.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        handler = self._by_method.get(method) or self._by_method.get("GET" if method == "HEAD" else "")
        if handler is None:
            await self._without_handler(scope, receive, send)
            return
        match, child = self._pattern.matches(scope)
        request = Request({**scope, **child} if match is Match.FULL else scope, receive, send)
        try:
            response = await _call(handler, request)
        except NexusError as failure:
            await refuse(scope, receive, send, failure)
        except HTTPException as failure:
            await answer(send, _problem(failure), head=method == "HEAD")
        else:
            if not callable(response):
                raise TypeError(f"What serves '{self.path}' gave {type(response).__name__}, not a Response")
            await response(request.scope, receive, send)

    async def _without_handler(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = {*self._by_method, "OPTIONS", *(("HEAD",) if "GET" in self._by_method else ())}
        failure = MethodNotAllowed(f"{scope['method']} does not apply to '{self.path}'.", allowed)
        if scope["method"] == "OPTIONS":
            await answer(send, (204, b"", [(b"allow", allow(failure.allowed))]))
        else:
            await refuse(scope, receive, send, failure)


class _Mounted:
    """An application below a path, which is the whole world to it."""

    def __init__(self, one: beside.Mounted) -> None:
        if "{" in one.path:
            raise ConfigurationError(f"'{one.path}': an application is mounted below a path without {{…}}.")
        self.path = one.path.rstrip("/")
        self.open = one.open
        self.app: ASGIApp = one.app
        self.state: dict[str, Any] = {}

    def matches(self, scope: Scope, path: str) -> bool:
        return _covers(self.path, path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        child = {key: value for key, value in scope.items() if key not in _OF_OUTER_ROUTERS}
        child["root_path"] = scope.get("root_path", "") + self.path
        child["state"] = {**scope.get("state", {}), **self.state}
        await self.app(child, receive, send)


async def _call(handler: Callable[[Any], Any], request: Request) -> Any:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        return await handler(request)
    return await run_in_threadpool(handler, request)


def _covers(above: str, path: str) -> bool:
    return path == above or path.startswith(f"{above}/")


def _problem(failure: HTTPException) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    document = {"type": "about:blank", "status": failure.status_code, "title": failure.detail}
    headers = [(name.lower().encode(), value.encode()) for name, value in (failure.headers or {}).items()]
    return failure.status_code, msgspec.json.encode(document), [PROBLEM, *headers]
