"""The only builder of statements over models: whatever must hold for every access, holds here."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from dataflow.assignments import Assignment
from dataflow.database import Database
from dataflow.model import Model
from dataflow.query import Shape, Statement, Where, compiled, order_by
from dataflow.table import ModelTable
from nexus.call import Call
from nexus.errors import NotFound
from nexus.filters import Filter

_KEPT_SHAPES = 1000

Rows: TypeAlias = list[Any]


class Store:
    """Reads and writes the records of the models of one database, on behalf of a call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._statements: dict[Shape, Statement] = {}

    async def create(self, call: Call, model: Model, values: Mapping[str, Any]) -> msgspec.Struct:
        """Insert a record and return it whole. `values` are of the fields' types already."""
        table = await self._database.table(model)
        bound = {
            f"v_{name}": table.encode(name, model.fields[name].check(model.route, value))
            for name, value in values.items()
        }
        now = _now()
        bound["v_created_at"] = bound["v_updated_at"] = table.encode("created_at", now)
        statement = self._statement(("create", model, tuple(bound)), lambda: _insert(table, bound))
        rows = await self._run(call, statement, bound, write=True)
        return table.record(rows[0])

    async def get(self, call: Call, model: Model, key: int | str) -> msgspec.Struct:
        """Raises NotFound."""
        table = await self._database.table(model)
        statement = self._statement(
            ("get", model),
            lambda: sa.select(table.table).where(table.table.c.id == sa.bindparam("key")),
        )
        rows = await self._run(call, statement, {"key": key}, write=False)
        if not rows:
            raise _not_found(model, key)
        return table.record(rows[0])

    async def list(
        self,
        call: Call,
        model: Model,
        where: Filter,
        order: tuple[tuple[str, bool], ...],
        limit: int,
        offset: int,
    ) -> list[msgspec.Struct]:
        table = await self._database.table(model)
        matching = Where(where, table, self._dialect)
        statement = self._statement(
            ("list", model, matching.shape, order), lambda: _select(table, matching, order)
        )
        bound = {**matching.values, "limit": limit, "offset": offset}
        rows = await self._run(call, statement, bound, write=False)
        return [table.record(row) for row in rows]

    async def count(self, call: Call, model: Model, where: Filter) -> int:
        table = await self._database.table(model)
        matching = Where(where, table, self._dialect)
        statement = self._statement(
            ("count", model, matching.shape),
            lambda: sa.select(sa.func.count()).select_from(table.table).where(matching.clause()),
        )
        rows = await self._run(call, statement, matching.values, write=False)
        return int(rows[0][0])

    async def update(
        self, call: Call, model: Model, key: int | str, changes: tuple[Assignment, ...]
    ) -> msgspec.Struct:
        """Change one record in one statement and return it whole: operators work on what is stored at that
        moment. Raises NotFound."""
        table = await self._database.table(model)
        bound = {f"v_{change.field}": table.encode(change.field, change.value) for change in changes}
        bound["v_updated_at"] = table.encode("updated_at", _now())
        shape = ("update", model, tuple((change.field, change.op) for change in changes))
        statement = self._statement(shape, lambda: _update(table, changes))
        rows = await self._run(call, statement, {**bound, "key": key}, write=True)
        if not rows:
            raise _not_found(model, key)
        return table.record(rows[0])

    async def delete(self, call: Call, model: Model, key: int | str) -> None:
        """Raises NotFound."""
        table = await self._database.table(model)
        identity = table.table.c.id
        statement = self._statement(
            ("delete", model),
            lambda: sa.delete(table.table).where(identity == sa.bindparam("key")).returning(identity),
        )
        if not await self._run(call, statement, {"key": key}, write=True):
            raise _not_found(model, key)

    async def _run(self, call: Call, statement: Statement, values: Mapping[str, Any], *, write: bool) -> Rows:
        async with call.connection(self._database, write=write) as connection:
            rows: Rows = await connection.fetch(statement.sql, statement.bind(values))
        return rows

    def _statement(self, shape: Shape, build: Callable[[], sa.ClauseElement]) -> Statement:
        found = self._statements.get(shape)
        if found is None:
            if len(self._statements) >= _KEPT_SHAPES:  # filters come from outside, in any number of shapes
                self._statements.pop(next(iter(self._statements)))
            found = self._statements[shape] = compiled(build(), self._dialect)
        return found


def _insert(table: ModelTable, bound: Mapping[str, Any]) -> sa.Insert:
    columns = [name.removeprefix("v_") for name in bound]
    values = {name: sa.bindparam(f"v_{name}", type_=table.table.c[name].type) for name in columns}
    return sa.insert(table.table).values(values).returning(*table.table.c)


def _select(table: ModelTable, where: Where, order: tuple[tuple[str, bool], ...]) -> sa.Select[Any]:
    return (
        sa.select(table.table)
        .where(where.clause())
        .order_by(*order_by(table, order))
        .limit(sa.bindparam("limit"))
        .offset(sa.bindparam("offset"))
    )


def _update(table: ModelTable, changes: tuple[Assignment, ...]) -> sa.Update:
    columns = table.table.c
    values: dict[str, Any] = {"updated_at": sa.bindparam("v_updated_at", type_=columns.updated_at.type)}
    for change in changes:
        column = columns[change.field]
        given = sa.bindparam(f"v_{change.field}", type_=column.type)
        if change.op == "set":
            values[change.field] = given
        elif change.op == "inc":
            values[change.field] = sa.func.coalesce(column, 0) + given
        else:
            values[change.field] = sa.func.coalesce(column, 0) * given
    statement = sa.update(table.table).where(columns.id == sa.bindparam("key")).values(values)
    return statement.returning(*columns)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _not_found(model: Model, key: int | str) -> NotFound:
    shown = str(key) if len(str(key)) <= 80 else str(key)[:80] + "…"
    return NotFound(f"{model.route} has no record with the id {shown}.")
