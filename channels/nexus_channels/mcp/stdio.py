"""MCP over stdin and stdout, for clients that start the server themselves: one message a line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)

from nexus.app import Nexus
from nexus.errors import InvalidInput, NexusError, TooLarge
from nexus.session import LOCAL
from nexus_channels.mcp.announcer import Announcer
from nexus_channels.mcp.lines import Lines, TooLong
from nexus_channels.mcp.messages import ENVELOPE, check_json, rejection
from nexus_channels.mcp.server import NexusServer

logger = logging.getLogger("nexus")


async def serve_stdio(app: Nexus) -> None:
    """Serve one client until it closes stdin, or until SIGTERM or SIGINT; returns normally in each case.

    Only messages reach stdout: whatever else prints there meanwhile is sent to stderr. Requests that have
    come when stdin closes are still answered, within `settings.shutdown` seconds."""
    with _claimed() as (source, target):
        async with app.running():
            limit, announcer = app.settings.body_limit, Announcer(app.runtime)
            server = NexusServer(app.runtime, announcer, limit=limit, session=LOCAL)
            pipe = _Pipe(Lines(source, target, limit + ENVELOPE), app.settings.shutdown)
            options = server.create_initialization_options()
            async with announcer.announcing():
                await _until_signalled(pipe.carry(server.run(pipe.incoming, pipe.outgoing, options)))


class _Pipe:
    """Between lines and the SDK's streams."""

    def __init__(self, lines: Lines, patience: float) -> None:
        self._lines = lines
        self._patience = patience
        self._to_server: MemoryObjectSendStream[SessionMessage | Exception]
        self.incoming: MemoryObjectReceiveStream[SessionMessage | Exception]
        self._to_server, self.incoming = anyio.create_memory_object_stream(0)
        self.outgoing: MemoryObjectSendStream[SessionMessage]
        self._from_server: MemoryObjectReceiveStream[SessionMessage]
        self.outgoing, self._from_server = anyio.create_memory_object_stream(0)
        self._unanswered: set[RequestId] = set()
        self._answered = asyncio.Event()

    async def carry(self, serving: Coroutine[Any, Any, None]) -> None:
        """Carry messages between the client and `serving` until one of them has gone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(serving)
                group.create_task(self._receive())
                group.create_task(self._send())
        except* OSError:
            logger.info("the MCP client has gone")

    async def _receive(self) -> None:
        """Hand on what can be read, refuse what cannot; until the input ends."""
        async with self._to_server:
            while True:
                try:
                    line = await self._lines.read()
                    if line is None:
                        break
                    if line.strip():
                        message = _parse(line)
                        self._count(message)
                        await self._to_server.send(SessionMessage(message))
                except TooLong:
                    await self._refuse(TooLarge("The message is too large.", remedy="Send less at once."))
                except InvalidInput as failure:
                    await self._refuse(failure)
            # The SDK cancels what runs when its input ends.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    while self._unanswered:
                        self._answered.clear()
                        await self._answered.wait()

    async def _send(self) -> None:
        async with self._from_server:
            async for item in self._from_server:
                message = item.message
                await self._lines.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode())
                if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                    self._settle(message.id)

    async def _refuse(self, failure: NexusError) -> None:
        await self._lines.write(msgspec.json.encode(rejection(failure)))

    def _count(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest):
            if message.method != "subscriptions/listen":  # it has no end of its own
                self._unanswered.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._settle((message.params or {}).get("requestId"))  # nor has this an answer

    def _settle(self, request: object) -> None:
        self._unanswered = {each for each in self._unanswered if each != request}
        self._answered.set()


def _parse(line: bytes) -> JSONRPCMessage:
    check_json(line)
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        raise InvalidInput(
            "The line is not a JSON-RPC message.", remedy="Send one request, notification or response."
        ) from None


@contextmanager
def _claimed() -> Iterator[tuple[int, int]]:
    """The descriptors of stdin and stdout, which point elsewhere meanwhile: prints go to stderr."""
    source, target = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    try:
        yield source, target
    finally:
        sys.stdout.flush()
        os.dup2(source, 0)
        os.dup2(target, 1)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    numbers = (signal.SIGINT, signal.SIGTERM)
    signalled = False

    def end() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    with suppress(NotImplementedError):  # on Windows the client just closes stdin
        for number in numbers:
            loop.add_signal_handler(number, end)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task})
        with suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)
    if task.cancelled():
        return
    if signalled and (failure := task.exception()) is not None:
        # What was cut off in the middle may complain about its broken streams: it was meant to end.
        logger.info("ended by a signal", exc_info=failure)
        return
    task.result()
