"""Many records in one statement: an array for each column, and once what all records have alike."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from dataflow.columns import Columns
from dataflow.dialects.ddl import upserted
from dataflow.dialects.postgresql_arrays import array_from_json
from dataflow.dialects.values import json_text

_KEPT = 512


class Given:
    """The columns as a statement takes them: no limit on parameters, one plan for every number of rows."""

    def __init__(
        self, compiler: sa.engine.Dialect, table: sa.Table, each: Sequence[str], same: Sequence[str]
    ) -> None:
        self._compiler = compiler
        self._columns = table.c
        self.quote = quote = compiler.identifier_preparer.quote
        self.table = compiler.identifier_preparer.format_table(table)
        arrays = [f"${place}::{self._kind(name)}[]" for place, name in enumerate(each, 1)]
        self.names = [quote(name) for name in (*each, *same)]
        listed = ", ".join([*self.names[: len(each)], "nexus_place"])
        self.source = f"unnest({', '.join(arrays)}) WITH ORDINALITY AS given({listed})"
        self.values = {name: self._value(name, f"given.{quote(name)}") for name in each}
        self.values |= {
            name: self._value(name, f"${place}::{self._kind(name)}")
            for place, name in enumerate(same, len(each) + 1)
        }

    def _kind(self, name: str) -> str:
        kind = self._columns[name].type
        # An array of arrays would be one of rows and columns.
        return "json" if isinstance(kind, sa.ARRAY) else sql_type(self._compiler, kind)

    def _value(self, name: str, given: str) -> str:
        kind = self._columns[name].type
        if isinstance(kind, sa.ARRAY):
            return array_from_json(given, sql_type(self._compiler, kind.item_type))
        return given


def sql_type(compiler: sa.engine.Dialect, kind: sa.types.TypeEngine[Any]) -> str:
    plain = kind.copy() if isinstance(kind, sa.Text) else kind
    if isinstance(plain, sa.Text):
        plain.collation = None
    return plain.compile(dialect=compiler)


@functools.lru_cache(maxsize=_KEPT)
def insert_sql(
    compiler: sa.engine.Dialect, table: sa.Table, each: tuple[str, ...], same: tuple[str, ...], ids: bool
) -> str:
    given = Given(compiler, table, each, same)
    return _insert(given) + (f" RETURNING {given.quote('id')}" if ids else "")


@functools.lru_cache(maxsize=_KEPT)
def upsert_sql(
    compiler: sa.engine.Dialect,
    table: sa.Table,
    each: tuple[str, ...],
    same: tuple[str, ...],
    changed: tuple[str, ...],
    counters: tuple[str, ...],
) -> str:
    """Gives the number of those that were inserted: no transaction has ever locked or deleted them."""
    given = Given(compiler, table, each, same)
    quote = given.quote
    settings = upserted("kept", [quote(name) for name in changed], [quote(name) for name in counters])
    insert = f"{_insert(given, ' AS kept')} ON CONFLICT ({quote('id')}) {settings} RETURNING xmax = 0 AS made"
    return f"WITH done AS ({insert}) SELECT count(*) FILTER (WHERE made) FROM done"


@functools.lru_cache(maxsize=_KEPT)
def update_sql(
    compiler: sa.engine.Dialect,
    table: sa.Table,
    each: tuple[str, ...],
    same: tuple[str, ...],
    counters: tuple[str, ...],
) -> str:
    given = Given(compiler, table, each, same)
    changed = [f"{given.quote(name)} = kept.{given.quote(name)} + 1" for name in counters]
    changed += [f"{given.quote(name)} = {value}" for name, value in given.values.items() if name != "id"]
    key = given.quote("id")
    return (
        f"UPDATE {given.table} AS kept SET {', '.join(changed)}"
        f" FROM {given.source} WHERE kept.{key} = given.{key}"
    )


def parameters(table: sa.Table, columns: Columns) -> list[Any]:
    given: list[Any] = []
    for name, values in columns.each.items():
        if isinstance(table.c[name].type, sa.ARRAY):
            values = [None if value is None else json_text(value) for value in values]
        given.append(values)
    for name, value in columns.same.items():
        is_text = value is not None and isinstance(table.c[name].type, sa.ARRAY)
        given.append(json_text(value) if is_text else value)
    return given


def _insert(given: Given, alias: str = "") -> str:
    return (
        f"INSERT INTO {given.table}{alias} ({', '.join(given.names)})"
        f" SELECT {', '.join(given.values.values())} FROM {given.source} ORDER BY nexus_place"
    )
