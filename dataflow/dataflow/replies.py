"""Answers to writes that have an idempotency key, in a table of the database that is written to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dataflow.model import Model
from dataflow.records import TableRecords
from dataflow.schema import SchemaMode
from dataflow.shapes import Shapes
from nexus.call import Call
from nexus.errors import Conflict, InvalidInput, KeyInFlight, Retryable, SchemaMismatch
from nexus.keys import REPLIES
from nexus.ports import Row

if TYPE_CHECKING:
    from dataflow.database import Database

_FOUND = ("input_digest", "expires", "answer")
_PRUNED = 1000


class TableReplies:
    """Replies of the kernel. `models` are those of the database, by their names."""

    def __init__(self, database: Database, models: Mapping[str, Model]) -> None:
        self.resource = database
        self.records = TableRecords(database, (REPLIES,))
        self._models = models
        self._shapes = Shapes(database.dialect)

    async def find(self, call: Call, key: str) -> Row | None:
        """Whoever holds the name of the key keeps the others from it until the end of his transaction; where
        there is one writer, they wait for the database."""
        database = self.resource
        table = await self._table(call)
        statement = self._shapes.statement(("find",), lambda: _found(table))
        async with call.connection(database, write=False, statements="many") as connection:
            if not await database.dialect.try_lock(connection, key):
                raise KeyInFlight
            rows = await connection.fetch(statement.sql, statement.bind({"key": key}))
        return dict(zip(_FOUND, rows[0], strict=True)) if rows else None

    async def keep(self, call: Call, row: Row, *, instead: bool) -> None:
        table = await self.records.table(REPLIES)
        given = {f"v_{name}": value for name, value in row.items()}
        deletion = self._shapes.statement(("delete",), lambda: _deleted(table))
        insertion = self._shapes.statement(("insert",), lambda: _inserted(table))
        async with call.connection(self.resource, write=False, statements="many") as connection:
            if instead:
                await connection.execute(deletion.sql, deletion.bind({"key": row["id"]}))
            try:
                await connection.execute(insertion.sql, insertion.bind(given))
            except Conflict as failure:  # on servers that do not share their locks
                raise Retryable("Another request with the same idempotency key was first.") from failure

    async def prune(self, before: str) -> None:
        table = await self.records.table(REPLIES)
        dialect = self.resource.dialect
        old = self._shapes.statement(("old",), lambda: _old(table))
        pruned = self._shapes.statement(
            ("prune",),
            lambda: sa.delete(table).where(dialect.in_list(table.c.id, "keys"), _is_old(table)),
        )
        async with self.records.connection(write=True) as connection:
            rows = await connection.fetch(old.sql, old.bind({"before": before, "limit": _PRUNED}))
            if rows:
                keys = dialect.list_parameter([row[0] for row in rows])
                await connection.execute(pruned.sql, pruned.bind({"keys": keys, "before": before}))

    async def _table(self, call: Call) -> sa.Table:
        """The table, and the one that is to be written to, before there is a transaction: to make one takes a
        connection of its own."""
        database, name = self.resource, call.operation.name
        if database.mode is SchemaMode.EXISTING:
            raise InvalidInput(
                f"'{name}' cannot have an idempotency key: in existing_schema_mode nothing of the platform's"
                " may be written into its database, and anywhere else it would not be a part of the same"
                " transaction.",
                remedy="Look whether it was done before you repeat it.",
            )
        try:
            table = await self.records.table(REPLIES)
        except SchemaMismatch as failure:
            raise InvalidInput(
                f"'{name}' cannot have an idempotency key: its database has no table '{REPLIES.name}', and"
                " auto_migrate is off.",
                remedy="'nexus install' makes the table.",
            ) from failure
        model = self._models.get(call.operation.model)
        if model is not None and database.known(model) is None:
            await database.table(model)
        return table


def _key(table: sa.Table) -> sa.BindParameter[Any]:
    return sa.bindparam("key", type_=table.c.id.type)


def _is_old(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.expires < sa.bindparam("before", type_=table.c.expires.type)


def _found(table: sa.Table) -> sa.Select[Any]:
    return sa.select(*(table.c[name] for name in _FOUND)).where(table.c.id == _key(table))


def _inserted(table: sa.Table) -> sa.Insert:
    given = {column.name: sa.bindparam(f"v_{column.name}", type_=column.type) for column in table.c}
    return sa.insert(table).values(given)


def _deleted(table: sa.Table) -> sa.Delete:
    return sa.delete(table).where(table.c.id == _key(table))


def _old(table: sa.Table) -> sa.Select[Any]:
    limit = sa.bindparam("limit", type_=sa.Integer)
    return sa.select(table.c.id).where(_is_old(table)).limit(limit)
