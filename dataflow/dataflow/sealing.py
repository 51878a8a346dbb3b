"""What a process does so that changes get positions, are told to those who follow, and do not pile up.

A reader says once a second that it is there, and seals what nobody else has sealed; it looks after the size
of the log, too, since those who write may be other programs. A process that has written asks, away from the
writer's path and at most once a second, whether there is a reader somewhere; while there is one, it seals
after each of its commits, or once after many.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

from dataflow.dialects import Connection
from dataflow.dialects.log import Log
from dataflow.pool import Slots
from dataflow.retention import Retention
from nexus.errors import NexusError

logger = logging.getLogger("nexus")

WAIT = 1.0
"""A reader looks by itself after so many seconds."""
_NEWS = 1.0  # seconds between two questions whether there is a reader
_YOUNG = 2 * _NEWS  # so long the writers may not know of a new reader
_IMPATIENT = 0.05  # seconds after which such a reader looks
_LAST_WORK = 2.0
_AFTER_FAILURE = 10.0


class Sealing:
    """One for each database and event loop."""

    def __init__(self, log: Log, slots: Slots[Connection], retention: Retention) -> None:
        self._log = log
        self._slots = slots
        self._retention = retention
        self._reader = uuid.uuid4().hex
        self._since = 0.0  # when this process began to read
        self._held = float("-inf")  # when it said last that it reads
        self._asked = float("-inf")
        self._able = float("-inf")  # when a reader may look after the log again
        self._followed = False
        self._again = False
        self._work: asyncio.Task[None] | None = None

    async def hold(self, connection: Connection) -> None:
        """Say that this process reads, and seal what others have left."""
        now = time.monotonic()
        if self._retention.due and now >= self._able and self._is_idle:
            self._begin()  # with a connection that can write
        if now - self._held > 2 * _NEWS:
            self._since = now
        if now - self._held >= _NEWS or now - self._since < _YOUNG:
            if now - self._held >= _NEWS / 2:
                await self._log.follow(connection, self._reader)
                self._held = now
            await self._log.seal(connection)

    @property
    def patience(self) -> float:
        """How long a reader may wait to be told."""
        young = self._log.sealed and time.monotonic() - self._since < _YOUNG
        return _IMPATIENT if young else WAIT

    def written(self, *, read_here: bool) -> None:
        """This process has committed; `read_here` says that a reader of its own will seal."""
        self._again = self._again or (self._followed and not read_here)
        if self._is_idle:
            asks = self._log.sealed and time.monotonic() - self._asked >= _NEWS
            if asks or self._again or self._retention.due:
                self._begin()

    async def close(self) -> None:
        """Return when what was begun is done, or after a moment."""
        if self._work is not None and not self._work.done():
            await asyncio.wait([self._work], timeout=_LAST_WORK)
            self._work.cancel()

    @property
    def _is_idle(self) -> bool:
        return self._work is None or self._work.done()

    def _begin(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            connection = await self._slots.take()
        except NexusError:
            logger.warning("the change log cannot be looked after: there is no connection")
            self._able = time.monotonic() + _AFTER_FAILURE
            return
        try:
            await self._serve(connection)
        except NexusError as failure:
            # Whoever reads looks by itself, and seals: this costs time and loses nothing. Where the log is
            # not installed it would fail again at once.
            logger.warning("the change log could not be looked after: %s", failure)
            self._able = self._asked = time.monotonic() + _AFTER_FAILURE
            self._followed = False
        finally:
            self._slots.give(connection)

    async def _serve(self, connection: Any) -> None:
        while True:
            self._again = False
            now = time.monotonic()
            if self._log.sealed and now - self._asked >= _NEWS:
                self._asked = now
                self._followed = await self._log.is_followed(connection)
            if self._followed:
                await self._log.seal(connection)
            await self._retention.look_after(connection)
            if not self._again:
                return
