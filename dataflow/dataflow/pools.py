"""All connections of one database in one event loop, which end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from dataflow.dialects import Connection, Dialect
from dataflow.echo import EchoedConnection, prepare_logging
from dataflow.grouping import Grouping
from dataflow.options import Options
from dataflow.pool import Care, Slots
from dataflow.retention import Retention
from dataflow.sealing import Sealing
from nexus.errors import Unavailable

_RECORDERS = 2


class Pools:
    """To be made in the event loop whose they are. When that is shut down, as `asyncio.run` does at its end,
    they are closed with it, whether anybody else has done so or not."""

    def __init__(self, dialect: Dialect, options: Options) -> None:
        self.dialect = dialect
        self.installing = asyncio.Lock()
        self._echo = options.echo
        if self._echo:
            prepare_logging()
        size = options.pool_size or dialect.readers
        overflow = dialect.overflow if options.max_overflow is None else options.max_overflow
        care = Care(
            patience=options.pool_timeout,
            overflow=overflow,
            recycle=options.pool_recycle,
            ping=_ping if options.pool_pre_ping else None,
        )
        self.readers = Slots(self._opening(dialect.open_reader), size, care)
        self.writer = self.readers
        if dialect.writers is not None:
            single = Care(care.patience, 0, care.recycle, care.ping)
            self.writer = Slots(self._opening(dialect.open_writer), dialect.writers, single)
        # Where statements are logged each is shown as it is sent.
        self.grouping = Grouping(self.writer) if dialect.writers == 1 and not self._echo else None
        # The platform's records do not wait for requests either, where there may be more than one writer.
        self.records = self.writer
        if dialect.writers is None:
            self.records = Slots(self._opening(dialect.open_recorder), _RECORDERS)
        # Following the log must not wait for requests, nor for the one who waits for other programs.
        self.log = Slots(dialect.open_reader, 1)
        self.watch = Slots(dialect.open_reader, 1)
        self.probe = Slots(dialect.open_reader, 1, Care(ping=_ping))
        self.care = Slots(dialect.open_reader, 1) if dialect.writers is None else self.writer
        retention = Retention(dialect.log, options.changes_max_rows, options.changes_max_age)
        self.sealing = Sealing(dialect.log, self.care, retention)
        self._end = self._close_with_the_loop()
        self._begin_to_wait()

    async def close(self) -> None:
        await self.sealing.close()
        every = (self.readers, self.log, self.watch, self.probe, self.care, self.records, self.writer)
        for slots in every:
            await slots.close()

    async def check(self) -> None:
        """Return when the database answers, on a connection for nothing else; raises NexusError."""
        self.probe.give(await self.probe.take())

    def _opening(self, open_one: Callable[[], Awaitable[Connection]]) -> Callable[[], Awaitable[Connection]]:
        async def open_echoed() -> Connection:
            return EchoedConnection(await open_one(), values=self._echo == "values")

        return open_echoed if self._echo else open_one

    async def _close_with_the_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.close()

    def _begin_to_wait(self) -> None:
        """An event loop closes at its end the asynchronous generators that were begun in it."""
        try:
            self._end.__anext__().send(None)
        except StopIteration:  # how a coroutine says that it has reached its end, here the `yield`
            return


async def _ping(connection: Connection) -> bool:
    try:
        await connection.fetch("SELECT 1")
    except Unavailable:
        return False
    return True


def pool_metrics(every: Iterable[Pools]) -> dict[str, Any]:
    """How many connections there may be and are, in use and free, and who waits for one."""
    slots = {slots for pools in every for slots in (pools.readers, pools.writer)}
    size = sum(each.size for each in slots)
    most = size + sum(each.care.overflow for each in slots)
    in_use = sum(each.open - each.free for each in slots)
    return {
        "size": size,
        "max_overflow": most - size,
        "open": sum(each.open for each in slots),
        "checked_out": in_use,
        "checked_in": sum(each.free for each in slots),
        "overflow": sum(max(0, each.open - each.size) for each in slots),
        "waiting": sum(each.waiting for each in slots),
        "utilization_percent": round(100 * in_use / most, 1) if most else 0.0,
        "is_exhausted": bool(most) and in_use >= most,
    }
