"""A stretch of work that is kept or undone as a whole: a call, or a part of it that can be undone alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from nexus.errors import NexusError, NotFound, Retryable, Unavailable
from nexus.ports import Resource, Unit

Begin: TypeAlias = Callable[[Resource], Awaitable[Unit]]

PATIENCE = 30.0


class Block:
    """The transactions of a call, each begun at the first statement that needs it.

    On one resource, statements run one at a time. While an inner block is open, the statements of the outer
    one wait for its end. A statement that failed may have taken the transaction with it, as databases differ
    in that: so after it nothing but an end of the block is possible, and the end is an undoing.
    """

    __slots__ = ("_begin", "_entered", "_inner", "_name", "_outer", "_units", "failure", "over")

    def __init__(self, begin: Begin, outer: Block | None = None) -> None:
        self.over = False
        self.failure: BaseException | None = None
        self._begin = begin
        self._outer = outer
        self._units: dict[Resource, _OpenUnit] = {} if outer is None else outer._units
        self._name: str = "nexus" if outer is None else f"{outer._name}_1"
        self._entered: dict[Resource, None] = {}
        self._inner = asyncio.Lock()

    @asynccontextmanager
    async def use(self, resource: Resource) -> AsyncIterator[Unit]:
        """The transaction on `resource`, for one statement."""
        unit = self._units.get(resource)
        if unit is None:
            unit = self._units[resource] = _OpenUnit()
        await self._turn(unit)
        try:
            self.check()
            work = await self._enter(resource, unit)
            try:
                yield work
            except NotFound:
                raise  # the database saw nothing fail
            except BaseException as failure:
                self.spoil(failure)
                raise
        finally:
            unit.lock.release()

    def check(self) -> None:
        """Raises NexusError when nothing can be done in this block any more."""
        if self.over:
            raise NexusError(
                "The transaction has ended and cannot be used any more.",
                remedy="Wait for every task that uses it before it ends.",
            )
        if self.failure is not None:
            raise NexusError(
                "A statement of this transaction has failed; it can only be rolled back.",
                remedy="Put what may fail into an inner transaction: that is rolled back alone.",
            ) from self.failure
        if self._outer is not None:
            self._outer.check()

    def spoil(self, failure: BaseException) -> None:
        """Nothing of this block can be kept any more; of the outer ones neither, where the database has
        undone everything."""
        self.failure = self.failure or failure
        if self._outer is not None and isinstance(failure, Retryable):
            self._outer.spoil(failure)

    async def inside(self) -> Block:
        """Begin an inner block; the statements of this one wait until it ends."""
        self.check()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._inner.acquire()
        except TimeoutError as failure:
            raise self._stuck() from failure
        try:
            self.check()
        except NexusError:
            self._inner.release()
            raise
        return Block(self._begin, self)

    async def keep(self) -> None:
        """End an inner block, or commit. Work on several resources commits one after the other: a failure
        rolls the remaining ones back, and says so."""
        try:
            self.check()
            if self._inner.locked():
                raise NexusError("An inner transaction is still open.")
        except NexusError:
            await self.undo()
            raise
        self.over = True
        try:
            await self._each("release" if self._outer is not None else "commit")
        except BaseException as failure:
            if self._outer is None:
                await self._each("rollback")
            else:
                self._outer.spoil(failure)
            raise
        finally:
            self._leave()

    async def rehearse(self) -> None:
        """Raise what keeping it would, as far as that can be known without doing so."""
        self.check()
        for unit in self._units.values():
            async with unit.lock:
                if unit.work is not None:
                    await unit.work.check()

    async def undo(self) -> None:
        """Leave nothing of it behind. What cannot be undone alone spoils the outer block, which then is
        undone as a whole: whoever undoes has a reason of its own to raise."""
        self.over = True
        try:
            await self._each("undo" if self._outer is not None else "rollback")
        except BaseException as failure:
            if self._outer is None:
                raise
            self._outer.spoil(failure)
            if not isinstance(failure, Exception):
                raise
        finally:
            self._leave()

    async def _turn(self, unit: _OpenUnit) -> None:
        """Take the resource's lock when no inner block is open."""
        while True:
            await unit.lock.acquire()
            if not self._inner.locked():
                return
            unit.lock.release()
            try:
                async with asyncio.timeout(PATIENCE), self._inner:
                    pass
            except TimeoutError as failure:
                raise self._stuck() from failure

    async def _enter(self, resource: Resource, unit: _OpenUnit) -> Unit:
        if self._outer is None:
            if unit.work is None:
                unit.work = await self._begin(resource)
            return unit.work
        work = await self._outer._enter(resource, unit)
        if resource not in self._entered:
            self._entered[resource] = None
            await work.savepoint(self._name)
        return work

    async def _each(self, how: str) -> None:
        """End the work on every resource; what has ended is forgotten, so that a second way goes on where the
        first one failed."""
        entered = self._units if self._outer is None else self._entered
        failures: list[BaseException] = []
        while entered:
            resource = next(reversed(entered))
            unit = self._units[resource]
            async with unit.lock:
                work = unit.work
                del entered[resource]
                if work is None:
                    continue
                try:
                    await finish(self._end(work, how))
                except BaseException as failure:
                    if how in ("commit", "release"):
                        raise
                    failures.append(failure)
        if failures:
            raise failures[0]

    async def _end(self, work: Unit, how: str) -> None:
        match how:
            case "commit":
                await work.commit()
            case "rollback":
                await work.rollback()
            case "release":
                await work.release(self._name)
            case _:
                await work.undo(self._name)

    def _leave(self) -> None:
        if self._outer is not None:
            self._outer._inner.release()

    def _stuck(self) -> Unavailable:
        return Unavailable(
            f"An inner transaction of another task did not end within {PATIENCE:g} s.",
            remedy="An inner transaction must not wait for work of the outer one.",
        )


class _OpenUnit:
    """A transaction that begins when the first statement needs it; `lock` keeps statements one at a time."""

    __slots__ = ("lock", "work")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.work: Unit | None = None


async def finish(work: Awaitable[object]) -> None:
    """Await to the end, even when the awaiting task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as request:
            cancelled = request
        except BaseException:  # the work's own failure: raised below, once
            break
    task.result()
    if cancelled is not None:
        raise cancelled
