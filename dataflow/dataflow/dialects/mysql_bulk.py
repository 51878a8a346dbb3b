"""Many records in one statement: all of them as text, which is made a column at a time."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pymysql.converters import escape_float
from sqlalchemy.dialects import mysql as mysql_sql

from dataflow.columns import Columns

_STATEMENT_LENGTH = 1_000_000
"""Well below what servers take at once."""

Escape = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Rows:
    """A statement about rows, which stand between `head` and `tail`."""

    head: str
    rows: list[str]
    between: str = ", "
    tail: str = ""

    @property
    def about(self) -> str:
        """Without values."""
        return f"{self.head}…  ({len(self.rows)} rows)"

    def statements(self) -> Iterator[tuple[str, int]]:
        """Statements of a length that servers take, and how many of the rows are in each."""
        ends = list(itertools.accumulate(map(len, self.rows)))
        start = 0
        while start < len(self.rows):
            before = ends[start - 1] if start else 0
            end = max(start + 1, bisect.bisect_right(ends, before + _STATEMENT_LENGTH))
            yield self.head + self.between.join(self.rows[start:end]) + self.tail, end - start
            start = end


def inserts(table: str, names: Sequence[str], columns: Columns, escape: Escape) -> Rows:
    """`table` and the `names` of the columns are quoted."""
    same = [escape(value) for value in columns.same.values()]
    return Rows(f"INSERT INTO {table} ({', '.join(names)}) VALUES ", _rows("({})", columns, same, escape))


def updates(
    table: str,
    key: sa.Column[Any],
    names: Sequence[str],
    columns: Columns,
    counters: Sequence[str],
    escape: Escape,
    *,
    mariadb: bool,
) -> Rows:
    """`key` is the column, whose name is never quoted."""
    each, same = names[: len(columns.each)], names[len(columns.each) :]
    changed = [f"{table}.{name} = {table}.{name} + 1" for name in counters]
    changed += [f"{table}.{name} = given.{name}" for name in each if name != key.name]
    changed += [
        f"{table}.{name} = {escape(value)}" for name, value in zip(same, columns.same.values(), strict=True)
    ]
    # The first part has no rows: it names the columns, and no type comes from it.
    first = f"SELECT {', '.join(f'NULL AS {name}' for name in each)} WHERE FALSE"
    tail = f") AS given ON {table}.{key.name} = {_compared(key)} SET {', '.join(changed)}"
    if mariadb:
        return Rows(
            f"UPDATE {table} JOIN ({first} UNION ALL VALUES ", _rows("({})", columns, [], escape), tail=tail
        )
    rows = _rows("SELECT {}", columns, [], escape)
    return Rows(f"UPDATE {table} JOIN ({first} UNION ALL ", rows, " UNION ALL ", tail)


def _rows(form: str, columns: Columns, same: Sequence[str], escape: Escape) -> list[str]:
    each = [_literals(values, escape) for values in columns.each.values()]
    parts = ["%s"] * len(each) + [text.replace("%", "%%") for text in same]
    return list(map(form.format(", ".join(parts)).__mod__, zip(*each, strict=True)))


def _compared(key: sa.Column[Any]) -> str:
    """The given key as the table's has it, or no index would be used."""
    kind = key.type
    if isinstance(kind, mysql_sql.CHAR | mysql_sql.VARCHAR):
        return f"CONVERT(given.id USING {kind.charset or 'utf8mb4'}) COLLATE {kind.collation}"
    return "given.id"


def _literals(values: list[Any], escape: Escape) -> list[str]:
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {float}:
        return list(map(escape_float, values))
    return list(map(escape, values))
