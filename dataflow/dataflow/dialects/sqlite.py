"""SQLite: one writer and a few readers, each on its own thread, over a write-ahead log."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite as sqlite_sql

from dataflow import lists
from dataflow.dialects import sqlite_log, sqlite_types
from dataflow.dialects.address import Settings
from dataflow.dialects.base import Codec, Done, Found
from dataflow.dialects.ddl import insert_one, quoted
from dataflow.dialects.filter_sql import FilterSql
from dataflow.dialects.log import NOBODY, Identity, Log, identity
from dataflow.dialects.numbering import used_up
from dataflow.dialects.sqlite_errors import translated
from dataflow.dialects.sqlite_filters import SqliteFilters, add_functions
from dataflow.dialects.values import combined, json_text, named
from dataflow.fields import INT_MAX, Field, Kind
from dataflow.model import Model
from nexus.block import finish
from nexus.call import Call
from nexus.errors import DatabaseUrlError, NexusError, Unavailable
from nexus.ports import Isolation

_BUSY_MS = 5000
_TRY_AGAIN = 0.02
_INTERRUPT = 0.02


def _arranged(
    columns: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Sequence[Sequence[Any]]:
    if list(names) == [f"v_{name}" for name in columns]:
        return rows
    places = [columns.index(name.removeprefix("v_")) for name in names]
    return [[row[place] for place in places] for row in rows]


def _on_json(change: Callable[[Any, Any], Any]) -> Callable[[str | None, str], str | None]:
    def changed(stored: str | None, elements: str) -> str | None:
        known = None if stored is None else msgspec.json.decode(stored)
        result = change(known, msgspec.json.decode(elements))
        return None if result is None else json_text(result)

    return changed


class Sqlite:
    """The database in the file `path`, or in a temporary one of its own when there is none."""

    name = "SQLite"
    readers = 4
    overflow = 0
    writers: int | None = 1
    returning = frozenset({"insert", "update", "delete"})
    integer_sum_columns = 2
    locks_reads = False  # a transaction that may write is the only one
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
        self,
        connection: Any,
        table: sa.Table,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        generates_id: bool,
    ) -> list[Any]:
        one = insert_one(table, columns, ()).compile(dialect=self.compiler)
        arranged = _arranged(columns, one.positiontup or (), rows)
        return [key for (key,) in await connection.fetch_each(str(one), arranged)]

    async def lock(self, connection: Any, names: Sequence[str]) -> None:
        """A transaction that may write is the only one already."""

    async def try_lock(self, connection: Any, name: str) -> bool:
        return True

    async def estimate(self, connection: Any, table: sa.Table) -> int | None:
        return None  # it keeps no number of rows but by counting them

    async def open_reader(self) -> SqliteConnection:
        return await self._open("PRAGMA query_only = ON")

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
        driver = aiosqlite.connect(self.path, isolation_level=None, cached_statements=512)
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
            await connection.fetch(f"PRAGMA busy_timeout = {_BUSY_MS}")
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


def _calmed(connection: sqlite3.Connection) -> None:
    """An interruption that came when nothing ran any more holds until the next statement begins: without one
    the closing would be interrupted, and leave the log behind."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("SELECT 1").fetchone()


def _nothing() -> None:
    """Something for the thread to end after everything else."""


class SqliteConnection:
    """One connection and its thread, which runs statements in the order they were given."""

    __slots__ = ("_busy", "_driver", "_known", "_serving", "_txn", "_who", "caller", "seen_version", "wal")

    def __init__(self, driver: aiosqlite.Connection, path: Path) -> None:
        self.caller: Call | None = None
        self.wal = f"{path}-wal"
        self.seen_version: int | None = None  # of the data, when this connection looked last
        self._driver = driver
        self._serving: Call | None = None  # whose statement the thread is running
        self._known: Call | None = None  # whose identity this is
        self._who: Identity = NOBODY
        self._txn: str | None = None  # what the changes of this transaction are known by, once there are any
        self._busy = False

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        # As `_on_thread`, which would be one more coroutine on the way of every request.
        try:
            rows: list[Any] = await self._driver._execute(  # type: ignore[no-untyped-call]
                self._fetch, self.caller, sql, parameters
            )
        except asyncio.CancelledError:
            await finish(self._interrupted())
            raise
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as failure:
            raise await self._told(failure) from failure
        return rows

    async def fetch_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Run one statement for each of `rows`; all the rows that they give."""
        return await self._on_thread(self._fetch_each, sql, rows)

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._on_thread(self._fetch_each, sql, rows)

    async def _on_thread(
        self, work: Callable[..., list[Any]], sql: str, parameters: Sequence[Any]
    ) -> list[Any]:
        try:
            # The caller goes along with its statement: a cancelled one may still run when the next begins.
            rows: list[Any] = await self._driver._execute(  # type: ignore[no-untyped-call]
                work, self.caller, sql, parameters
            )
        except asyncio.CancelledError:
            await finish(self._interrupted())
            raise
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as failure:
            raise await self._told(failure) from failure
        return rows

    async def _told(self, failure: Exception) -> NexusError:
        """Our error. SQLite calls it a full disk, too, when it cannot number another record."""
        if getattr(failure, "sqlite_errorname", "") == "SQLITE_FULL":
            last = f"SELECT 1 FROM sqlite_sequence WHERE seq = {INT_MAX}"
            with contextlib.suppress(sqlite3.Error):  # a table that there is only where records are numbered
                if await self._driver._execute(self._fetch, None, last, ()):  # type: ignore[no-untyped-call]
                    return used_up()
        return translated(failure)

    @property
    def usable(self) -> bool:
        return True

    async def write_ahead(self) -> None:
        """Use the write-ahead log. The first to open a file changes the file for that, and others who come
        at the same moment are refused at once, whatever the time limit for locks is: so they try again."""
        clock = asyncio.get_running_loop().time
        until = clock() + _BUSY_MS / 1000
        while True:
            try:
                await self.fetch("PRAGMA journal_mode = WAL")
                return
            except Unavailable:
                if clock() > until:
                    raise
                await asyncio.sleep(_TRY_AGAIN)

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        ((found, key),) = await self._on_thread(self._execute, sql, parameters)
        return Done(found, key)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        names, *rows = await self._on_thread(self._query, sql, parameters)
        return named(names, rows)

    async def run(self, sql: str) -> None:
        await self.fetch(sql)

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        # Every transaction here is serializable, and so at least what was asked for.
        await self.fetch("BEGIN IMMEDIATE" if write else "BEGIN")

    async def commit(self) -> None:
        await self.fetch("COMMIT")

    async def rollback(self) -> None:
        if self._driver.in_transaction:
            await self.fetch("ROLLBACK")

    async def close(self) -> None:
        if (
            self._busy
        ):  # else it would be the closing itself that is interrupted, and the log would stay behind
            await self._driver.interrupt()
        await self._driver._execute(_calmed, self._driver._conn)  # type: ignore[no-untyped-call]
        await self._driver.close()

    async def _interrupted(self) -> None:
        """Return when the thread has ended what it was given, which it is told to end at once."""
        last = asyncio.ensure_future(self._driver._execute(_nothing))  # type: ignore[no-untyped-call]
        while not last.done():  # more than once: the statement may have been waiting still
            await self._driver.interrupt()
            await asyncio.wait([last], timeout=_INTERRUPT)
        last.result()

    async def become_exact(self) -> None:
        """Have this connection reckon decimals."""
        await self._driver._execute(  # type: ignore[no-untyped-call]
            sqlite_types.add_functions, self._driver._conn
        )

    async def become_writer(self, *, make: bool) -> None:
        """Have this connection's changes say who made them; make the log's tables if they are missing."""
        tables = await self.fetch("SELECT count(*) FROM sqlite_master WHERE name LIKE 'dataflow_changes%'")
        if tables[0][0] < len(sqlite_log.SYSTEM_TABLES):
            if not make:
                return
            await self.begin(write=True)
            for sql in (*sqlite_log.SYSTEM_TABLES, sqlite_log.FIRST_HEAD):
                await self.fetch(sql)
            await self.commit()
        if make and await self.missing_of_log():
            await self.begin(write=True)
            await self.complete_log()
            await self.commit()
        await self._driver.create_function(sqlite_log.CALLER, 1, self._about_caller)
        for change in (lists.push, lists.add, lists.pull):
            name, function = f"nexus_{change.__name__}", _on_json(change)
            await self._driver.create_function(name, 2, function, deterministic=True)
        await self.fetch(sqlite_log.stamp_sql(await self._log_columns()))

    async def complete_log(self) -> None:
        """Add to a log what it has not kept until now. It takes a transaction."""
        for sql in await self.missing_of_log():
            await self.fetch(sql)

    async def missing_of_log(self) -> list[str]:
        return sqlite_log.completed_sql(await self._log_columns())

    async def _log_columns(self) -> list[str]:
        return [
            name for (name,) in await self.fetch("SELECT name FROM pragma_table_info('dataflow_changes')")
        ]

    def _serve(self, caller: Call | None) -> None:
        self._serving, self._busy = caller, True
        if not self._driver._conn.in_transaction:
            self._txn = None  # a statement is one by itself, unless it begins one

    def _fetch(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            return self._driver._conn.execute(sql, parameters).fetchall()
        finally:
            self._busy = False

    def _query(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            cursor = self._driver._conn.execute(sql, parameters)
            return [[column[0] for column in cursor.description or ()], *cursor.fetchall()]
        finally:
            self._busy = False

    def _fetch_each(self, caller: Call | None, sql: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
        self._serve(caller)
        try:
            execute = self._driver._conn.execute
            return [row for parameters in rows for row in execute(sql, parameters).fetchall()]
        finally:
            self._busy = False

    def _execute(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            cursor = self._driver._conn.execute(sql, parameters)
            return [(cursor.rowcount, cursor.lastrowid or 0)]
        finally:
            self._busy = False

    def _about_caller(self, part: int) -> str | None:
        if part == sqlite_log.TXN:
            if self._txn is None:
                self._txn = secrets.token_hex(8)
            return self._txn
        if self._serving is not self._known:
            self._known, self._who = self._serving, identity(self._serving)
        return self._who[part] or None


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
