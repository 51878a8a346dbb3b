"""PostgreSQL, through asyncpg."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_sql

from dataflow.columns import Columns
from dataflow.dialects import postgresql_log, tls
from dataflow.dialects.address import Address, Settings, address_from, number
from dataflow.dialects.base import Codec, Done, Found, isolation_sql
from dataflow.dialects.ddl import lock_numbers, quoted
from dataflow.dialects.filter_sql import FilterSql
from dataflow.dialects.json_lists import ChangedList
from dataflow.dialects.log import Log
from dataflow.dialects.postgresql_arrays import ChangedArray, check_arrays, element_of
from dataflow.dialects.postgresql_bulk import insert_sql, parameters, sql_type, update_sql, upsert_sql
from dataflow.dialects.postgresql_errors import translated
from dataflow.dialects.postgresql_filters import PostgresqlFilters
from dataflow.dialects.values import combined, decimal_from, json_reader, json_text, named
from dataflow.fields import Field, Kind
from dataflow.model import Model
from dataflow.numbers import DIGITS, SCALE
from nexus.block import finish
from nexus.call import Call
from nexus.errors import Unavailable
from nexus.ports import Isolation

_OPTIONS = tls.OPTIONS | {"connect_timeout", "application_name", "pool_size"}
_SETTLING = 10.0
_LOCK_SPACE = 0x4E58  # of the advisory locks that guard the making of tables
_UPSERT_SPACE = 0x4E59  # of those that guard the keys of upserts


def _uuid(value: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(int=value.int)  # the driver's is of a class of its own


_CODECS = {
    Kind.DECIMAL: Codec(decode=decimal_from),
    Kind.UUID: Codec(decode=_uuid),
}
_AS_IT_IS = Codec()


class Postgresql:
    """The database at an address."""

    name = "PostgreSQL"
    writers: int | None = None
    overflow = 20
    returning = frozenset({"insert", "update", "delete"})
    integer_sum_columns = 1
    locks_reads = True
    reads_together = True
    nulls_first = False
    log: Log = postgresql_log.PostgresqlLog()
    filters: FilterSql = PostgresqlFilters()
    makes_log = True
    repeats_indexes = True
    has_arrays = True
    checks_deferred = "SET CONSTRAINTS ALL IMMEDIATE"

    def __init__(self, address: Address) -> None:
        self.address = address
        self.database = address.database
        self._connect_timeout = number(address, "connect_timeout", 10)
        self._tls = tls.tls_of(address)
        self.location = repr(address)
        self.lasting = True
        self.readers = int(number(address, "pool_size", 10))
        self.compiler: sa.engine.Dialect = asyncpg_sql.dialect()  # type: ignore[no-untyped-call]

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        if field.elements is not None:
            return sa.ARRAY(self.column_type(element_of(field)))
        # "C" compares by code point, as every other database here and the live feed do.
        types: dict[Kind, sa.types.TypeEngine[Any]] = {
            Kind.TEXT: sa.Text(collation="C"),
            Kind.INTEGER: sa.BigInteger(),
            Kind.FLOAT: sa.Double(),
            Kind.BOOLEAN: sa.Boolean(),
            Kind.DATETIME: sa.DateTime(timezone=True),
            Kind.DATE: sa.Date(),
            Kind.TIME: sa.Time(),
            Kind.DECIMAL: sa.Numeric(DIGITS, SCALE),
            Kind.UUID: sa.Uuid(),
            Kind.BYTES: sa.LargeBinary(),
            Kind.JSON: JSONB(),
        }
        return types[field.kind]

    def codec(self, field: Field) -> Codec:
        if field.elements is not None:
            return _AS_IT_IS
        if field.kind is Kind.JSON:
            return postgresql_log.logged(field, Codec(json_text, json_reader(field)))
        return postgresql_log.logged(field, _CODECS.get(field.kind, _AS_IT_IS))

    def table_options(self) -> dict[str, Any]:
        return {}

    def index_options(self, fields: Sequence[Field]) -> dict[str, Any]:
        return {"postgresql_using": "gin"} if any(field.elements for field in fields) else {}

    def in_list(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        return column == sa.any_(sa.bindparam(name, type_=sa.ARRAY(column.type)))

    def list_parameter(self, values: list[Any]) -> object:
        return values

    def combined(
        self, field: Field, op: str, column: sa.ColumnElement[Any], given: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        return combined(op, column, given)

    def key_given(self, table: sa.Table) -> sa.ColumnElement[Any]:
        return sa.literal_column(self._moved(table, "id"))

    def _moved(self, table: sa.Table, key: str) -> str:
        """Moves the sequence on to a larger key."""
        preparer = self.compiler.identifier_preparer
        sequence = f"pg_get_serial_sequence('{preparer.format_table(table)}', 'id')"
        return f"CASE WHEN {key} > nextval({sequence}) - 1 THEN setval({sequence}, {key}) > 0 END"

    def changed_list(
        self, op: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        if isinstance(column.type, sa.ARRAY):
            return ChangedArray(op, column, elements)
        return ChangedList(op, column, elements)

    def integer_sum(self, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
        return [sa.func.sum(column)]

    def float_sum(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.sum(column)

    async def insert_many(
        self, connection: Any, table: sa.Table, columns: Columns, *, generates_id: bool, ids: bool
    ) -> list[Any]:
        await connection.fetch(postgresql_log.BULK, (table.name,))
        given = "id" in columns.each
        sql = insert_sql(self.compiler, table, tuple(columns.each), tuple(columns.same), ids and not given)
        rows = await connection.fetch(sql, parameters(table, columns))
        if given and generates_id:
            await self._move_on(connection, table, columns)
        return columns.each["id"] if given else [row[0] for row in rows]

    async def update_many(
        self, connection: Any, table: sa.Table, columns: Columns, counters: Sequence[str]
    ) -> int:
        each, same = tuple(columns.each), tuple(columns.same)
        sql = update_sql(self.compiler, table, each, same, tuple(counters))
        done = await connection.execute(sql, parameters(table, columns))
        return int(done.found)

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
        await connection.fetch(postgresql_log.BULK, (table.name,))
        each, same = tuple(columns.each), tuple(columns.same)
        sql = upsert_sql(self.compiler, table, each, same, tuple(changed), tuple(counters))
        ((made,),) = await connection.fetch(sql, parameters(table, columns))
        if generates_id:
            await self._move_on(connection, table, columns)
        return int(made)

    async def _move_on(self, connection: Any, table: sa.Table, columns: Columns) -> None:
        """Have no key generated that was given."""
        await connection.fetch(f"SELECT {self._moved(table, '$1::bigint')}", (max(columns.each["id"]),))

    async def lock(self, connection: Any, names: Iterable[str]) -> None:
        sql = "SELECT pg_advisory_xact_lock($1, n) FROM unnest($2::int[]) AS given(n)"
        if numbers := lock_numbers(names):
            await connection.fetch(sql, (_UPSERT_SPACE, numbers))

    async def try_lock(self, connection: Any, name: str) -> bool:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        ((held,),) = await connection.fetch("SELECT pg_try_advisory_xact_lock($1)", [number])
        return bool(held)

    async def estimate(self, connection: Any, table: sa.Table) -> int | None:
        preparer = self.compiler.identifier_preparer
        sql = "SELECT reltuples::bigint FROM pg_class WHERE oid = $1::text::regclass"
        rows = await connection.fetch(sql, [preparer.format_table(table)])
        return int(rows[0][0]) if rows and rows[0][0] >= 0 else None  # -1: never analyzed

    async def open_reader(self) -> PostgresqlConnection:
        address = self.address
        try:
            driver = await asyncpg.connect(
                host=address.socket or address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=address.database,
                ssl=self._tls.context() if self._tls.required else self._tls.mode,
                timeout=self._connect_timeout,
                statement_cache_size=512,
                server_settings={
                    "application_name": address.options.get("application_name", "nexus"),
                    "timezone": "UTC",
                    "default_transaction_isolation": "read committed",
                },
            )
        except Exception as failure:
            raise translated(failure) from failure
        await driver.set_type_codec("jsonb", encoder=str, decoder=str, schema="pg_catalog")
        return PostgresqlConnection(driver)

    open_writer = open_reader

    async def open_recorder(self) -> PostgresqlConnection:
        connection = await self.open_reader()
        try:
            await connection.fetch("SET synchronous_commit = off")
        except BaseException:
            await connection.close()
            raise
        return connection

    def system_sql(self) -> list[str]:
        return list(postgresql_log.SYSTEM)

    def capture_sql(self, model: Model) -> list[str]:
        return postgresql_log.capture_sql(model)

    async def found(self, connection: PostgresqlConnection, model: Model) -> Found:
        columns = await connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_name = $1 AND table_schema = current_schema()",
            (model.table_name,),
        )
        check_arrays(model, dict(columns))
        indexes = await connection.fetch(
            "SELECT indexname FROM pg_indexes WHERE tablename = $1 AND schemaname = current_schema()",
            (model.table_name,),
        )
        ((triggers,),) = await connection.fetch(
            postgresql_log.FOUND, (model.table_name, postgresql_log.mark(model))
        )
        return Found(
            columns=frozenset(row[0] for row in columns),
            indexes=frozenset(row[0] for row in indexes),
            captured=triggers == postgresql_log.triggers(model),
        )

    @asynccontextmanager
    async def alone(self, connection: PostgresqlConnection, model: Model) -> AsyncIterator[None]:
        await connection.begin(write=True)
        try:
            # CREATE TABLE IF NOT EXISTS fails when two do it at once; the lock ends with the transaction.
            lock = zlib.crc32(model.table_name.encode()) & 0x7FFFFFFF
            await connection.fetch("SELECT pg_advisory_xact_lock($1, $2)", (_LOCK_SPACE, lock))
            await postgresql_log.make_system(connection)
            yield
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise

    def hurried(self, connection: PostgresqlConnection) -> AbstractAsyncContextManager[None]:
        return nullcontext()  # recorders have connections of their own

    def literal(self, field: Field, value: Any) -> str:
        if isinstance(value, bytes):
            return f"'\\x{value.hex()}'"
        if field.elements is not None:
            element = element_of(field)
            listed = ", ".join(self.literal(element, one) for one in value)
            return f"ARRAY[{listed}]::{sql_type(self.compiler, self.column_type(element))}[]"
        return quoted(value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value))

    def dispose(self) -> None:
        """Nothing was made for this instance only."""


class PostgresqlConnection:
    """One connection. A cancelled statement is cancelled in the server too, by the driver."""

    __slots__ = ("_driver", "_notified", "caller")

    def __init__(self, driver: asyncpg.Connection) -> None:
        self.caller: Call | None = None
        self._driver = driver
        self._notified: asyncio.Event | None = None

    @property
    def usable(self) -> bool:
        return not self._driver.is_closed()

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if self.caller is not None and not self._driver.is_in_transaction():
            sql, parameters = postgresql_log.signed(sql, parameters, self.caller)
        try:
            rows: list[Any] = await self._driver.fetch(sql, *parameters)
        except asyncio.CancelledError:
            await finish(self._settled())
            raise
        except Exception as failure:
            raise self._failed(failure) from failure
        return rows

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        if self.caller is not None and not self._driver.is_in_transaction():
            sql, parameters = postgresql_log.signed(sql, parameters, self.caller)
        try:
            status: str = await self._driver.execute(sql, *parameters)
        except asyncio.CancelledError:
            await finish(self._settled())
            raise
        except Exception as failure:
            raise self._failed(failure) from failure
        return Done(int(status.rpartition(" ")[2]), 0)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        rows = await self.fetch(sql, parameters)
        return named(list(rows[0].keys()), rows) if rows else []

    async def run(self, sql: str) -> None:
        await self.fetch(sql)

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            await self._driver.executemany(sql, rows)
        except asyncio.CancelledError:
            await finish(self._settled())
            raise
        except Exception as failure:
            raise self._failed(failure) from failure

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        level = isolation_sql(isolation or ("read_committed" if write else "repeatable_read"))
        begin = f"BEGIN ISOLATION LEVEL {level} {'READ WRITE' if write else 'READ ONLY'}"
        if write and self.caller is not None:
            await self.execute(f"{begin}; {postgresql_log.signature(self.caller)}")
        else:
            await self.fetch(begin)

    async def notified(self, channel: str) -> None:
        """Return when there was a notification since the last time."""
        if self._notified is None:
            self._notified = heard = asyncio.Event()
            try:
                await self._driver.add_listener(channel, lambda *_: heard.set())
            except Exception as failure:
                raise self._failed(failure) from failure
        await self._notified.wait()
        self._notified.clear()

    async def commit(self) -> None:
        try:
            status: str = await self._driver.execute("COMMIT")
        except Exception as failure:
            raise translated(failure) from failure
        if status != "COMMIT":  # the server's answer where a statement had failed
            raise Unavailable("The transaction could not be kept: a statement of it had failed.")

    async def rollback(self) -> None:
        if self._driver.is_in_transaction():
            await self.fetch("ROLLBACK")

    def _failed(self, failure: Exception) -> Exception:
        if isinstance(failure, asyncpg.InternalClientError):
            # The server's farewell has come and the driver has not understood it yet.
            self._driver.terminate()
        return translated(failure)

    async def _settled(self) -> None:
        """Return when the server has ended what was cancelled. Until then it may still be done: as soon as
        the lock is free that it waits for."""
        try:
            await self._driver.execute("SELECT 1", timeout=_SETTLING)
        except asyncpg.InFailedSQLTransactionError:
            return  # which is an answer, too
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._driver.terminate()

    async def close(self) -> None:
        try:
            await self._driver.close(timeout=2)
        except (TimeoutError, OSError, asyncpg.PostgresError):
            self._driver.terminate()


def postgresql_from(rest: str, settings: Settings) -> Postgresql:
    owner = Postgresql.name
    return Postgresql(address_from(rest, settings, owner=owner, port=5432, user="postgres", known=_OPTIONS))
