"""What one client is to be told: each thing once, however often it happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mcp.shared.subscriptions import ServerEvent

BURST = 0.05
"""Seconds between two rounds: what happens within them is told as one."""


class Outbox:
    """Holds what is to be told until it can be sent. An event says only that something is to be read again,
    so one that waits stands for all that follow: nothing grows while a client does not read, and the last is
    never lost."""

    def __init__(self, send: Callable[[ServerEvent], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: dict[ServerEvent, None] = {}
        self._news = asyncio.Event()
        self._open = asyncio.Event()
        self._over = False
        self._failure: Exception | None = None

    def put(self, event: ServerEvent) -> None:
        self._waiting[event] = None
        self._news.set()

    def open(self) -> None:
        """There is somebody to send to."""
        self._open.set()

    def hold(self) -> None:
        """Nobody is there for now: keep what comes."""
        self._open.clear()

    def close(self, failure: Exception | None = None) -> None:
        """End once all is sent, with a failure instead if one is given; the first call counts."""
        if not self._over:
            self._over, self._failure = True, failure
            self._news.set()

    async def run(self) -> None:
        """Send until it is closed; raises what it was closed with."""
        while True:
            await self._news.wait()
            await self._open.wait()
            self._news.clear()
            while self._waiting and self._open.is_set():
                event = next(iter(self._waiting))
                del self._waiting[event]  # before: what happens while it is sent is another
                await self._send(event)
            if self._failure is not None:
                raise self._failure
            if self._over:
                return
            await asyncio.sleep(BURST)
