"""One websocket: its subscriptions, its calls, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.types import Receive, Send

from nexus.errors import (
    CursorExpired,
    InvalidFilter,
    InvalidInput,
    NexusError,
    SlowConsumer,
    TooLarge,
    Unavailable,
    did_you_mean,
)
from nexus.feed import FeedClosed, Subscription
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.websocket import frames

logger = logging.getLogger("nexus")

SUBSCRIPTIONS = 100
CALLS_AT_ONCE = 32
CALLS_WAITING = 128
SNAPSHOT_FRAME = 500
STALLED = 10.0
"""Seconds without room for a single frame after which a client counts as gone."""
LAST_WORDS = 1.0

_GOING_AWAY = 1012
_TOO_SLOW = 1013


class _Over(Exception):
    """The connection ends; with a code if the client is there to be told."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        self.code = code
        self.reason = reason


class Connection:
    """Everything that is done for one client. All of it ends with the connection: `run` returns when
    nothing is left."""

    def __init__(self, runtime: Runtime, session: Session, limit: int, receive: Receive, send: Send) -> None:
        self._runtime = runtime
        self._session = session
        self._limit = limit
        self._receive = receive
        self._transmit = send
        self._sending = asyncio.Lock()
        self._sending_since: float | None = None
        self._clock = asyncio.get_running_loop().time
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._tasks = asyncio.TaskGroup()
        self._calls: set[asyncio.Task[None]] = set()
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._ending = False

    async def run(self) -> None:
        """Serve the client until it leaves, is too slow, or the server closes."""
        over = _Over()
        closing = asyncio.Event()
        forget = self._runtime.feed.on_close(closing.set)
        try:
            async with self._tasks:
                self._tasks.create_task(self._end_with(closing))
                await self._read()
        except* _Over as ended:
            (over, *_) = [e for e in ended.exceptions if isinstance(e, _Over)]
        finally:
            forget()
        if over.code is not None:
            await self._close(over.code, over.reason)

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                raise _Over
            text = message.get("text")
            data: bytes = message["bytes"] if text is None else text.encode()
            if len(data) > self._limit:
                too_large = TooLarge(f"The frame is larger than {self._limit} bytes.")
                await self._send(frames.error(too_large, None))
                continue
            try:
                await self._take(frames.read(data))
            except NexusError as failure:
                await self._send(frames.error(failure, frames.identity(data)))

    async def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.Call():
                self._start_call(frame)
            case frames.Subscribe():
                self._subscribe(frame)
            case frames.Unsubscribe():
                await self._unsubscribe(frame.id)
            case frames.Ping():
                await self._send('{"type":"pong"}')

    def _start_call(self, frame: frames.Call) -> None:
        if self._ending:
            raise Unavailable("The server is closing.")
        if len(self._calls) >= CALLS_WAITING:
            raise Unavailable(
                f"{CALLS_WAITING} calls of this connection are not answered yet.",
                remedy="Wait for some of the answers.",
            )
        task = self._tasks.create_task(self._call(frame))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, frame: frames.Call) -> None:
        try:
            async with self._slots:
                result = await self._runtime.invoke(
                    frame.operation,
                    bytes(frame.arguments),
                    self._session,
                    channel="websocket",
                    demands=frames.demands(frame),
                )
            answer = frames.text({"type": "result", "id": frame.id, "result": result})
        except NexusError as failure:
            answer = frames.error(failure, frame.id)
        except Exception as failure:
            answer = frames.error(_unexpected(f"call '{frame.operation}'", failure), frame.id)
        await self._send(answer)

    def _subscribe(self, frame: frames.Subscribe) -> None:
        if frame.id in self._followed:
            raise InvalidInput(
                f"The id '{frame.id}' is taken by another subscription of this connection.",
                remedy="Choose another, or unsubscribe first.",
            )
        if len(self._followed) >= SUBSCRIPTIONS:
            raise InvalidInput(
                f"This connection has {SUBSCRIPTIONS} subscriptions already.",
                remedy="Unsubscribe from one, or open another connection.",
            )
        subscription = self._runtime.feed.subscribe(
            self._session,
            frame.topic,
            filter=frame.filter,
            since=frame.since,
            snapshot=frame.snapshot,
        )
        if frame.fields is not None:
            self._check_fields(frame.topic, frame.fields)
        self._followed[frame.id] = self._tasks.create_task(self._follow(frame.id, subscription, frame.fields))

    def _check_fields(self, topic: str, fields: list[str]) -> None:
        known = self._runtime.feed.source(topic).fields(topic)
        for name in fields:
            if name not in known:
                unknown = f"'{topic}' has no field '{name[:80]}'."
                raise InvalidFilter(unknown, remedy=did_you_mean(name, known))

    async def _unsubscribe(self, identifier: str) -> None:
        task = self._followed.pop(identifier, None)
        if task is None:
            raise InvalidInput(
                f"There is no subscription '{identifier}'.",
                remedy=did_you_mean(identifier, self._followed),
            )
        task.cancel()
        await asyncio.wait([task])

    async def _follow(self, identifier: str, subscription: Subscription, fields: frames.Fields) -> None:
        stands: dict[str, object] = {}
        try:
            async with subscription:
                await self._send_snapshot(identifier, subscription, fields)
                stands["cursor"] = subscription.cursor
                await self._send(frames.text({"type": "ready", "id": identifier, **stands}))
                async for change in subscription:
                    await self._send(frames.change(identifier, change, fields))
                    stands["cursor"] = change.cursor
        except _Over:
            raise
        except CursorExpired as failure:
            again: dict[str, object] = {"type": "resnapshot", "id": identifier, "reason": failure.detail}
            await self._send(frames.text(again))
        except FeedClosed:
            await self._send(frames.text({"type": "closing", "id": identifier, **stands}))
        except SlowConsumer as failure:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._send(frames.error(failure, identifier, **stands))
            raise _Over(_TOO_SLOW, failure.title) from None
        except NexusError as failure:
            await self._send(frames.error(failure, identifier, **stands))
        except Exception as failure:
            unexpected = _unexpected(f"subscription to '{subscription.topic}'", failure)
            await self._send(frames.error(unexpected, identifier, **stands))
        finally:
            self._followed.pop(identifier, None)

    async def _send_snapshot(
        self, identifier: str, subscription: Subscription, fields: frames.Fields
    ) -> None:
        records, subscription.records = subscription.records, None
        if records is None:
            return
        for start in range(0, len(records) or 1, SNAPSHOT_FRAME):
            end = start + SNAPSHOT_FRAME
            part = [frames.narrowed(record, fields) for record in records[start:end]]
            frame: dict[str, object] = {"type": "snapshot", "id": identifier, "records": part}
            await self._send(frames.text({**frame, "more": end < len(records)}))

    async def _end_with(self, closing: asyncio.Event) -> None:
        """Also end with a client that takes nothing: to look now and then costs a frame a third less than a
        time limit of its own."""
        while not closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STALLED / 2):
                    await closing.wait()
            if self._sending_since is not None and self._clock() - self._sending_since > STALLED:
                raise _Over(_TOO_SLOW, SlowConsumer.title)
        await self._end()

    async def _end(self) -> None:
        """End the connection once its calls are answered and its subscribers have their cursors."""
        self._ending = True
        if self._calls:
            await asyncio.wait(self._calls)
        if self._followed:
            await asyncio.wait(self._followed.values(), timeout=LAST_WORDS)
        raise _Over(_GOING_AWAY, "The server is closing.")

    async def _send(self, text: str) -> None:
        async with self._sending:
            self._sending_since = self._clock()
            try:
                await self._transmit({"type": "websocket.send", "text": text})
            except OSError:  # as ASGI says that the client is gone
                raise _Over from None
            self._sending_since = None

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(LAST_WORDS):
                await self._transmit({"type": "websocket.close", "code": code, "reason": reason})


def _unexpected(what: str, failure: Exception) -> NexusError:
    logger.error("a websocket's %s failed", what, exc_info=failure)
    return NexusError("The request failed.", remedy="The server's log says why.")
