"""Connections of one event loop, in a fixed number of slots."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from nexus.errors import Unavailable

_LAST_STATEMENTS = 2.0
_SURPLUS_KEPT = 30.0


class Closable(Protocol):
    @property
    def usable(self) -> bool: ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@dataclass(frozen=True, slots=True)
class Care:
    """How connections are kept. `overflow` more than there are slots are opened while they are needed, and
    closed half a minute after it: a new connection costs more than many statements. One older than `recycle`
    seconds is replaced. `ping` says, at each taking, whether a connection still lives."""

    patience: float = 30.0
    overflow: int = 0
    recycle: float | None = None
    ping: Callable[[Any], Awaitable[bool]] | None = None


class Slots(Generic[C]):
    """Up to `size` connections, opened when first needed, handed to waiters in the order they came.

    `take` raises Unavailable when none becomes free in time. A waiter that is cancelled at any moment loses
    no connection.
    """

    def __init__(self, open_one: Callable[[], Awaitable[C]], size: int, care: Care = Care()) -> None:
        self.size = size
        self.care = care
        self.open = 0
        self._carefree = care.recycle is None and care.ping is None
        self._most = size + care.overflow
        self._open_one = open_one
        self._free: list[C] = []
        self._born: dict[C, float] = {}  # of those that are to be recycled
        self._waiters: deque[asyncio.Future[C | None]] = deque()
        self._closed = False
        self._trimming: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self._given_back = asyncio.Event()

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def waiting(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    def at_once(self) -> C | None:
        """What `take` would give without waiting for anything; None where it must be asked."""
        return self._free.pop() if self._free and self._carefree else None

    async def take(self) -> C:
        if self._free and self._carefree:
            return self._free.pop()
        while True:
            while self._free:
                connection = self._free.pop()
                if self._is_old(connection):
                    await self.discard(connection)
                elif self.care.ping is None or await self._lives(connection, self.care.ping):
                    return connection
            if self._closed:
                raise Unavailable("The database is closed.")
            if self.open < self._most:
                return await self._open_slot()
            handed = await self._wait()
            if handed is not None:
                return handed

    def give(self, connection: C) -> None:
        """Give back what was taken. What cannot be used any more is closed, and its slot is free."""
        old = not self._carefree and self._is_old(connection)
        if old or self._closed or not connection.usable:
            self._close_soon(connection)
        elif self._hand(connection):
            return
        else:
            self._free.append(connection)
            if self.open > self.size and self._trimming is None:
                self._trim_later()

    async def discard(self, connection: C) -> None:
        """Give back a connection that is not to be used again."""
        self._forget(connection)
        await connection.close()

    async def close(self) -> None:
        """Close every connection: what is free now, and what is in use when it is given back, for which
        this waits a little. Afterwards nothing of them calls into the event loop any more."""
        self._closed = True
        if self._trimming is not None:
            self._trimming.cancel()
        while self._waiters:
            self._hand(None)
        free, self._free = self._free, []
        self.open -= len(free)
        for connection in free:
            await connection.close()
        if self.open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_STATEMENTS):
                    await self._given_back.wait()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_LAST_STATEMENTS)

    def _trim_later(self) -> None:
        self._trimming = asyncio.get_running_loop().call_later(_SURPLUS_KEPT, self._trim)

    def _trim(self) -> None:
        """Close those beyond the slots that are free; first of all the one that was used the longest ago."""
        self._trimming = None
        surplus = min(self.open - self.size, len(self._free))
        idle, self._free = self._free[:surplus], self._free[surplus:]
        for connection in idle:
            self._close_soon(connection)
        if self.open > self.size:
            self._trim_later()

    def _close_soon(self, connection: C) -> None:
        self._forget(connection)
        closing = asyncio.ensure_future(connection.close())
        self._closing.add(closing)  # an event loop keeps no task alive by itself
        closing.add_done_callback(self._closing.discard)

    def _forget(self, connection: C) -> None:
        self.open -= 1
        self._born.pop(connection, None)
        self._hand(None)
        if self._closed and not self.open:
            self._given_back.set()

    def _is_old(self, connection: C) -> bool:
        recycle = self.care.recycle
        return recycle is not None and time.monotonic() - self._born[connection] >= recycle

    async def _lives(self, connection: C, ping: Callable[[C], Awaitable[bool]]) -> bool:
        try:
            lives = await ping(connection)
        except BaseException:
            self._close_soon(connection)
            raise
        if not lives:
            await self.discard(connection)
        return lives

    async def _open_slot(self) -> C:
        self.open += 1
        try:
            made = await self._open_one()
        except BaseException:
            self.open -= 1
            self._hand(None)  # the next in line may try in our place
            raise
        if self.care.recycle is not None:
            self._born[made] = time.monotonic()
        return made

    async def _wait(self) -> C | None:
        """A connection, or None: look again."""
        waiter: asyncio.Future[C | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.care.patience):
                return await waiter
        except BaseException as failure:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            if isinstance(failure, TimeoutError):
                raise Unavailable(
                    f"No database connection became free within {self.care.patience:g} s;"
                    f" all {self._most} are in use."
                ) from failure
            raise

    def _pass_on(self, handed: C | None) -> None:
        if handed is None:
            self._hand(None)
        else:
            self.give(handed)

    def _hand(self, connection: C | None) -> bool:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False
