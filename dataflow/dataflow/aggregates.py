"""Runs aggregations: one grouping statement, then the steps on its groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dataflow.aggregation import Accumulator, Aggregation, Group
from dataflow.conditions import condition
from dataflow.database import Database
from dataflow.fields import INT_MAX, INT_MIN, Kind
from dataflow.grouped import Sort
from dataflow.model import Model
from dataflow.query import Where, order_by
from dataflow.shapes import Shapes
from dataflow.table import ModelTable
from nexus.call import Call
from nexus.errors import Conflict, TooLarge

_MOST_GROUPS = 100_000


class Aggregates:
    """Aggregates the records of the models of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._shapes = Shapes(database.dialect)

    async def run(
        self, call: Call, model: Model, wanted: Aggregation, *, deleted: bool = False
    ) -> list[dict[str, Any]]:
        """The groups, by their keys unless the aggregation sorts them. Raises TooLarge for too many."""
        table = await self._database.table(model)
        where = await condition(call, self._database, model, wanted.where, deleted=deleted)
        paged = bool(wanted.skip) or wanted.limit is not None
        statement = self._shapes.statement(
            ("aggregate", model, where.shape, wanted.group, wanted.order, paged),
            lambda: self._select(table, where, wanted, paged),
        )
        limit = INT_MAX if wanted.limit is None else wanted.limit
        bound = {**where.values, "skip": wanted.skip, "limit": limit, "groups": _MOST_GROUPS + 1}
        async with call.connection(self._database, write=False) as connection:
            rows = await connection.fetch(statement.sql, statement.bind(bound))
        if len(rows) > _MOST_GROUPS:
            raise TooLarge(
                f"The aggregation of {model.route} makes more than {_MOST_GROUPS} groups.",
                remedy="Narrow the filter or group by fewer fields.",
            )
        groups = [self._group(table, wanted.group, row) for row in rows if row[-1]]
        names = tuple(
            (f"_id.{name}" if wanted.group.shape == "object" else name) for name, _ in wanted.group.keys
        )
        groups = Sort(tuple((name, False) for name in names))(groups)
        for step in wanted.after:
            groups = step(groups)
        return groups

    def _select(self, table: ModelTable, where: Where, wanted: Aggregation, paged: bool) -> sa.Select[Any]:
        source: Any = table.table
        conditions = [where.clause()]
        if paged:
            source = (
                sa.select(table.table)
                .where(*conditions)
                .order_by(*order_by(table, wanted.order or (("id", False),), self._dialect))
                .limit(sa.bindparam("limit", type_=sa.BigInteger()))
                .offset(sa.bindparam("skip", type_=sa.BigInteger()))
                .subquery()
            )
            conditions = []
        keys = [source.c[field] for _, field in wanted.group.keys]
        values = [part for a in wanted.group.accumulators for part in self._parts(table, source, a)]
        selected = sa.select(
            *(column.label(f"k{index}") for index, column in enumerate(keys)),
            *(column.label(f"a{index}") for index, column in enumerate(values)),
            sa.func.count().label("n"),
        )
        selected = selected.select_from(source).where(*conditions)
        if keys:
            selected = selected.group_by(*keys)
        return selected.limit(sa.bindparam("groups", type_=sa.BigInteger()))

    def _parts(self, table: ModelTable, source: Any, accumulator: Accumulator) -> list[sa.ColumnElement[Any]]:
        """The columns from which the value is made: as many as `_width` says."""
        if accumulator.field is None:
            return []
        column, kind = source.c[accumulator.field], table.model.fields[accumulator.field].kind
        match accumulator.op:
            case "count":
                return [sa.func.count(column)]
            case "min" | "max" if kind is Kind.BOOLEAN:
                number = sa.case((column.is_(None), None), (column, 1), else_=0)
                return [getattr(sa.func, accumulator.op)(number)]
            case "min" | "max":
                return [getattr(sa.func, accumulator.op)(column)]
            case _ if kind is Kind.INTEGER:
                return [*self._dialect.integer_sum(column), sa.func.count(column)]
            case _:
                return [self._dialect.float_sum(column), sa.func.count(column)]

    def _group(self, table: ModelTable, group: Group, row: Sequence[Any]) -> dict[str, Any]:
        values = iter(row)
        keys = {name: _decoded(table, field, next(values)) for name, field in group.keys}
        made: dict[str, Any]
        match group.shape:
            case "object":
                made = {"_id": keys}
            case "none":
                made = {"_id": None}
            case _:
                made = keys
        count = row[-1]
        for accumulator in group.accumulators:
            made[accumulator.name] = self._value(table, accumulator, values, count)
        return made

    def _value(self, table: ModelTable, wanted: Accumulator, values: Iterator[Any], records: int) -> Any:
        if wanted.field is None:
            if wanted.op == "avg":
                return float(wanted.value)
            return records if wanted.op == "count" else _bounded(wanted.value * records)
        if wanted.op == "count":
            return next(values)
        if wanted.op in ("min", "max"):
            return _decoded(table, wanted.field, next(values))
        total: int | float
        if table.model.fields[wanted.field].kind is Kind.INTEGER:
            total = 0
            for _ in range(self._dialect.integer_sum_columns):
                total = (total << 32) + int(next(values) or 0)
            count = next(values)
        else:
            found, count = next(values), next(values)
            # A sum that is too large is an error in one database, infinite or null in others.
            if count and (found is None or not math.isfinite(found)):
                raise Conflict(f"'{wanted.name}' cannot hold the result: a number became too large.")
            total = float(found or 0.0)
        if wanted.op == "sum":
            return _bounded(total)
        return total / count if count else None


def _bounded(total: int | float) -> int | float:
    """An integer of 64 bits, or else a float, as MongoDB has it."""
    if isinstance(total, int) and not INT_MIN <= total <= INT_MAX:
        return float(total)
    return total


def _decoded(table: ModelTable, name: str, value: Any) -> Any:
    if value is None:
        return None
    if table.model.fields[name].kind is Kind.BOOLEAN:
        return bool(value)
    decode = table.codecs[name].decode
    decoded = value if decode is None else decode(value)
    return decoded + 0.0 if isinstance(decoded, float) else decoded  # one zero
