"""The rows that the platform keeps for itself, in tables of its own beside those of the models."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from dataflow.columns import columns_of
from dataflow.dialects import Connection, Dialect
from dataflow.fields import Field, Kind
from dataflow.model import Model
from dataflow.schema import SchemaMode
from dataflow.shapes import Shapes
from nexus.errors import Conflict, Retryable, SchemaMismatch
from nexus.ports import Column, Condition, RecordTable, Row

if TYPE_CHECKING:
    from dataflow.database import Database

_Written: TypeAlias = tuple[str, list[Any]]

_ATTEMPTS = 5
_TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


class TableRecords:
    """Records of the kernel, in one database. Each table is made at its first use, where tables may be made;
    `tables` are those that `install` makes. Raises SchemaMismatch where one is not there and may not be."""

    shared = True

    def __init__(self, database: Database, tables: Sequence[RecordTable]) -> None:
        self._database = database
        self._installed = tables
        self._shapes = Shapes(database.dialect)
        self._tables: dict[str, sa.Table] = {}

    async def insert(self, table: RecordTable, row: Row) -> bool:
        try:
            await self._write(await self.table(table), table.key, [row], [], hurried=False)
        except Conflict:
            return False
        return True

    async def write(
        self, table: RecordTable, rows: Sequence[Row], changes: Sequence[tuple[str, Row]]
    ) -> None:
        await self._write(await self.table(table), table.key, rows, changes, hurried=True)

    async def _write(
        self,
        known: sa.Table,
        key_name: str,
        rows: Sequence[Row],
        changes: Sequence[tuple[str, Row]],
        *,
        hurried: bool,
    ) -> None:
        pools, dialect = self._database.pools, self._database.dialect
        slots = pools.records if hurried else pools.writer
        replaced = [row for _, row in changes if len(row) == len(known.c)]
        updates = [
            self._change(known, [(key_name, "=", key)], change)
            for key, change in changes
            if len(change) < len(known.c)
        ]
        for attempt in range(_ATTEMPTS):
            connection = await slots.take()
            try:
                async with dialect.hurried(connection) if hurried else nullcontext():
                    await self._on(connection, known, rows, replaced, updates)
                return
            except Retryable:
                if attempt == _ATTEMPTS - 1:
                    raise
            finally:
                slots.give(connection)

    async def _on(
        self,
        connection: Connection,
        known: sa.Table,
        rows: Sequence[Row],
        replaced: Sequence[Row],
        updates: Sequence[_Written],
    ) -> None:
        """Whole rows that are to be replaced are deleted and inserted: two statements, however many they
        are."""
        if not replaced and len(rows) + len(updates) == 1:
            await connection.execute(*(updates or [self._insert(known, rows[0])])[0])
            return
        await connection.begin(write=True)
        try:
            if replaced:
                await self._delete_rows(connection, known, replaced)
            for same in (rows, replaced):
                if same:
                    await self._database.dialect.insert_many(
                        connection, known, columns_of(same), generates_id=False, ids=False
                    )
            for sql, bound in _grouped(updates):
                await connection.execute_each(sql, bound)
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise

    async def _delete_rows(self, connection: Connection, known: sa.Table, rows: Sequence[Row]) -> None:
        dialect = self._database.dialect
        (key,) = known.primary_key
        statement = self._shapes.statement(
            ("delete rows", known.name), lambda: sa.delete(known).where(dialect.in_list(key, "keys"))
        )
        keys = dialect.list_parameter([row[key.name] for row in rows])
        await connection.execute(statement.sql, statement.bind({"keys": keys}))

    async def change(self, table: RecordTable, where: Sequence[Condition], changes: Row) -> int:
        sql, values = self._change(await self.table(table), where, changes)
        async with self.connection(write=True) as connection:
            return (await connection.execute(sql, values)).found

    async def find(
        self,
        table: RecordTable,
        where: Sequence[Condition] = (),
        *,
        columns: Sequence[str] = (),
        limit: int,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        known = await self.table(table)
        names = tuple(columns) or tuple(column.name for column in table.columns)
        shape = ("find", table.name, names, _shape(where))

        def build() -> sa.Select[Any]:
            return (
                sa.select(*(known.c[name] for name in names))
                .where(*_clauses(known, where))
                .order_by(known.c[table.key].desc())
                .limit(sa.bindparam("limit", type_=sa.Integer))
                .offset(sa.bindparam("offset", type_=sa.Integer))
            )

        statement = self._shapes.statement(shape, build)
        values = statement.bind({**_values(where), "limit": limit, "offset": offset})
        async with self.connection(write=False) as connection:
            rows = await connection.fetch(statement.sql, values)
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def delete(self, table: RecordTable, where: Sequence[Condition]) -> int:
        known = await self.table(table)
        shape = ("delete", table.name, _shape(where))
        statement = self._shapes.statement(shape, lambda: sa.delete(known).where(*_clauses(known, where)))
        async with self.connection(write=True) as connection:
            return (await connection.execute(statement.sql, statement.bind(_values(where)))).found

    async def install(self) -> list[str]:
        """Make all of them now; their names."""
        for table in self._installed:
            await self._make(table)
        return [table.name for table in self._installed]

    def sql(self) -> list[str]:
        """What makes them."""
        dialect = self._database.dialect
        return [
            sql for table in self._installed for sql in _made(_sa_table(table, dialect), dialect, again=True)
        ]

    def _insert(self, known: sa.Table, row: Row) -> _Written:
        names = tuple(row)

        def build() -> sa.Insert:
            return sa.insert(known).values({name: _given(known, name) for name in names})

        statement = self._shapes.statement(("insert", known.name, names), build)
        return statement.sql, statement.bind({f"v_{name}": value for name, value in row.items()})

    def _change(self, known: sa.Table, where: Sequence[Condition], changes: Row) -> _Written:
        names = tuple(changes)

        def build() -> sa.Update:
            given = {name: _given(known, name) for name in names}
            return sa.update(known).where(*_clauses(known, where)).values(given)

        statement = self._shapes.statement(("change", known.name, names, _shape(where)), build)
        values = {f"v_{name}": value for name, value in changes.items()}
        return statement.sql, statement.bind(values | _values(where))

    async def table(self, table: RecordTable) -> sa.Table:
        found = self._tables.get(table.name)
        if found is None:
            found = await self._make(table, only_look=self._database.mode is not SchemaMode.AUTO)
        return found

    async def _make(self, table: RecordTable, *, only_look: bool = False) -> sa.Table:
        """The table, made where it is missing, once, also when several processes begin together."""
        dialect = self._database.dialect
        async with self.connection(write=not only_look) as connection:
            made = _sa_table(table, dialect)  # only now are the server's abilities known
            if not await _is_there(connection, made, dialect):
                if only_look:
                    shown = "; ".join(_made(made, dialect))
                    raise SchemaMismatch(
                        f"There is no table '{table.name}', and auto_migrate is off.",
                        remedy=f"Call db.install(), or run: {shown}",
                    )
                async with dialect.alone(connection, _as_model(made)):
                    if not await _is_there(connection, made, dialect):
                        for sql in _made(made, dialect):
                            await connection.run(sql)
        self._tables[table.name] = made
        return made

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        pools = self._database.pools
        slots = pools.writer if write else pools.readers
        connection = await slots.take()
        try:
            yield connection
        finally:
            slots.give(connection)


def _sa_table(table: RecordTable, dialect: Dialect) -> sa.Table:
    made = sa.Table(
        table.name,
        sa.MetaData(),
        *(
            sa.Column(
                column.name,
                dialect.column_type(_field(column)),
                primary_key=column.name == table.key,
                nullable=column.name != table.key,
            )
            for column in table.columns
        ),
        *(sa.UniqueConstraint(name, name=f"{table.name}_{name}_key") for name in table.unique),
        **{name: value for name, value in dialect.table_options().items() if "autoincrement" not in name},
    )
    for name in table.indexed:
        sa.Index(f"{table.name}_{name}_idx", made.c[name])
    return made


def _field(column: Column) -> Field:
    if column.kind == "number":
        return Field(column.name, Kind.INTEGER, int)
    return Field(column.name, Kind.TEXT, str, length=255 if column.kind == "key" else None)


def _made(table: sa.Table, dialect: Dialect, *, again: bool = False) -> list[str]:
    create: list[Any] = [sa.schema.CreateTable(table, if_not_exists=True)]
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        create.append(sa.schema.CreateIndex(index, if_not_exists=again and dialect.repeats_indexes))
    return [str(statement.compile(dialect=dialect.compiler)).strip() for statement in create]


async def _is_there(connection: Connection, table: sa.Table, dialect: Dialect) -> bool:
    return bool((await dialect.found(connection, _as_model(table))).columns)


def _as_model(table: sa.Table) -> Model:
    """As much of a model as dialects look at to find a table: its name, and its key."""
    (key,) = table.primary_key
    fields = MappingProxyType({key.name: Field(key.name, Kind.TEXT, str, length=255)})
    return Model(table.name, table.name, table.name, fields, generates_id=False)


def _given(table: sa.Table, name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(f"v_{name}", type_=table.c[name].type)


def _shape(where: Sequence[Condition]) -> tuple[Any, ...]:
    return tuple((name, test, value is None) for name, test, value in where)


def _clauses(table: sa.Table, where: Sequence[Condition]) -> list[sa.ColumnElement[bool]]:
    clauses = []
    for place, (name, test, value) in enumerate(where):
        column = table.c[name]
        given = None if value is None else sa.bindparam(f"w_{place}", type_=column.type)
        clauses.append(_TESTS[test](column, given))
    return clauses


def _values(where: Sequence[Condition]) -> dict[str, Any]:
    return {f"w_{place}": value for place, (_, _, value) in enumerate(where) if value is not None}


def _grouped(statements: Sequence[_Written]) -> list[tuple[str, list[list[Any]]]]:
    """The values of equal statements together, which are all of them independent of each other."""
    grouped: dict[str, list[list[Any]]] = {}
    for sql, values in statements:
        grouped.setdefault(sql, []).append(values)
    return list(grouped.items())
