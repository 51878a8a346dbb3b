"""Many records with the best statements there are, which give the same: all or nothing; of new records the
ids, in their order; of upserts how many records are new.

They are written by hand where that is quicker than the driver's own way of doing one thing many times.
"""

from __future__ import annotations

import datetime
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiomysql
import aiosqlite
import asyncpg
import msgspec
from pymysql.converters import escape_float, escape_string

from benchmarks.floor.drivers import driver_for

TABLE = "benchmark_floor"
_ROWS_AT_ONCE = 5000
_FIELDS = "name, price, stock, active, note, created_at, updated_at"

Rows = Sequence[tuple[Any, ...]]


class BulkFloor(Protocol):
    """`create` takes (name, price), `update` and `upsert` take (id, stock) and (id, name, price)."""

    async def open(self) -> None: ...

    async def create(self, rows: Rows) -> list[int]: ...

    async def update(self, rows: Rows) -> None: ...

    async def upsert(self, rows: Rows) -> int: ...

    async def close(self) -> None: ...


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class SqliteBulk:
    """Rows of parameters, a few hundred in a statement: three times as quick as `executemany`."""

    def __init__(self, url: str) -> None:
        self._driver = driver_for(url)
        self._path = url.removeprefix("sqlite:///")

    async def open(self) -> None:
        self._connection = await aiosqlite.connect(self._path, isolation_level=None)
        for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
            await self._connection.execute_fetchall(f"PRAGMA {pragma}")

    async def create(self, rows: Rows) -> list[int]:
        head, row = f"INSERT INTO {TABLE} ({_FIELDS}) VALUES ", "(?, ?, 0, 1, NULL, ?1, ?1)"
        return sorted(key for (key,) in (await self._whole(rows, head, row, " RETURNING id"))[1])

    async def update(self, rows: Rows) -> None:
        head = f"UPDATE {TABLE} SET stock = given.column2, updated_at = ?1 FROM (VALUES "
        await self._whole(rows, head, "(?, ?)", f") AS given WHERE {TABLE}.id = given.column1")

    async def upsert(self, rows: Rows) -> int:
        (there,) = await self._connection.execute_fetchall(
            f"SELECT count(*) FROM {TABLE} WHERE id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode([row[0] for row in rows]).decode(),),
        )
        head, row = f"INSERT INTO {TABLE} (id, {_FIELDS}) VALUES ", "(?, ?, ?, 0, 1, NULL, ?1, ?1)"
        tail = (
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price,"
            " updated_at = excluded.updated_at"
        )
        await self._whole(rows, head, row, tail)
        return len(rows) - int(there[0])

    async def close(self) -> None:
        await self._connection.close()

    async def _whole(self, rows: Rows, head: str, row: str, tail: str) -> tuple[int, list[Any]]:
        """What is `?` is a value of each row, `?1` the moment."""
        now = self._driver.moment(_now())
        statements = [
            (head + _numbered(row, len(part)) + tail, [now, *itertools.chain.from_iterable(part)])
            for part in _parts(rows, 250)
        ]
        return await self._connection._execute(self._run, statements)  # type: ignore[no-untyped-call,no-any-return]

    def _run(self, statements: list[tuple[str, list[Any]]]) -> tuple[int, list[Any]]:
        """On the driver's thread, all in one go."""
        execute, found = self._connection._conn.execute, 0
        given: list[Any] = []
        execute("BEGIN IMMEDIATE")
        for sql, values in statements:
            cursor = execute(sql, values)
            given += cursor.fetchall()
            found += cursor.rowcount
        execute("COMMIT")
        return found, given


@functools.lru_cache
def _numbered(row: str, count: int) -> str:
    """As many rows, in which parameters have numbers: with some, all must have."""
    numbers = itertools.count(2)
    first, *others = row.replace("?1", "moment").split("?")
    rows = (first + "".join(f"?{next(numbers)}{other}" for other in others) for _ in range(count))
    return ", ".join(rows).replace("moment", "?1")


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


class PostgresqlBulk:
    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._connection = await asyncpg.connect(self._url)

    async def create(self, rows: Rows) -> list[int]:
        names, prices = zip(*rows, strict=True)
        made = await self._connection.fetch(
            f"INSERT INTO {TABLE} ({_FIELDS}) SELECT name, price, 0, true, NULL, $3, $3"
            " FROM unnest($1::text[], $2::float8[]) WITH ORDINALITY AS given(name, price, place)"
            " ORDER BY place RETURNING id",
            names,
            prices,
            _now(),
        )
        return [row[0] for row in made]

    async def update(self, rows: Rows) -> None:
        keys, stocks = zip(*rows, strict=True)
        await self._connection.execute(
            f"UPDATE {TABLE} AS t SET stock = given.stock, updated_at = $3"
            " FROM unnest($1::bigint[], $2::bigint[]) AS given(id, stock) WHERE t.id = given.id",
            keys,
            stocks,
            _now(),
        )

    async def upsert(self, rows: Rows) -> int:
        keys, names, prices = zip(*rows, strict=True)
        made: int = await self._connection.fetchval(
            f"WITH done AS (INSERT INTO {TABLE} (id, {_FIELDS}) SELECT id, name, price, 0, true, NULL, $4, $4"
            " FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS given(id, name, price)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, updated_at = $4"
            " RETURNING xmax = 0 AS made) SELECT count(*) FILTER (WHERE made) FROM done",
            keys,
            names,
            prices,
            _now(),
        )
        return made

    async def close(self) -> None:
        await self._connection.close()


class MysqlBulk:
    """Rows as text, as many in a statement as a server takes: the driver's `executemany` writes each value by
    itself, which is slower, and takes one statement for each record where a row has a constant."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username}
        self._address |= {"password": parts.password or "", "db": parts.path[1:]}

    async def open(self) -> None:
        self._connection = await aiomysql.connect(**self._address, charset="utf8mb4")

    async def create(self, rows: Rows) -> list[int]:
        names, prices = zip(*rows, strict=True)
        now = self._connection.escape(_now().replace(tzinfo=None))
        row = f"('%s', %s, 0, 1, NULL, {now}, {now})"
        texts = list(map(row.__mod__, zip(map(escape_string, names), map(escape_float, prices), strict=True)))
        done = await self._whole(f"INSERT INTO {TABLE} ({_FIELDS}) VALUES ", texts)
        # The server numbers the rows of one statement one after the other.
        return [key for first, _, count in done for key in range(first, first + count)]

    async def update(self, rows: Rows) -> None:
        now = self._connection.escape(_now().replace(tzinfo=None))
        head = f"UPDATE {TABLE} AS t JOIN (SELECT NULL AS id, NULL AS stock WHERE FALSE UNION ALL VALUES "
        tail = f") AS given ON t.id = given.id SET t.stock = given.stock, t.updated_at = {now}"
        await self._whole(head, list(map("(%s, %s)".__mod__, rows)), tail)

    async def upsert(self, rows: Rows) -> int:
        keys, names, prices = zip(*rows, strict=True)
        now = self._connection.escape(_now().replace(tzinfo=None))
        row = f"(%s, '%s', %s, 0, 1, NULL, {now}, {now})"
        columns = zip(keys, map(escape_string, names), map(escape_float, prices), strict=True)
        tail = (
            " ON DUPLICATE KEY UPDATE name = VALUES(name), price = VALUES(price),"
            " updated_at = VALUES(updated_at)"
        )
        head = f"INSERT INTO {TABLE} (id, {_FIELDS}) VALUES "
        done = await self._whole(head, list(map(row.__mod__, columns)), tail)
        return 2 * len(rows) - sum(affected for _, affected, _ in done)  # a changed one counts twice

    async def close(self) -> None:
        self._connection.close()

    async def _whole(self, head: str, rows: list[str], tail: str = "") -> list[tuple[int, int, int]]:
        """Of each statement the first key, the number that the server gives, and that of the rows."""
        cursor = await self._connection.cursor()
        done = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            affected = await cursor.execute(head + ", ".join(part) + tail)
            done.append((cursor.lastrowid or 0, affected, len(part)))
        await self._connection.commit()
        return done


def bulk_floor(url: str) -> BulkFloor:
    kinds: dict[str, type] = {"sqlite": SqliteBulk, "postgresql": PostgresqlBulk, "mysql": MysqlBulk}
    found: BulkFloor = kinds[url.partition(":")[0]](url)
    return found
