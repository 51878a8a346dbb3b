"""MariaDB and MySQL, through aiomysql. What only one of them can do is found out at the first connection."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiomysql
import msgspec
import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT, ER
from sqlalchemy.dialects import mysql as mysql_sql
from sqlalchemy.dialects.mysql import aiomysql as aiomysql_sql

from dataflow.columns import Columns
from dataflow.dialects import mysql_bulk, mysql_log, tls
from dataflow.dialects.address import Address, Settings, address_from, number
from dataflow.dialects.base import Codec, Found
from dataflow.dialects.ddl import lock_numbers, quoted
from dataflow.dialects.filter_sql import FilterSql
from dataflow.dialects.json_lists import ChangedList
from dataflow.dialects.log import Log
from dataflow.dialects.mysql_connection import LOCK_SECONDS, MysqlConnection
from dataflow.dialects.mysql_driver import Driver, as_bytes, is_mariadb
from dataflow.dialects.mysql_errors import translated
from dataflow.dialects.mysql_filters import MysqlFilters
from dataflow.dialects.values import combined, decimal_from, json_reader, json_text, time_text
from dataflow.fields import Field, Kind
from dataflow.model import Model
from dataflow.numbers import DIGITS, SCALE
from nexus.errors import DatabaseUrlError, Unavailable

logger = logging.getLogger("nexus")

_OPTIONS = tls.OPTIONS | {
    "application_name",
    "charset",
    "collation",
    "connect_timeout",
    "pool_size",
    "returning",
}
_COLLATION = re.compile(r"utf8mb4_[a-z0-9_]{1,50}")
_PREPARE = (
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', group_concat_max_len = 1073741824"
)
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
_UUID_LENGTH = 36


def _to_naive(value: datetime.datetime) -> datetime.datetime:
    return value.replace(tzinfo=None)  # it is in UTC, and the column knows no zones


def _to_aware(value: datetime.datetime) -> datetime.datetime:
    return value.replace(tzinfo=datetime.UTC)


def _time(value: datetime.timedelta) -> datetime.time:
    return (datetime.datetime.min + value).time()  # the driver takes a time of day for a duration


_CODECS = {
    Kind.BOOLEAN: Codec(encode=int, decode=bool),
    Kind.DATETIME: Codec(_to_naive, _to_aware),
    Kind.TIME: Codec(time_text, _time),
    Kind.DECIMAL: Codec(decode=decimal_from),
    Kind.UUID: Codec(str, uuid.UUID),
}
_AS_IT_IS = Codec()


class Mysql:
    """The database at an address. `returning=off` in the URL uses no RETURNING, as MySQL has none."""

    name = "MySQL/MariaDB"
    writers: int | None = None
    overflow = 20
    integer_sum_columns = 1
    locks_reads = True
    reads_together = True
    nulls_first = True
    log: Log = mysql_log.MysqlLog()
    makes_log = True
    repeats_indexes = False  # of the two servers, MariaDB only
    has_arrays = False
    checks_deferred = ""

    def __init__(self, address: Address, *, mariadb: bool = False) -> None:
        if address.options.get("charset", "utf8mb4") != "utf8mb4":
            raise DatabaseUrlError("The charset must be utf8mb4: others cannot hold every text.")
        self._may_return = address.options.get("returning", "on")
        if self._may_return not in ("on", "off"):
            raise DatabaseUrlError("The option 'returning' is 'on' or 'off'.")
        self._collated = address.options.get("collation", "")
        if self._collated and not _COLLATION.fullmatch(self._collated):
            raise DatabaseUrlError("The collation must be one of utf8mb4, as in utf8mb4_unicode_ci.")
        self.address = address
        self.database = address.database
        self._connect_timeout = number(address, "connect_timeout", 10)
        self._tls = tls.tls_of(address)
        self.location = repr(address)
        self.lasting = True
        self.readers = int(number(address, "pool_size", 10))
        self.returning: frozenset[str] = frozenset()
        self.compiler: sa.engine.Dialect = aiomysql_sql.dialect()
        self._collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_bin"  # until the server is known
        self.filters: FilterSql = MysqlFilters(self._collation, mariadb=True)
        self._keys: dict[str, str] = {}  # the fields of an index, of which the server tells the name only
        self._key_step = 1

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]:
        if field.kind is Kind.TEXT and field.length is not None:  # servers index no longer ones
            return mysql_sql.VARCHAR(field.length, collation=self._collation)
        types: dict[Kind, sa.types.TypeEngine[Any]] = {
            Kind.TEXT: mysql_sql.LONGTEXT(collation=self._collation),
            Kind.INTEGER: sa.BigInteger(),
            Kind.FLOAT: mysql_sql.DOUBLE(),
            Kind.BOOLEAN: mysql_sql.TINYINT(1),
            Kind.DATETIME: mysql_sql.DATETIME(fsp=6),
            Kind.DATE: sa.Date(),
            Kind.TIME: mysql_sql.TIME(fsp=6),
            Kind.DECIMAL: mysql_sql.DECIMAL(DIGITS, SCALE),
            Kind.UUID: mysql_sql.CHAR(_UUID_LENGTH, charset="ascii", collation="ascii_bin"),
            Kind.BYTES: mysql_sql.LONGBLOB(),
            Kind.JSON: mysql_sql.JSON(),
        }
        return types[field.kind]

    def codec(self, field: Field) -> Codec:
        if field.kind is Kind.JSON:
            return mysql_log.logged(field, Codec(json_text, json_reader(field)))
        return mysql_log.logged(field, _CODECS.get(field.kind, _AS_IT_IS))

    def table_options(self) -> dict[str, Any]:
        return {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

    def index_options(self, fields: Sequence[Field]) -> dict[str, Any]:
        return {}

    def in_list(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        return column.bool_op("IN")(sa.bindparam(name, type_=sa.types.NullType()))

    def list_parameter(self, values: list[Any]) -> object:
        return values or [None]  # the driver writes a list as (1, 2); () is a syntax error

    def combined(
        self, field: Field, op: str, column: sa.ColumnElement[Any], given: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        result = combined(op, column, given)
        # In strict mode a server refuses digits that the column has no place for, instead of rounding.
        return sa.func.round(result, SCALE) if field.kind is Kind.DECIMAL else result

    def key_given(self, table: sa.Table) -> None:
        return None  # AUTO_INCREMENT goes on from the largest key there ever was

    def changed_list(
        self, op: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        if op != "push" and not self.compiler.is_mariadb:  # type: ignore[attr-defined]
            raise Unavailable("'$pull' and '$addToSet' are not available yet on this server.")
        return ChangedList(op, column, elements)

    def integer_sum(self, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
        return [sa.func.sum(column)]

    def float_sum(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # The server's own sum of what is too large is 0.
        fits = sa.func.sum(sa.func.abs(column) / sa.literal_column("1e20")) < sa.literal_column("1.7e288")
        return sa.case((fits, sa.func.sum(column)))

    async def insert_many(
        self, connection: Any, table: sa.Table, columns: Columns, *, generates_id: bool, ids: bool
    ) -> list[Any]:
        name = self.compiler.identifier_preparer.format_table(table)
        insert = mysql_bulk.inserts(name, self._quoted(columns.names), columns, connection.escape)
        done = await connection.run_many(insert.about, insert.statements())
        if "id" in columns.each:
            return columns.each["id"]
        step = self._key_step  # the keys of one statement of known length follow each other
        return [key for one, count in done for key in range(one.key, one.key + count * step, step)]

    async def update_many(
        self, connection: Any, table: sa.Table, columns: Columns, counters: Sequence[str]
    ) -> int:
        update = mysql_bulk.updates(
            self.compiler.identifier_preparer.format_table(table),
            table.c.id,
            self._quoted(columns.names),
            columns,
            self._quoted(counters),
            connection.escape,
            mariadb=self.compiler.is_mariadb,  # type: ignore[attr-defined]
        )
        return sum(one.found for one, _ in await connection.run_many(update.about, update.statements()))

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
        # INSERT … ON DUPLICATE KEY would change what has another id and something else that is unique.
        keys = columns.each["id"]
        name = self.compiler.identifier_preparer.format_table(table)
        # As one value: the driver takes longer to read a row than the server to find it.
        sql = f"SELECT JSON_ARRAYAGG(id) FROM {name} WHERE id IN %s FOR UPDATE"
        ((found,),) = await connection.fetch(sql, (self.list_parameter(keys),))
        there = set(msgspec.json.decode(found)) if found else set()
        new = [place for place, one in enumerate(keys) if one not in there]
        if new:
            added = columns if len(new) == columns.count else columns.at(new)
            await self.insert_many(connection, table, added, generates_id=generates_id, ids=False)
        if changed and there:
            old = [place for place, one in enumerate(keys) if one in there]
            values = columns.only({"id", *changed}).at(old)
            await self.update_many(connection, table, values, counters)
        return len(new)

    def _quoted(self, names: Iterable[str]) -> list[str]:
        return [self.compiler.identifier_preparer.quote(name) for name in names]

    async def lock(self, connection: Any, names: Iterable[str]) -> None:
        if locked := [self._lock_name(number) for number in lock_numbers(names)]:
            await connection.lock(locked)

    async def try_lock(self, connection: Any, name: str) -> bool:
        short = hashlib.sha256(name.encode()).hexdigest()[:32]  # of 64 characters in all
        return bool(await connection.try_lock(self._lock_name(short)))

    def _lock_name(self, name: object) -> str:
        """The server has one space of names for all of its databases."""
        return f"nexus.{zlib.crc32(self.address.database.encode())}.{name}"

    async def estimate(self, connection: Any, table: sa.Table) -> int | None:
        named = "table_schema = DATABASE() AND table_name = %s"
        sql = f"SELECT table_rows FROM information_schema.tables WHERE {named}"
        rows = await connection.fetch(sql, [table.name])
        return None if not rows or rows[0][0] is None else int(rows[0][0])

    async def open_reader(self) -> MysqlConnection:
        try:
            driver = await self._connect()
        except Exception as failure:
            raise translated(failure) from failure
        try:
            self._learn(driver.get_server_info())
        except BaseException:
            driver.close()
            raise
        connection = MysqlConnection(driver, self._keys, self._cancel)
        await connection.fetch(_ISOLATION)
        ((self._key_step,),) = await connection.fetch("SELECT @@auto_increment_increment")
        return connection

    open_writer = open_reader
    open_recorder = open_reader

    async def _cancel(self, what: str) -> None:
        """KILL something, on a connection of its own: the one that is to be helped is busy."""
        other = await self._connect()
        try:
            cursor = await other.cursor()
            await cursor.execute(f"KILL {what}")
        except pymysql.err.OperationalError as failure:
            if failure.args[0] != ER.NO_SUCH_THREAD:  # it has ended meanwhile
                raise
        finally:
            other.close()

    async def _connect(self) -> aiomysql.Connection:
        address = self.address
        collation = f", collation_connection = '{self._collated}'" if self._collated else ""
        driver = Driver(
            host=address.host,
            port=address.port,
            unix_socket=address.socket,
            user=address.user,
            password=as_bytes(address.password or ""),
            db=address.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=self._connect_timeout,
            client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
            init_command=_PREPARE + collation,
            program_name=address.options.get("application_name", "nexus"),
            ssl=None if self._tls.mode in ("disable", "allow") else self._tls.context(),
        )
        driver.must_be_secure = self._tls.required
        await driver._connect()
        return driver

    def _learn(self, version: str) -> None:
        """What this server can do. It is known before any statement is built."""
        mariadb = is_mariadb(version)
        # Without padding: 'a' and 'a ' are two texts, as they are everywhere else.
        self._collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        self.filters = MysqlFilters(self._collation, mariadb=mariadb)
        self.compiler.is_mariadb = mariadb  # type: ignore[attr-defined]
        self.repeats_indexes = mariadb
        if mariadb and self._may_return == "on":
            self.returning = frozenset({"insert", "delete"})

    def system_sql(self) -> list[str]:
        return list(mysql_log.SYSTEM)

    def capture_sql(self, model: Model) -> list[str]:
        mariadb: bool = self.compiler.is_mariadb  # type: ignore[attr-defined]
        return mysql_log.capture_sql(model, mariadb=mariadb)

    async def found(self, connection: MysqlConnection, model: Model) -> Found:
        where = "WHERE table_name = %s AND table_schema = database()"
        columns = await connection.fetch(
            f"SELECT column_name FROM information_schema.columns {where}", (model.table_name,)
        )
        indexes = await connection.fetch(
            f"SELECT DISTINCT index_name FROM information_schema.statistics {where}", (model.table_name,)
        )
        self._keys |= {index.name: ", ".join(index.fields) for index in model.indexes}
        triggers = await connection.fetch(mysql_log.FOUND, (model.table_name,))
        return Found(
            columns=frozenset(row[0] for row in columns),
            indexes=frozenset(row[0] for row in indexes),
            captured=mysql_log.is_captured(model, dict(triggers)),
        )

    @asynccontextmanager
    async def alone(self, connection: MysqlConnection, model: Model) -> AsyncIterator[None]:
        lock = f"nexus.{self.address.database}"[:64]
        ((locked,),) = await connection.fetch("SELECT GET_LOCK(%s, %s)", (lock, LOCK_SECONDS))
        if locked != 1:
            raise Unavailable("Another program is making tables in the database.", remedy="Try again.")
        try:
            await mysql_log.make_system(connection)
            yield
        finally:
            if connection.usable:
                await connection.fetch("SELECT RELEASE_LOCK(%s)", (lock,))

    def hurried(self, connection: MysqlConnection) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()  # only the whole server can be told not to wait

    def literal(self, field: Field, value: Any) -> str:
        if isinstance(value, bytes):
            return f"(X'{value.hex()}')"
        if field.kind in (Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN):
            return repr(value)
        text = str(value).replace("\\", "\\\\")
        # In parentheses it is an expression: the only default that long texts can have.
        return f"({quoted(text)})" if field.kind in (Kind.TEXT, Kind.JSON) else quoted(text)

    def dispose(self) -> None:
        """Nothing was made for this instance only."""


def mysql_from(rest: str, settings: Settings, *, mariadb: bool) -> Mysql:
    """`mariadb` says that the URL names that server, and so what is known of it before any connection."""
    owner = Mysql.name
    address = address_from(rest, settings, owner=owner, port=3306, user="root", known=_OPTIONS)
    return Mysql(address, mariadb=mariadb)
