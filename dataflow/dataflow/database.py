"""One database: its connections in each event loop, its tables, its transactions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

from dataflow.changelog import ChangeLog
from dataflow.dialects import Connection, Dialect
from dataflow.model import Model
from dataflow.pool import Slots
from dataflow.schema import SchemaCache, SchemaMode, all_sql, check_present, install, parents_first
from dataflow.table import ModelTable
from nexus.call import Call
from nexus.errors import ConfigurationError


class Database:
    """A Resource of the kernel. Nothing is opened before the first use, and what is opened belongs to the
    event loop that opened it."""

    def __init__(self, dialect: Dialect, mode: SchemaMode = SchemaMode.AUTO) -> None:
        self.dialect = dialect
        self.mode = mode
        dialect.makes_log = mode is SchemaMode.AUTO
        self.cache = SchemaCache()
        self.changes = ChangeLog(self)
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pools] = weakref.WeakKeyDictionary()

    @property
    def pools(self) -> Pools:
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        pools = self._pools.get(loop)
        if pools is None:
            pools = self._pools[loop] = Pools(self.dialect)
        return pools

    async def table(self, model: Model) -> ModelTable:
        """The table of a model, which exists from then on. Raises SchemaMismatch."""
        found = self.cache.get(model)
        return found if found is not None else await self._use(model)

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
                writer = await pools.writer.take()
                try:
                    for needed in parents_first(model):
                        await self._prepare(writer, needed, mode or self.mode)
                finally:
                    pools.writer.give(writer)
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

    async def begin(self, call: Call) -> Transaction:
        slots = self.pools.writer
        connection = await slots.take()
        connection.caller = call
        try:
            await connection.begin(write=True)
        except BaseException:
            await slots.discard(connection)
            raise
        return Transaction(slots, connection)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        pools = self._pools.pop(asyncio.get_running_loop(), None)
        if pools is not None:
            await pools.close()


@dataclass(eq=False)
class Pools:
    """The connections of one event loop."""

    dialect: Dialect
    writer: Slots[Connection] = field(init=False)
    readers: Slots[Connection] = field(init=False)
    log: Slots[Connection] = field(init=False)
    watch: Slots[Connection] = field(init=False)
    installing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.readers = Slots(self.dialect.open_reader, self.dialect.readers)
        self.writer = self.readers
        if self.dialect.writers is not None:
            self.writer = Slots(self.dialect.open_writer, self.dialect.writers)
        # Following the log must not wait for requests, nor for the one who waits for other programs.
        self.log = Slots(self.dialect.open_reader, 1)
        self.watch = Slots(self.dialect.open_reader, 1)

    async def close(self) -> None:
        for slots in (self.readers, self.log, self.watch, self.writer):
            await slots.close()


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

    def __init__(self, slots: Slots[Connection], connection: Connection) -> None:
        self.connection = connection
        self._slots = slots

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

    def _give_back(self) -> None:
        self.connection.caller = None
        self._slots.give(self.connection)
