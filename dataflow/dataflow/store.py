"""The only builder of statements over models: whatever must hold for every access, holds here."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from dataflow.assignments import Assignment
from dataflow.database import Database
from dataflow.dialects import Connection
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
        bound["v_created_at"] = bound["v_updated_at"] = table.encode("created_at", _now())
        statement = self._statement(("create", model, tuple(bound)), lambda: self._insert(table, bound))
        if "insert" in self._dialect.returning:
            rows = await self._run(call, statement, bound, write=True)
            return table.record(rows[0])
        async with call.connection(self._database, write=True, statements="many") as connection:
            done = await connection.execute(statement.sql, statement.bind(bound))
            return await self._read_back(connection, table, bound.get("v_id", done.key))

    async def get(self, call: Call, model: Model, key: int | str) -> msgspec.Struct:
        """Raises NotFound."""
        table = await self._database.table(model)
        rows = await self._run(call, self._by_key(table, lock=self._locks(call)), {"key": key}, write=False)
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
        lock = self._locks(call)
        statement = self._statement(
            ("list", model, matching.shape, order, lock), lambda: self._select(table, matching, order, lock)
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
        statement = self._statement(shape, lambda: self._update(table, changes))
        if "update" in self._dialect.returning:
            rows = await self._run(call, statement, {**bound, "key": key}, write=True)
            if not rows:
                raise _not_found(model, key)
            return table.record(rows[0])
        async with call.connection(self._database, write=True, statements="many") as connection:
            done = await connection.execute(statement.sql, statement.bind({**bound, "key": key}))
            if not done.found:
                raise _not_found(model, key)
            return await self._read_back(connection, table, key)

    async def delete(self, call: Call, model: Model, key: int | str) -> None:
        """Raises NotFound."""
        table = await self._database.table(model)
        statement = self._statement(
            ("delete", model),
            lambda: sa.delete(table.table).where(table.table.c.id == sa.bindparam("key")),
        )
        async with call.connection(self._database, write=True) as connection:
            done = await connection.execute(statement.sql, statement.bind({"key": key}))
        if not done.found:
            raise _not_found(model, key)

    def _locks(self, call: Call) -> bool:
        """Whether what is read must stay as it is until the end of the call, which may write it."""
        return call.atomic and self._dialect.locks_reads

    def _by_key(self, table: ModelTable, *, lock: bool) -> Statement:
        def select() -> sa.Select[Any]:
            found = sa.select(table.table).where(table.table.c.id == sa.bindparam("key"))
            return found.with_for_update() if lock else found

        return self._statement(("get", table.model, lock), select)

    async def _read_back(self, connection: Connection, table: ModelTable, key: object) -> msgspec.Struct:
        statement = self._by_key(table, lock=False)
        rows = await connection.fetch(statement.sql, statement.bind({"key": key}))
        return table.record(rows[0])

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

    def _insert(self, table: ModelTable, bound: Mapping[str, Any]) -> sa.Insert:
        columns = [name.removeprefix("v_") for name in bound]
        values = {name: sa.bindparam(f"v_{name}", type_=table.table.c[name].type) for name in columns}
        statement = sa.insert(table.table).values(values)
        if "insert" not in self._dialect.returning:
            return statement
        beside = (
            self._dialect.key_given(table.table) if "v_id" in bound and table.model.generates_id else None
        )
        return statement.returning(*table.table.c, *([] if beside is None else [beside]))

    def _select(
        self, table: ModelTable, where: Where, order: tuple[tuple[str, bool], ...], lock: bool
    ) -> sa.Select[Any]:
        statement = (
            sa.select(table.table)
            .where(where.clause())
            .order_by(*order_by(table, order, self._dialect))
            .limit(sa.bindparam("limit", type_=sa.BigInteger()))
            .offset(sa.bindparam("offset", type_=sa.BigInteger()))
        )
        return statement.with_for_update() if lock else statement

    def _update(self, table: ModelTable, changes: tuple[Assignment, ...]) -> sa.Update:
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
        return statement.returning(*columns) if "update" in self._dialect.returning else statement


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _not_found(model: Model, key: int | str) -> NotFound:
    shown = str(key) if len(str(key)) <= 80 else str(key)[:80] + "…"
    return NotFound(f"{model.route} has no record with the id {shown}.")
