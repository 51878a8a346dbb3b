"""Writes the beginnings and the ends of runs.

What comes while one write is under way goes together into the next, so that many runs at once cost few
transactions. A run does not wait for longer than `PATIENCE` for its row: a database whose only writer is busy
must not hold up what does not need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable

from nexus.errors import NexusError, SchemaMismatch
from nexus.ports import Records, Row
from nexus.run_record import RUNS

logger = logging.getLogger("nexus")

PATIENCE = 1.0
_AGAIN = (0.2, 1.0, 3.0, 10.0, 30.0)
_LAST_WORDS = 2.0
_MOST_AT_ONCE = 200
_REPLACED = 5


class RunWriter:
    """For all event loops of an application."""

    def __init__(self) -> None:
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = (
            weakref.WeakKeyDictionary()
        )

    def insert(self, records: Records, row: Row) -> asyncio.Task[None]:
        """Begin to insert a row."""
        return self._queue().spawn(lambda queue: queue.write(records, row, None))

    def change(
        self,
        records: Records,
        begun: asyncio.Task[None] | None,
        row: Row,
        changes: Row,
        after: Callable[[], Awaitable[None]],
    ) -> asyncio.Task[None]:
        """Begin to write how a run ended, once its beginning is written; a few times, if need be. Where the
        beginning could not be written, the whole row is. `after` follows when it is done."""
        return self._queue().spawn(lambda queue: queue.end(records, begun, row, changes, after))

    async def close(self) -> None:
        """Wait, within bounds, for what is being written in the running event loop."""
        queue = self._queues.get(asyncio.get_running_loop())
        if queue is not None:
            await queue.close()

    def _queue(self) -> _Queue:
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            queue = self._queues[loop] = _Queue()
        return queue


class _Queue:
    """The writes of one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy = False
        self._waiting: list[tuple[Row | None, tuple[Row, Row] | None, asyncio.Future[None]]] = []
        self._closing = asyncio.Event()

    def spawn(self, work: Callable[[_Queue], Awaitable[None]]) -> asyncio.Task[None]:
        async def run() -> None:
            await work(self)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def write(self, records: Records, row: Row | None, change: tuple[Row, Row] | None) -> None:
        if not self._busy:
            await self._write(records, [row] if row else [], [change] if change else [])
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, change, ended))
        await ended

    async def end(
        self,
        records: Records,
        begun: asyncio.Task[None] | None,
        row: Row,
        changes: Row,
        after: Callable[[], Awaitable[None]],
    ) -> None:
        if begun is not None:
            await asyncio.wait({begun})
        failed = None if begun is None else begun.exception()
        if isinstance(failed, SchemaMismatch):  # there is no table, and that has been said
            await after()
            return
        known = failed is None
        for seconds in (*_AGAIN, None):
            try:
                if known:
                    await self.write(records, None, (row, changes))
                else:
                    await self.write(records, row, None)
                break
            except NexusError as failure:
                if seconds is None or self._closing.is_set():
                    logger.error("the end of the run %s is not recorded: %s", row["id"], failure)
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._closing.wait()
        await after()

    async def close(self) -> None:
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        self._closing.clear()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; nobody may

    async def _write(self, records: Records, rows: list[Row], changes: list[tuple[Row, Row]]) -> None:
        """A single change is what differs; several are whole rows, which a store can put in place at once."""
        few = len(changes) < _REPLACED
        self._busy = True
        try:
            given = [(row["id"], change if few else row) for row, change in changes]
            await records.write(RUNS, rows, given)
        finally:
            self._busy = False
            if self._waiting:
                waiting, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
                self._busy = True
                self.spawn(lambda queue: queue._write_waiting(records, waiting))

    async def _write_waiting(
        self,
        records: Records,
        waiting: list[tuple[Row | None, tuple[Row, Row] | None, asyncio.Future[None]]],
    ) -> None:
        try:
            await self._write(
                records,
                [row for row, _, _ in waiting if row is not None],
                [change for _, change, _ in waiting if change is not None],
            )
        except BaseException as failure:
            for _, _, ended in waiting:
                if not ended.done():
                    ended.set_exception(
                        failure if isinstance(failure, NexusError) else NexusError("Nothing was written.")
                    )
            raise
        for _, _, ended in waiting:
            if not ended.done():
                ended.set_result(None)
