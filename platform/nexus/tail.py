"""The one reader of a change log in a process and event loop, for all who follow it there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from nexus.block import finish
from nexus.errors import NexusError, Unavailable
from nexus.ports import ChangeSource

if TYPE_CHECKING:
    from nexus.feed import Alike, Subscription

logger = logging.getLogger("nexus")

PAGE = 500


class FeedClosed(Unavailable):
    """The server is going down; the subscription can be resumed elsewhere or later from its cursor."""

    def __init__(self) -> None:
        super().__init__("The server is closing.", remedy="Connect again and resume from the last cursor.")


class Tail:
    """Reads one log for all who follow it."""

    def __init__(self, source: ChangeSource, position: int) -> None:
        self.source = source
        self.position = position
        self.subscribers: set[Subscription] = set()
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        return not self._loop.is_closed()

    def attach(self, subscription: Subscription) -> None:
        self.subscribers.add(subscription)
        if not self._tasks:
            self._tasks = [
                self._loop.create_task(self._follow()),
                self._loop.create_task(self._listen()),
            ]

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its event loop may have ended without a word
            self._loop.call_soon_threadsafe(self._grown.set)

    def close(self) -> None:
        for subscription in self.subscribers:
            subscription.end(FeedClosed())

    def review(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # its event loop may have ended without a word
            self._loop.call_soon_threadsafe(self._review)

    def _review(self) -> None:
        for subscription in tuple(self.subscribers):
            subscription.review()

    async def stop(self) -> None:
        """End reading; when this returns, nothing of it is left in the event loop."""
        await finish(self._end())

    async def _end(self) -> None:
        ending = {task for task in self._tasks if not task.done()}
        while ending:
            for task in ending:
                task.cancel()  # and again: a library may have lost it
            _, ending = await asyncio.wait(ending, timeout=1)

    async def _follow(self) -> None:
        while True:
            self._grown.clear()
            try:
                logged = await self.source.read(self.position, PAGE)
            except Exception as failure:
                logger.exception("the change log cannot be read; its subscribers end")
                for subscription in self.subscribers:
                    subscription.end(
                        failure if isinstance(failure, NexusError) else Unavailable("The change log failed.")
                    )
                await asyncio.sleep(1)
                continue
            for change in logged:
                alike: Alike = {}
                for subscription in tuple(self.subscribers):
                    subscription.offer(change, alike)
                self.position = change.pos
            if len(logged) < PAGE:
                await self._grown.wait()

    async def _listen(self) -> None:
        while True:
            try:
                await self.source.changed()
            except Exception:
                logger.exception("waiting for other processes' changes failed")
                await asyncio.sleep(1)
            self._review()
            self._grown.set()
