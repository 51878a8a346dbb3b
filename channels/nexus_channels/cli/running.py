"""Running an operation, or following a topic, in an event loop that lives for that long."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from nexus import LOCAL, Nexus
from nexus.arguments import Given
from nexus.demands import Demands, Noted
from nexus.feed import Subscription
from nexus.request import REQUEST, new_request
from nexus_channels.cli.output import write

CHANNEL = "cli"
_PAGE = 500
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    application: Nexus,
    name: str,
    arguments: Given,
    demands: Demands | None = None,
    noted: Noted | None = None,
) -> Any:
    """The result of one operation.

    Raises NexusError; Ctrl-C rolls back and raises KeyboardInterrupt."""
    _silence()
    return asyncio.run(_run(application, name, arguments, demands, noted))


async def _run(
    application: Nexus, name: str, arguments: Given, demands: Demands | None, noted: Noted | None
) -> Any:
    REQUEST.set(new_request())
    async with application.running():
        return await application.runtime.invoke(
            name, arguments, LOCAL, channel=CHANNEL, demands=demands, noted=noted
        )


def watch(application: Nexus, topic: str, *, where: object, since: str | None, snapshot: bool) -> None:
    """Write what happens to a topic as lines of JSON, in the frames of the websocket: the snapshot
    if there is to be one, `ready`, then each change. Ends when interrupted or terminated."""
    _silence()
    asyncio.run(_watch(application, topic, where, since, snapshot))


async def _watch(application: Nexus, topic: str, where: object, since: str | None, snapshot: bool) -> None:
    async with application.running():
        subscription = application.feed.subscribe(LOCAL, topic, filter=where, since=since, snapshot=snapshot)
        with _Stop.on_signals() as stop:
            try:
                async with subscription:
                    await _follow(subscription, stop)
            except asyncio.CancelledError:
                if not stop.asked:
                    raise


async def _follow(subscription: Subscription, stop: _Stop) -> None:
    records = subscription.records
    if records is not None:
        for start in range(0, max(len(records), 1), _PAGE):
            page, more = records[start : start + _PAGE], start + _PAGE < len(records)
            _write_frame(stop, type="snapshot", records=page, more=more)
    _write_frame(stop, type="ready", cursor=subscription.cursor)
    async for change in subscription:
        _write_frame(stop, type="change", **msgspec.structs.asdict(change))


def _write_frame(stop: _Stop, **frame: object) -> None:
    with stop.at_once():
        write(msgspec.json.encode(frame) + b"\n")


def serve_mcp(application: Nexus) -> None:
    """Serve one client on stdin and stdout, until it closes them."""
    from nexus_channels.mcp.stdio import serve_stdio

    asyncio.run(serve_stdio(application))


class _Stop:
    """SIGINT and SIGTERM end the task that watches: normally at its next await, but at once while
    it writes, since a reader that has stopped reading may keep it there forever."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.asked = False
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._writing = False

    @classmethod
    @contextmanager
    def on_signals(cls) -> Iterator[_Stop]:
        task = asyncio.current_task()
        assert task is not None
        stop = cls(task)
        before = {which: signal.signal(which, stop._ask) for which in _SIGNALS}
        try:
            yield stop
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._writing:
            raise asyncio.CancelledError
        self._task.cancel()
        self._loop.call_soon_threadsafe(lambda: None)  # it may be asleep


def _silence() -> None:
    # The runtime logs what a handler raises, and without any handler logging would write that to
    # stderr. Here the program says it, in one line or with its traceback.
    logging.getLogger("nexus").addHandler(logging.NullHandler())
