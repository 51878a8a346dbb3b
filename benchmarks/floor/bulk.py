"""Many records with the driver's best statement that gives the same: all or nothing, with the new ids."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiomysql
import aiosqlite
import asyncpg

from benchmarks.floor.drivers import driver_for

TABLE = "benchmark_floor"
_FIELDS = "name, price, stock, active, note, created_at, updated_at"

Rows = Sequence[tuple[Any, ...]]


class BulkFloor(Protocol):
    """`create` takes (name, price), `update` and `upsert` take (id, stock) and (id, name, price)."""

    async def open(self) -> None: ...

    async def create(self, rows: Rows) -> None: ...

    async def update(self, rows: Rows) -> None: ...

    async def upsert(self, rows: Rows) -> None: ...

    async def close(self) -> None: ...


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class SqliteBulk:
    def __init__(self, url: str) -> None:
        self._driver = driver_for(url)
        self._path = url.removeprefix("sqlite:///")

    async def open(self) -> None:
        self._connection = await aiosqlite.connect(self._path, isolation_level=None)
        for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
            await self._connection.execute_fetchall(f"PRAGMA {pragma}")

    async def create(self, rows: Rows) -> None:
        now = self._driver.moment(_now())
        await self._whole(
            f"INSERT INTO {TABLE} ({_FIELDS}) VALUES (?, ?, 0, 1, NULL, ?, ?)",
            [(*row, now, now) for row in rows],
        )

    async def update(self, rows: Rows) -> None:
        now = self._driver.moment(_now())
        sql = f"UPDATE {TABLE} SET stock = ?, updated_at = ? WHERE id = ?"
        await self._whole(sql, [(stock, now, key) for key, stock in rows])

    async def upsert(self, rows: Rows) -> None:
        now = self._driver.moment(_now())
        await self._whole(
            f"INSERT INTO {TABLE} (id, {_FIELDS}) VALUES (?, ?, ?, 0, 1, NULL, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price,"
            " updated_at = excluded.updated_at",
            [(*row, now, now) for row in rows],
        )

    async def close(self) -> None:
        await self._connection.close()

    async def _whole(self, sql: str, rows: Rows) -> None:
        await self._connection.execute("BEGIN IMMEDIATE")
        await self._connection.executemany(sql, rows)
        await self._connection.commit()


class PostgresqlBulk:
    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._connection = await asyncpg.connect(self._url)

    async def create(self, rows: Rows) -> None:
        names, prices = zip(*rows, strict=True)
        await self._connection.fetch(
            f"INSERT INTO {TABLE} ({_FIELDS}) SELECT name, price, 0, true, NULL, $3, $3"
            " FROM unnest($1::text[], $2::float8[]) AS given(name, price) RETURNING id",
            names,
            prices,
            _now(),
        )

    async def update(self, rows: Rows) -> None:
        keys, stocks = zip(*rows, strict=True)
        await self._connection.execute(
            f"UPDATE {TABLE} AS t SET stock = given.stock, updated_at = $3"
            " FROM unnest($1::bigint[], $2::bigint[]) AS given(id, stock) WHERE t.id = given.id",
            keys,
            stocks,
            _now(),
        )

    async def upsert(self, rows: Rows) -> None:
        keys, names, prices = zip(*rows, strict=True)
        await self._connection.execute(
            f"INSERT INTO {TABLE} (id, {_FIELDS}) SELECT id, name, price, 0, true, NULL, $4, $4"
            " FROM unnest($1::bigint[], $2::text[], $3::float8[]) AS given(id, name, price)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, updated_at = $4",
            keys,
            names,
            prices,
            _now(),
        )

    async def close(self) -> None:
        await self._connection.close()


class MysqlBulk:
    """The driver puts many rows into one INSERT; it has no better way to many updates either."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username}
        self._address |= {"password": parts.password or "", "db": parts.path[1:]}

    async def open(self) -> None:
        self._connection = await aiomysql.connect(**self._address, charset="utf8mb4")

    async def create(self, rows: Rows) -> None:
        now = _now().replace(tzinfo=None)
        await self._whole(
            f"INSERT INTO {TABLE} ({_FIELDS}) VALUES (%s, %s, 0, 1, NULL, %s, %s)",
            [(*row, now, now) for row in rows],
        )

    async def update(self, rows: Rows) -> None:
        now = _now().replace(tzinfo=None)
        await self._whole(
            f"INSERT INTO {TABLE} (id, {_FIELDS}) VALUES (%s, '', 0, %s, 1, NULL, %s, %s)"
            " ON DUPLICATE KEY UPDATE stock = VALUES(stock), updated_at = VALUES(updated_at)",
            [(*row, now, now) for row in rows],
        )

    async def upsert(self, rows: Rows) -> None:
        now = _now().replace(tzinfo=None)
        await self._whole(
            f"INSERT INTO {TABLE} (id, {_FIELDS}) VALUES (%s, %s, %s, 0, 1, NULL, %s, %s)"
            " ON DUPLICATE KEY UPDATE name = VALUES(name), price = VALUES(price),"
            " updated_at = VALUES(updated_at)",
            [(*row, now, now) for row in rows],
        )

    async def close(self) -> None:
        self._connection.close()

    async def _whole(self, sql: str, rows: Rows) -> None:
        cursor = await self._connection.cursor()
        await cursor.executemany(sql, rows)
        await self._connection.commit()


def bulk_floor(url: str) -> BulkFloor:
    kinds: dict[str, type] = {"sqlite": SqliteBulk, "postgresql": PostgresqlBulk, "mysql": MysqlBulk}
    found: BulkFloor = kinds[url.partition(":")[0]](url)
    return found
