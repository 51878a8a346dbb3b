"""One database: its connections in each event loop, its tables, its transactions."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from dataflow.changelog import ChangeLog
from dataflow.dialects import Connection, Dialect
from dataflow.model import Model
from dataflow.options import Options
from dataflow.pool import Slots
from dataflow.pools import Pools, pool_metrics
from dataflow.schema import SchemaCache, SchemaMode, all_sql, check_present, install, parents_first
from dataflow.table import ModelTable
from nexus.call import Call
from nexus.errors import ConfigurationError, RegistrationError


class Database:
    """A Resource of the kernel. Nothing is opened before the first use, and what is opened belongs to the
    event loop that opened it."""

    def __init__(
        self,
        dialect: Dialect,
        mode: SchemaMode = SchemaMode.AUTO,
        options: Options = Options(),  # noqa: B008
    ) -> None:
        self.dialect = dialect
        self.mode = mode
        self.options = options
        dialect.makes_log = mode is SchemaMode.AUTO
        self.cache = SchemaCache()
        self.changes = ChangeLog(self)
        self._pools: dict[asyncio.AbstractEventLoop, Pools] = {}
        self._last_words: dict[asyncio.AbstractEventLoop, weakref.finalize[Any, Database]] = {}

    @property
    def pools(self) -> Pools:
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            for other in [other for other in self._pools if other.is_closed()]:
                del self._pools[other]
                self._last_words.pop(other).detach()
            pools = self._pools[loop] = Pools(self.dialect, self.options)
            # A database that nobody holds any more gives its connections back, in their own event loop.
            last = self._last_words[loop] = weakref.finalize(self, _close_in, loop, pools)
            last.atexit = False
        return pools

    def check(self, model: Model) -> None:
        """Raises RegistrationError for a model that this kind of database cannot hold."""
        if model.has_arrays and not self.dialect.has_arrays:
            raise RegistrationError(
                f"{model.name}: {self.dialect.name} has no arrays for 'use_native_arrays'.",
                remedy="Leave it out: lists are then kept as JSON, with the same filters and operators.",
            )

    def metrics(self) -> dict[str, Any]:
        """The connections for statements, of all event loops together."""
        return pool_metrics([pools for loop, pools in self._pools.items() if not loop.is_closed()])

    async def table(self, model: Model) -> ModelTable:
        """The table of a model, which exists from then on. Raises SchemaMismatch."""
        return self.known(model) or await self._use(model)

    def known(self, model: Model) -> ModelTable | None:
        """The table of a model, where it is known to be there: what mostly saves awaiting `table`."""
        return self.cache.get(model)

    def plan(self, model: Model) -> list[str]:
        """All that an empty database needs for a model."""
        tables = [ModelTable(needed, self.dialect) for needed in parents_first(model)]
        return list(dict.fromkeys(sql for table in tables for sql in all_sql(table, self.dialect)))

    async def captures(self, model: Model) -> bool:
        """Whether changes to a model are written into the log."""
        await self.table(model)
        return model not in self.cache.uncaptured

    async def install(self, models: Iterable[Model]) -> None:
        """Make what is missing of these models, on purpose. Raises ConfigurationError where nothing may be
        made, SchemaMismatch for what cannot be."""
        if self.mode is SchemaMode.EXISTING:
            raise ConfigurationError(
                "existing_schema_mode changes nothing in the database: there is nothing to install."
            )
        self.cache.clear()
        for model in models:
            await self._use(model, SchemaMode.AUTO)

    async def _use(self, model: Model, mode: SchemaMode | None = None) -> ModelTable:
        pools = self.pools
        async with pools.installing:
            if model not in self.cache.tables:
                self.cache.misses += 1
                mode = mode or self.mode
                slots = pools.writer if mode is SchemaMode.AUTO else pools.readers
                connection = await slots.take()
                try:
                    for needed in parents_first(model):
                        await self._prepare(connection, needed, mode)
                finally:
                    slots.give(connection)
            return self.cache.tables[model]

    async def _prepare(self, connection: Connection, model: Model, mode: SchemaMode) -> None:
        table = ModelTable(model, self.dialect)  # only now are the server's abilities known
        if mode is SchemaMode.AUTO:
            await install(table, self.dialect, connection)
        else:
            found = await self.dialect.found(connection, model)
            check_present(table, found, self.dialect, mode)
            if not found.captured:
                self.cache.uncaptured.add(model)
        self.cache.tables[model] = table

    def lend(self, call: Call, *, write: bool) -> _Lent:
        pools = self.pools
        return _Lent(pools.writer if write else pools.readers, call)

    async def read(self, call: Call, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """As a statement on what is lent: what most requests are, without anything in between."""
        slots = self.pools.readers
        connection = slots.at_once() or await slots.take()
        connection.caller = call
        try:
            return await connection.fetch(sql, parameters)
        finally:
            connection.caller = None
            slots.give(connection)

    async def write(self, call: Call, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """As a statement on what is lent for writing: it commits by itself."""
        pools = self.pools
        if pools.grouping is not None:
            return await pools.grouping.fetch(call, sql, parameters)
        connection = pools.writer.at_once() or await pools.writer.take()
        connection.caller = call
        try:
            return await connection.fetch(sql, parameters)
        finally:
            connection.caller = None
            pools.writer.give(connection)

    async def begin(self, call: Call) -> Transaction:
        read_only = call.terms.read_only
        if self.dialect.writers is not None and self.mode is SchemaMode.AUTO and not read_only:
            # A table cannot be made later: that would wait for the writer, which is this transaction's.
            for model in self.changes.models():
                await self.table(model)
        slots = self.pools.readers if read_only else self.pools.writer
        connection = await slots.take()
        connection.caller = call
        try:
            await connection.begin(write=not read_only, isolation=call.terms.isolation)
        except BaseException:
            await slots.discard(connection)
            raise
        return Transaction(slots, connection, self.dialect.checks_deferred)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        loop = asyncio.get_running_loop()
        pools = self._pools.pop(loop, None)
        if pools is not None:
            self._last_words.pop(loop).detach()
            await pools.close()


def _close_in(loop: asyncio.AbstractEventLoop, pools: Pools) -> None:
    with contextlib.suppress(RuntimeError):  # it has been closed, and they with it
        loop.call_soon_threadsafe(lambda: loop.create_task(pools.close()))


class _Lent:
    """A connection for as long as one statement takes."""

    __slots__ = ("_call", "_connection", "_slots")

    def __init__(self, slots: Slots[Connection], call: Call) -> None:
        self._slots = slots
        self._call = call

    async def __aenter__(self) -> Connection:
        self._connection = await self._slots.take()
        self._connection.caller = self._call
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.caller = None
        self._slots.give(self._connection)


class Transaction:
    """A Unit of the kernel: a connection that is kept until the end of the call."""

    def __init__(self, slots: Slots[Connection], connection: Connection, checks_deferred: str) -> None:
        self.connection = connection
        self._slots = slots
        self._checks_deferred = checks_deferred

    async def check(self) -> None:
        if self._checks_deferred:
            await self.connection.fetch(self._checks_deferred)

    async def commit(self) -> None:
        try:
            await self.connection.commit()
        except BaseException:
            await self._slots.discard(self.connection)
            raise
        self._give_back()

    async def rollback(self) -> None:
        try:
            await self.connection.rollback()
        except BaseException:
            await self._slots.discard(self.connection)
            raise
        self._give_back()

    async def savepoint(self, name: str) -> None:
        await self.connection.fetch(f"SAVEPOINT {name}")

    async def release(self, name: str) -> None:
        await self.connection.fetch(f"RELEASE SAVEPOINT {name}")

    async def undo(self, name: str) -> None:
        await self.connection.fetch(f"ROLLBACK TO SAVEPOINT {name}")
        await self.connection.fetch(f"RELEASE SAVEPOINT {name}")

    def _give_back(self) -> None:
        self.connection.caller = None
        self._slots.give(self.connection)
