"""Connections of one event loop, in a fixed number of slots."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from nexus.errors import Unavailable

_LAST_STATEMENTS = 2.0


class Closable(Protocol):
    @property
    def usable(self) -> bool: ...

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Slots(Generic[C]):
    """Up to `size` connections, opened when first needed, handed to waiters in the order they came.

    `take` raises Unavailable after `patience` seconds. A waiter that is cancelled at any moment loses no
    connection.
    """

    def __init__(self, open_one: Callable[[], Awaitable[C]], size: int, patience: float = 30.0) -> None:
        self.size = size
        self.open = 0
        self._open_one = open_one
        self._patience = patience
        self._free: list[C] = []
        self._waiters: deque[asyncio.Future[C | None]] = deque()
        self._closed = False
        self._closing: set[asyncio.Future[None]] = set()
        self._given_back = asyncio.Event()

    @property
    def free(self) -> int:
        return len(self._free)

    async def take(self) -> C:
        if self._free:
            return self._free.pop()
        while True:
            if self._closed:
                raise Unavailable("The database is closed.")
            if self.open < self.size:
                return await self._open_slot()
            handed = await self._wait()
            if handed is not None:
                return handed

    def give(self, connection: C) -> None:
        """Give back what was taken. What cannot be used any more is closed, and its slot is free."""
        if self._closed or not connection.usable:
            self.open -= 1
            self._hand(None)
            if self._closed and not self.open:
                self._given_back.set()
            closing = asyncio.ensure_future(connection.close())
            self._closing.add(closing)  # an event loop keeps no task alive by itself
            closing.add_done_callback(self._closing.discard)
        elif not self._hand(connection):
            self._free.append(connection)

    async def discard(self, connection: C) -> None:
        """Give back a connection that is not to be used again."""
        self.open -= 1
        self._hand(None)
        if self._closed and not self.open:
            self._given_back.set()
        await connection.close()

    async def close(self) -> None:
        """Close every connection: what is free now, and what is in use when it is given back, for which
        this waits a little. Afterwards nothing of them calls into the event loop any more."""
        self._closed = True
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

    async def _open_slot(self) -> C:
        self.open += 1
        try:
            return await self._open_one()
        except BaseException:
            self.open -= 1
            self._hand(None)  # the next in line may try in our place
            raise

    async def _wait(self) -> C | None:
        """A connection, or None: look again."""
        waiter: asyncio.Future[C | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._patience):
                return await waiter
        except BaseException as failure:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            if isinstance(failure, TimeoutError):
                raise Unavailable(
                    f"No database connection became free within {self._patience:g} s;"
                    f" all {self.size} are in use."
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
