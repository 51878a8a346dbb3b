"""The channel `websocket`: the handshake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.config import Settings
from nexus.errors import InvalidInput, NotFound, Unavailable
from nexus.runtime import Runtime
from nexus.session import Session, Sessions
from nexus_channels.asgi import answer, path_below, refuse, reply_problem
from nexus_channels.web.rates import Rates
from nexus_channels.websocket.connection import Connection
from nexus_channels.websocket.frames import PROTOCOL

SOCKETS = 10_000
"""Of one session. The local user, and all who share an API key, are one."""


class WebSocketChannel:
    """The channel `websocket`."""

    name = "websocket"
    path = "/ws"

    def __init__(self) -> None:
        self._runtime: Runtime | None = None

    def build(self, runtime: Runtime, sessions: Sessions, settings: Settings) -> ASGIApp:
        self._runtime = runtime
        return WebSocket(runtime, settings.body_limit)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def hint(self, base_url: str) -> str:
        frame = {"type": "ping"}
        if self._runtime is not None:
            verbs, topics = self._runtime.registry.verbs, self._runtime.feed.topics()
            for topic in sorted(topics, key=lambda topic: "create" not in verbs(topic))[:1]:
                frame = {"type": "subscribe", "id": "1", "topic": topic}
        url = base_url.replace("http", "ws", 1) + self.path
        return f"{'Websocket':<10} python -m websockets {url}   then send {json.dumps(frame)}"


class WebSocket:
    """The ASGI application."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._limit = limit
        self._open: Counter[str] = Counter()  # connections by session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if path_below(scope):
            nothing = NotFound(f"There is nothing at '{scope['path'][:200]}'.")
            await refuse(scope, receive, send, nothing)
            return
        if scope["type"] == "http":
            status, body, headers = reply_problem(InvalidInput("This is a websocket."), 426)
            headers.append((b"upgrade", b"websocket"))
            await answer(send, (status, body, headers), head=scope["method"] == "HEAD")
            return
        offered: list[str] = scope["subprotocols"]
        if offered and PROTOCOL not in offered:
            unknown = f"None of the subprotocols {', '.join(offered)[:200]} is spoken here."
            failure = InvalidInput(unknown, remedy=f"Offer {PROTOCOL}, or none.")
            await refuse(scope, receive, send, failure)
            return
        session: Session = scope["nexus.session"]
        if self._open[session.id] >= SOCKETS:
            many = f"This session has {SOCKETS} websockets open already."
            remedy = "Close one; one can hold many subscriptions."
            await refuse(scope, receive, send, Unavailable(many, remedy=remedy))
            return
        self._open[session.id] += 1
        try:
            if (await receive())["type"] != "websocket.connect":
                return
            await send({"type": "websocket.accept", "subprotocol": PROTOCOL if offered else None})
            rates: Rates | None = scope.get("nexus.rates")
            await Connection(self._runtime, session, self._limit, receive, send, rates).run()
        finally:
            self._open[session.id] -= 1
            if not self._open[session.id]:
                del self._open[session.id]
