"""Items in a table: the statements that the answers need, written once."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from benchmarks.floor.drivers import driver_for

TABLE = "benchmark_floor"
_COLUMNS = "id, name, price, stock, active, note, created_at, updated_at"


class Item(msgspec.Struct):
    id: int
    name: str
    price: float
    stock: int
    active: bool
    note: str | None
    created_at: datetime.datetime | str
    updated_at: datetime.datetime | str


class NewItem(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    price: float = 0.0
    stock: int = 0
    active: bool = True
    note: str | None = None


class Restocked(msgspec.Struct, forbid_unknown_fields=True):
    stock: int


class Items:
    def __init__(self, url: str) -> None:
        self._driver = driver = driver_for(url)
        self._from_row = driver.from_row
        mark = driver.mark
        marks = ", ".join(mark(place) for place in range(1, 8))
        self._by_id = f"SELECT {_COLUMNS} FROM {TABLE} WHERE id = {mark(1)}"
        self._page = f"SELECT {_COLUMNS} FROM {TABLE} ORDER BY id LIMIT {mark(1)} OFFSET {mark(2)}"
        self._insert = (
            f"INSERT INTO {TABLE} ({_COLUMNS.removeprefix('id, ')}) VALUES ({marks}) RETURNING {_COLUMNS}"
        )
        self._update = f"UPDATE {TABLE} SET stock = {mark(1)}, updated_at = {mark(2)} WHERE id = {mark(3)}"
        if driver.returns_updates:
            self._update += f" RETURNING {_COLUMNS}"

    async def open(self) -> None:
        await self._driver.open()
        key, text, number, integer, boolean, moment = self._driver.types
        await self._driver.write(
            f"CREATE TABLE IF NOT EXISTS {TABLE} (id {key}, name {text} NOT NULL, price {number} NOT NULL,"
            f" stock {integer} NOT NULL, active {boolean} NOT NULL, note {text},"
            f" created_at {moment} NOT NULL, updated_at {moment} NOT NULL)"
        )

    async def close(self) -> None:
        await self._driver.close()

    async def get(self, key: int) -> Item | None:
        rows = await self._driver.read(self._by_id, (key,))
        return Item(*self._from_row(rows[0])) if rows else None

    async def page(self, limit: int, offset: int) -> list[Item]:
        rows = await self._driver.read(self._page, (limit, offset))
        return [Item(*row) for row in map(self._from_row, rows)]

    async def create(self, new: NewItem) -> Item:
        now = self._now()
        values = (new.name, new.price, new.stock, new.active, new.note, now, now)
        rows = await self._driver.write(self._insert, values)
        return Item(*self._from_row(rows[0]))

    async def restock(self, key: int, changed: Restocked) -> Item | None:
        rows = await self._driver.write(self._update, (changed.stock, self._now(), key))
        if not self._driver.returns_updates:
            return await self.get(key)
        return Item(*self._from_row(rows[0])) if rows else None

    def _now(self) -> Any:
        return self._driver.moment(datetime.datetime.now(datetime.UTC))
