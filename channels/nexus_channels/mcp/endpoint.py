"""The ASGI application at /mcp: what stands in front of the SDK, and waits for it."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexus.config import Settings
from nexus.errors import InvalidInput, MethodNotAllowed, NotFound, Unavailable
from nexus.runtime import Runtime
from nexus_channels.asgi import Disconnected, answer, read_body, refuse, reply_json
from nexus_channels.mcp.messages import ENVELOPE, check_json, rejection

logger = logging.getLogger("nexus")

_PATIENCE = 15.0
_LAST_WORDS = 2.0
_SDK_SIDE = "nexus_channels.mcp.http"


class Endpoint:
    """Requests that come before the SDK is loaded wait for it. If it cannot be loaded, they are answered
    with 503 and the reason; nothing else of the server is affected."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._largest = settings.body_limit + ENVELOPE
        self._ready = asyncio.Event()
        self._closing = asyncio.Event()
        self._served: Any = None
        self._failure = Unavailable("MCP is not running.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            failure = MethodNotAllowed("MCP is spoken over HTTP.", ["DELETE", "GET", "POST"])
            await refuse(scope, receive, send, failure)
            return
        if scope["path"].rstrip("/") != scope.get("root_path", ""):
            nothing = NotFound(f"There is nothing at '{scope['path'][:200]}'.", remedy="MCP has one address.")
            await refuse(scope, receive, send, nothing)
            return
        try:
            served = await self._ready_to_serve()
        except Unavailable as failure:
            await refuse(scope, receive, send, failure)
            return
        match scope["method"]:
            case "POST":
                await self._message(served, scope, receive, send)
            case "GET":
                await self._stream(served.app, scope, receive, send)
            case _:
                await served.app(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve. On leaving, what still runs is cancelled and rolled back."""
        self._ready, self._closing = asyncio.Event(), asyncio.Event()
        forget = self._runtime.feed.on_close(self._close)
        # A task of its own: the SDK's cancel scopes must be left in the task that entered them.
        serving = asyncio.create_task(self._serve())
        try:
            yield
        finally:
            forget()
            self._close()
            serving.cancel()
            await asyncio.wait({serving}, timeout=_LAST_WORDS)

    async def _serve(self) -> None:
        try:
            sdk_side = await asyncio.to_thread(importlib.import_module, _SDK_SIDE)
            async with sdk_side.serving(self._runtime, self._settings.body_limit, self._largest) as served:
                self._served = served
                self._ready.set()
                await asyncio.Event().wait()
        except Exception as failure:
            logger.exception("MCP cannot be served")
            self._failure = Unavailable(
                f"MCP could not be started: {type(failure).__name__}: {failure}.",
                remedy="The server's log says more.",
            )
        finally:
            self._served = None
            self._ready.set()

    async def _ready_to_serve(self) -> Any:
        if self._served is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._ready.wait()
        if self._served is None:
            if self._ready.is_set():
                raise self._failure
            raise Unavailable("MCP is still loading.", remedy="Try again in a few seconds.")
        return self._served

    async def _message(self, served: Any, scope: Scope, receive: Receive, send: Send) -> None:
        unread: list[Message] = []

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        try:
            body = await read_body(scope, receive, self._largest)
        except Disconnected:
            return
        except InvalidInput as failure:
            await answer(send, reply_json(rejection(failure), failure.status))
            return
        unread.append({"type": "http.request", "body": body, "more_body": False})
        if await served.direct.answers(scope, replay, send, body):
            return
        try:
            check_json(body)
        except InvalidInput as failure:
            await answer(send, reply_json(rejection(failure), failure.status))
            return
        await served.app(scope, replay, send)

    async def _stream(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """An event stream ends when the server begins to close: otherwise the server would wait for it."""
        unfinished = False

        async def receive_or_leave() -> Message:
            message = asyncio.ensure_future(receive())
            closing = asyncio.ensure_future(self._closing.wait())
            try:
                await asyncio.wait({message, closing}, return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()
                closing.cancel()

        async def watched(message: Message) -> None:
            nonlocal unfinished
            unfinished = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        await app(scope, receive_or_leave, watched)
        if unfinished:  # the SDK breaks a response off when it believes that the client has gone
            await send({"type": "http.response.body", "body": b""})

    def _close(self) -> None:
        self._closing.set()
        if self._served is not None:
            self._served.close()
