"""SQLite: one writer and a few readers, each on its own thread, over a write-ahead log."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_sql

from dataflow.columns import Columns
from dataflow.dialects import sqlite_bulk, sqlite_log, sqlite_types
from dataflow.dialects.address import Settings
from dataflow.dialects.base import Codec, Found
from dataflow.dialects.ddl import quoted, upserted
from dataflow.dialects.filter_sql import FilterSql
from dataflow.dialects.log import Log
from dataflow.dialects.sqlite_connection import BUSY_MS, SqliteConnection
from dataflow.dialects.sqlite_errors import translated
from dataflow.dialects.sqlite_filters import SqliteFilters, add_functions
from dataflow.dialects.sqlite_short import LongReads
from dataflow.dialects.values import combined, json_text
from dataflow.fields import Field, Kind
from dataflow.model import Model
from nexus.block import finish
from nexus.errors import DatabaseUrlError


class Sqlite:
    """The database in the file `path`, or in a temporary one of its own when there is none."""

    name = "SQLite"
    readers = 4
    overflow = 0
    writers: int | None = 1
    returning = frozenset({"insert", "update", "delete"})
    integer_sum_columns = 2
    locks_reads = False  # a transaction that may write is the only one
    reads_together = False  # a record is read at once
    nulls_first = True
    log: Log
    filters: FilterSql = SqliteFilters()
    makes_log = True
    repeats_indexes = True
    has_arrays = False
    checks_deferred = ""

    def __init__(self, path: str | None, cache_mb: float | None = None) -> None:
        # numeric_dollar would name parameters; plain question marks are what the driver is fastest with.
        self.compiler: sa.engine.Dialect = sqlite_sql.dialect(paramstyle="qmark")
        self.log = sqlite_log.SqliteLog()
        self.database = "memory" if path is None else Path(path).stem
        self._cache_kb = None if cache_mb is None else int(cache_mb * 1024)
        self._long_reads = LongReads()
        self._remove: Callable[[], object] = lambda: None
        if path is None:
            # A private file behaves as any other database does; a real :memory: has one connection only.
            folder = tempfile.mkdtemp(prefix="nexus-")
            self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self.path = Path(folder, "memory.db")
            self.location = ":memory:"
            self.lasting = False
            self._synchronous = "OFF"  # it ends with the process: there is nothing to be durable for
        else:
            self.path = Path(path).absolute()
            self.location = str(self.path)
            self.lasting = True
            self._synchronous = "FULL"

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        return sqlite_types.column_type(field)

    def codec(self, field: Field) -> Codec:
        return sqlite_types.codec(field)

    def table_options(self) -> dict[str, Any]:
        # STRICT: without it a sum that overflows becomes a float, and any program may store text as a number.
        return {"sqlite_autoincrement": True, "sqlite_strict": True}

    def index_options(self, fields: Sequence[Field]) -> dict[str, Any]:
        return {}

    def in_list(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        values = sa.func.json_each(sa.bindparam(name, type_=sa.TEXT)).table_valued("value")
        compared = sa.func.hex(column) if isinstance(column.type, sa.BLOB) else column
        return compared.in_(sa.select(values.c.value))

    def list_parameter(self, values: list[Any]) -> object:
        # JSON knows no bytes: they are compared as hexadecimal text.
        return json_text([value.hex().upper() if isinstance(value, bytes) else value for value in values])

    def combined(
        self, field: Field, op: str, column: sa.ColumnElement[Any], given: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        if field.kind is Kind.FLOAT:  # which becomes infinite here, and an error everywhere else
            return getattr(sa.func, sqlite_types.FINITE)(combined(op, column, given))  # type: ignore[no-any-return]
        if field.kind is not Kind.DECIMAL:
            return combined(op, column, given)
        name = sqlite_types.PLUS if op == "inc" else sqlite_types.TIMES
        result: sa.ColumnElement[Any] = getattr(sa.func, name)(column, given)
        return result

    def key_given(self, table: sa.Table) -> None:
        return None  # AUTOINCREMENT goes on from the largest key there ever was

    def changed_list(
        self, op: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        return sa.Function(f"nexus_{op}", column, elements, type_=column.type)

    def integer_sum(self, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
        # A sum beyond 64 bits is an error here; the sums of the halves are not.
        high = sa.func.sum(column.op(">>")(sa.literal_column("32")))
        low = sa.func.sum(column.op("&")(sa.literal_column("4294967295")))
        return [high, low]

    def float_sum(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.sum(column)

    async def insert_many(
        self, connection: Any, table: sa.Table, columns: Columns, *, generates_id: bool, ids: bool
    ) -> list[Any]:
        given = "id" in columns.each
        tail = f" RETURNING {self._quote('id')}" if ids and not given else ""
        rows = await self._insert(connection, table, columns, tail)
        # The rows that a statement returns need not be in the order of its values; generated keys are.
        return columns.each["id"] if given else sorted(key for (key,) in rows)

    async def update_many(
        self, connection: Any, table: sa.Table, columns: Columns, counters: Sequence[str]
    ) -> int:
        update = sqlite_bulk.updates(
            self._table(table),
            self._quoted(columns.each),
            self._quoted(columns.same),
            self._quote("id"),
            self._quoted(counters),
        )
        found, _ = await connection.run_many(update.about, list(update.statements(columns)))
        return int(found)

    async def upsert_many(
        self,
        connection: Any,
        table: sa.Table,
        columns: Columns,
        changed: Sequence[str],
        counters: Sequence[str],
        *,
        generates_id: bool,
    ) -> int:
        name, key = self._table(table), self._quote("id")
        there = f"SELECT count(*) FROM {name} WHERE {key} IN (SELECT value FROM json_each(?))"
        ((before,),) = await connection.fetch(there, (self.list_parameter(columns.each["id"]),))
        settings = upserted(name, self._quoted(changed), self._quoted(counters))
        await self._insert(connection, table, columns, f" ON CONFLICT ({key}) {settings}")
        return columns.count - int(before)

    async def _insert(self, connection: Any, table: sa.Table, columns: Columns, tail: str) -> list[Any]:
        insert = sqlite_bulk.inserts(self._table(table), self._quoted(columns.names), tail)
        _, rows = await connection.run_many(insert.about, list(insert.statements(columns)))
        given: list[Any] = rows
        return given

    def _table(self, table: sa.Table) -> str:
        return self.compiler.identifier_preparer.format_table(table)

    def _quote(self, name: str) -> str:
        return self.compiler.identifier_preparer.quote(name)

    def _quoted(self, names: Iterable[str]) -> list[str]:
        return [self._quote(name) for name in names]

    async def lock(self, connection: Any, names: Iterable[str]) -> None:
        """A transaction that may write is the only one already."""

    async def try_lock(self, connection: Any, name: str) -> bool:
        return True

    async def estimate(self, connection: Any, table: sa.Table) -> int | None:
        return None  # it keeps no number of rows but by counting them

    async def open_reader(self) -> SqliteConnection:
        connection = await self._open("PRAGMA query_only = ON")
        connection.read_shortly(self._long_reads)
        return connection

    async def open_writer(self) -> SqliteConnection:
        connection = await self._open("PRAGMA recursive_triggers = ON", "PRAGMA foreign_keys = ON")
        try:
            await connection.become_writer(make=self.makes_log)
        except BaseException:
            await connection.close()
            raise
        return connection

    open_recorder = open_writer

    def system_sql(self) -> list[str]:
        return [*sqlite_log.SYSTEM_TABLES, sqlite_log.FIRST_HEAD]

    def capture_sql(self, model: Model) -> list[str]:
        return sqlite_log.capture_sql(model)

    async def found(self, connection: SqliteConnection, model: Model) -> Found:
        columns = await connection.fetch("SELECT name FROM pragma_table_info(?)", (model.table_name,))
        rows = await connection.fetch(
            "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE",
            (model.table_name,),
        )
        triggers = {name: sql for kind, name, sql in rows if kind == "trigger"}
        captured = sqlite_log.is_captured(model, triggers)
        if captured and model.changes:
            captured = not await connection.missing_of_log()
        return Found(
            columns=frozenset(row[0] for row in columns),
            indexes=frozenset(name for kind, name, _ in rows if kind == "index"),
            captured=captured,
        )

    @asynccontextmanager
    async def alone(self, connection: SqliteConnection, model: Model) -> AsyncIterator[None]:
        await connection.begin(write=True)
        try:
            for sql in self.system_sql():
                await connection.fetch(sql)
            await connection.complete_log()
            yield
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise

    @asynccontextmanager
    async def hurried(self, connection: SqliteConnection) -> AsyncIterator[None]:
        if self._synchronous == "OFF":
            yield
            return
        await connection.fetch("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            await finish(connection.fetch(f"PRAGMA synchronous = {self._synchronous}"))

    def literal(self, field: Field, value: Any) -> str:
        if isinstance(value, bytes):
            return f"X'{value.hex()}'"
        return quoted(value) if isinstance(value, str) else repr(value)

    def dispose(self) -> None:
        self._remove()

    async def _open(self, *pragmas: str) -> SqliteConnection:
        if not self.path.parent.is_dir():
            raise translated(sqlite3.OperationalError(f"no folder '{self.path.parent}'"))
        driver = aiosqlite.connect(
            self.path, isolation_level=None, cached_statements=512, check_same_thread=False
        )
        driver._thread.daemon = True  # a program that forgets to close must still be able to end
        try:
            connection = SqliteConnection(await driver, self.path)
        except sqlite3.Error as failure:
            raise translated(failure) from failure
        except asyncio.CancelledError:
            await finish(_ended(driver._thread))  # its thread must not outlive the event loop
            raise
        try:
            await add_functions(connection._driver)
            await connection.become_exact()
            await connection.fetch(f"PRAGMA busy_timeout = {BUSY_MS}")
            await connection.write_ahead()
            await connection.fetch(f"PRAGMA synchronous = {self._synchronous}")
            if self._cache_kb is not None:  # below zero it is a size, and not a number of pages
                await connection.fetch(f"PRAGMA cache_size = {-self._cache_kb}")
            for pragma in pragmas:
                await connection.fetch(pragma)
        except BaseException:
            await connection.close()
            raise
        return connection


async def _ended(thread: threading.Thread) -> None:
    """Return when a thread that was told to end has done so."""
    while thread.is_alive():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def sqlite_from(path: str | None, settings: Settings) -> Sqlite:
    options = settings.options((), frozenset({"cache_size_mb"}), Sqlite.name)
    if "cache_size_mb" not in options:
        return Sqlite(path)
    try:
        size = float(options["cache_size_mb"])
    except ValueError:
        size = 0
    if not 0 < size <= 1_000_000:
        raise DatabaseUrlError("cache_size_mb must be a positive number of megabytes.")
    return Sqlite(path, size)
