"""Filters in SQLite: the kernel's own predicate, as functions of our connections. Other programs do not have
them, so they stand in queries only, never in a trigger or an index."""

from __future__ import annotations

import functools
from typing import Any

import aiosqlite
import msgspec
import sqlalchemy as sa

from dataflow.dialects.filter_sql import Bind, true_or_false
from dataflow.fields import Kind
from nexus.filters import Inside, Pattern
from nexus.filters.match import matches_inside

_REGEX, _INSIDE = "nexus_regex", "nexus_inside"

_LONGEST_KEPT = 4000

_read = msgspec.json.Decoder(Inside).decode
_kept = functools.lru_cache(256)(_read)
_last = functools.lru_cache(1)(_read)  # a long one is still read once for all rows of a statement


class SqliteFilters:
    def pattern(self, pattern: Pattern) -> str:
        return f"{pattern.options}/{pattern.source}"

    def regex(self, column: sa.ColumnElement[Any], pattern: Any) -> sa.ColumnElement[bool]:
        return sa.func.coalesce(getattr(sa.func, _REGEX)(column, pattern), 0) == 1

    def substring(self, column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]:
        return sa.func.instr(column, value) > 0

    def inside(self, column: str, test: Inside, bind: Bind, elements: Kind | None) -> str:
        return f"{_INSIDE}({column}, {bind(msgspec.json.encode(test).decode())}) = 1"

    def settled(self, condition: sa.TextClause) -> sa.ColumnElement[bool]:
        return true_or_false(condition)


async def add_functions(connection: aiosqlite.Connection) -> None:
    await connection.create_function(_REGEX, 2, _regex, deterministic=True)
    await connection.create_function(_INSIDE, 2, _inside, deterministic=True)


def _regex(text: str | None, pattern: str) -> bool | None:
    options, _, source = pattern.partition("/")
    return None if text is None else Pattern(source, options).found_in(text)


def _inside(text: str | None, test: str) -> bool:
    if text is None:
        return False
    parsed = _kept(test) if len(test) <= _LONGEST_KEPT else _last(test)
    return matches_inside(parsed, msgspec.json.decode(text))
