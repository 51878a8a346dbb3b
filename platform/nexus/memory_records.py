"""Records of an application without any database: in memory, and gone with the process."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

from nexus.errors import Conflict
from nexus.ports import Condition, RecordTable, Row

_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


class MemoryRecords:
    """Records of the kernel. The oldest rows of a table go when there are more than `most`. Safe to use from
    several event loops."""

    shared = False

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._tables: dict[str, dict[str, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    async def insert(self, table: RecordTable, row: Row) -> bool:
        with self._lock:
            return self._insert(table, row)

    async def write(
        self, table: RecordTable, rows: Sequence[Row], changes: Sequence[tuple[str, Row]]
    ) -> None:
        with self._lock:
            for row in rows:
                if not self._insert(table, row):
                    raise Conflict(f"{table.name}: a unique value is taken.")
            for key, change in changes:
                if (known := self._rows(table).get(key)) is not None:
                    known.update(change)

    async def change(self, table: RecordTable, where: Sequence[Condition], changes: Row) -> int:
        with self._lock:
            found = self._matching(table, where)
            for row in found:
                row.update(changes)
            return len(found)

    async def find(
        self,
        table: RecordTable,
        where: Sequence[Condition] = (),
        *,
        columns: Sequence[str] = (),
        limit: int,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        with self._lock:
            rows = sorted(self._matching(table, where), key=lambda row: row[table.key], reverse=True)
            names = columns or [column.name for column in table.columns]
            return [{name: row[name] for name in names} for row in rows[offset : offset + limit]]

    async def delete(self, table: RecordTable, where: Sequence[Condition]) -> int:
        with self._lock:
            found = self._matching(table, where)
            for row in found:
                del self._rows(table)[row[table.key]]
            return len(found)

    def _insert(self, table: RecordTable, row: Row) -> bool:
        rows = self._rows(table)
        if row[table.key] in rows:
            return False
        given = [name for name in table.unique if row.get(name) is not None]
        if any(known[name] == row[name] for name in given for known in rows.values()):
            return False
        rows[row[table.key]] = {column.name: row.get(column.name) for column in table.columns}
        while len(rows) > self._most:
            del rows[next(iter(rows))]
        return True

    def _rows(self, table: RecordTable) -> dict[str, dict[str, Any]]:
        return self._tables.setdefault(table.name, {})

    def _matching(self, table: RecordTable, where: Sequence[Condition]) -> list[dict[str, Any]]:
        return [row for row in self._rows(table).values() if all(_holds(row, *one) for one in where)]


def _holds(row: Row, name: str, test: str, value: Any) -> bool:
    known = row[name]
    if value is None:
        return (known is None) == (test == "=")
    return known is not None and _TESTS[test](known, value)
