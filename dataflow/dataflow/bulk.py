"""Many records at a time: set-based statements in chunks, all of a call in one transaction."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from dataflow.assignments import Assignment
from dataflow.changes import assigned, change_values
from dataflow.columns import Columns, columns_of
from dataflow.conditions import condition
from dataflow.database import Database
from dataflow.dialects import Connection
from dataflow.fields import Kind
from dataflow.merging import apart, merged_fields, merges, settled
from dataflow.model import DELETED_AT, VERSION, Model
from dataflow.query import Shape, Where
from dataflow.shapes import Shapes
from dataflow.store import made
from dataflow.table import ModelTable
from nexus.call import Call
from nexus.errors import Retryable
from nexus.filters import EVERYTHING, Filter

T = TypeVar("T")
Key: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Mapping[str, Any]

CHUNK = 5000
_GIVEN_BACK = (Kind.INTEGER, Kind.TEXT, Kind.UUID)


@dataclass(frozen=True, slots=True)
class Touched:
    """How many records were changed or deleted, and, where asked for, which."""

    count: int
    ids: list[Any] | None = None


@dataclass(slots=True)
class Batch:
    """A transaction on one model's table, and the statements that go through it. `deleted`: soft-deleted
    records count, too."""

    model: Model
    table: ModelTable
    connection: Connection
    shapes: Shapes
    database: Database
    call: Call
    deleted: bool = False
    automatic: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        fields = made(self.call, self.model)
        self.automatic = {name: self.table.encode(name, value) for name, value in fields.items()}

    @property
    def stamp(self) -> Any:
        return self.automatic["updated_at"]

    @property
    def by_id(self) -> bool:
        """Whether an id alone says which record it is: all records exist for the caller, and the database
        gives back the id that it was given."""
        model = self.model
        sees_all = not model.multi_tenant and (self.deleted or not model.soft_delete)
        return sees_all and model.fields["id"].kind in _GIVEN_BACK

    @property
    def _counters(self) -> tuple[str, ...]:
        return (VERSION,) if self.model.versioned else ()

    async def insert(self, columns: Columns, size: int = CHUNK, *, ids: bool = True) -> list[Any]:
        """Insert records whose values were checked; where asked for, their ids, in their order."""
        encoded = _with_each(self.table.encoded(columns).with_same(self.automatic))
        made: list[Any] = []
        for part in encoded.parts(size):
            given = await self.database.dialect.insert_many(
                self.connection, self.table.table, part, generates_id=self.model.generates_id, ids=ids
            )
            made += given if ids else ()
            self.call.wrote(part.count)
        return [self._key(key) for key in made]

    async def insert_any(self, rows: Sequence[Values], size: int = CHUNK) -> list[Any]:
        """Like `insert`, for rows that need not all have the same fields."""
        ids: list[Any] = []
        for _, group in itertools.groupby(rows, key=tuple):
            ids += await self.insert(columns_of(list(group)), size)
        return ids

    async def upsert(self, columns: Columns, changed: Sequence[str], size: int = CHUNK) -> int:
        """Insert records, each of another id, or where it is there already change these fields, of which none
        is unique; how many were inserted."""
        encoded = self.table.encoded(columns).with_same(self.automatic)
        updated = (*changed, "updated_at") if changed else ()
        count = 0
        for part in encoded.parts(size):
            count += await self.database.dialect.upsert_many(
                self.connection,
                self.table.table,
                part,
                updated,
                self._counters,
                generates_id=self.model.generates_id,
            )
            self.call.wrote(part.count)
        return count

    async def change(self, columns: Columns, size: int = CHUNK) -> int:
        """Set the other fields of the records with these ids, in this order where one of them is there twice;
        how many there were."""
        if self.sets_at_once(columns):
            return await self.change_at_once(columns, size)
        names = [name for name in columns.names if name != "id"]
        each = [
            (key, tuple(Assignment(name, "set", value) for name, value in zip(names, values, strict=True)))
            for key, *values in columns.rows(["id", *names])
        ]
        for chunk in chunks(each, size):
            await self.update_each(chunk)
        return columns.count

    async def change_at_once(self, columns: Columns, size: int = CHUNK) -> int:
        encoded = self._in_order(self.table.encoded(columns).with_same({"updated_at": self.stamp}))
        count = 0
        for part in encoded.parts(size):
            found = await self.database.dialect.update_many(
                self.connection, self.table.table, part, self._counters
            )
            self.call.wrote(found)
            count += found
        return count

    def sets_at_once(self, columns: Columns) -> bool:
        """Whether it is the same in whatever order it is done: each record once, and nothing unique."""
        unique = {name for index in self.model.indexes if index.unique for name in index.fields}
        ids = columns.each["id"]
        return unique.isdisjoint(columns.names) and len(set(ids)) == len(ids)

    async def read(self, key: Any) -> msgspec.Struct:
        """A record that this transaction has found or made. Raises Retryable where it is gone all the same:
        a server has been seen to let another transaction delete what was locked."""
        statement = self._statement(("read",), lambda: sa.select(self.table.table).where(self._is()))
        bound = {"key": self.table.encode("id", key)}
        rows = await self.connection.fetch(statement.sql, statement.bind(bound))
        if not rows:
            raise Retryable("Another transaction was in the way.", remedy="Try again.")
        return self.table.record(rows[0])

    async def find(self, names: tuple[str, ...], keys: Iterable[Key]) -> dict[Key, list[Any]]:
        """The ids of the records that have these values in these fields, locked until the end."""
        wanted, scope = set(keys), await self.matching()
        found: dict[Key, list[Any]] = {}
        for chunk in chunks(list(wanted), CHUNK):
            statement = self._statement(("find", names, scope.shape), lambda: self._find(names, scope))
            lists = {
                f"k{index}": self.database.dialect.list_parameter(
                    [self.table.encode(name, value) for value in dict.fromkeys(key[index] for key in chunk)]
                )
                for index, name in enumerate(names)
            }
            for row in await self.connection.fetch(statement.sql, statement.bind({**lists, **scope.values})):
                key = tuple(self._decoded(name, row[index + 1]) for index, name in enumerate(names))
                if key in wanted:
                    found.setdefault(key, []).append(self._key(row[0]))
        return found

    async def pick(self, where: Where, limit: int | None) -> list[Any]:
        """The ids of the records that match, in their order, locked until the end."""
        statement = self._statement(("pick", where.shape, limit is None), lambda: self._pick(where, limit))
        bound = where.values if limit is None else {**where.values, "limit": limit}
        return [
            self._key(row[0]) for row in await self.connection.fetch(statement.sql, statement.bind(bound))
        ]

    async def count(self, where: Where) -> int:
        statement = self._statement(
            ("count", where.shape),
            lambda: sa.select(sa.func.count()).select_from(self.table.table).where(where.clause()),
        )
        ((count,),) = await self.connection.fetch(statement.sql, statement.bind(where.values))
        return int(count)

    async def update(self, where: Where, changes: tuple[Assignment, ...]) -> int:
        if merges(changes):
            ids = await self.pick(where, None)
            for chunk in chunks(ids, CHUNK):
                await self.update_ids(chunk, changes)
            return len(ids)
        bound = {**change_values(self.table, changes), "v_updated_at": self.stamp, **where.values}
        shape = ("update", where.shape, _form(changes))
        statement = self._statement(shape, lambda: self._changed(changes).where(where.clause()))
        return await self._count_written(statement, bound)

    async def delete(self, where: Where, *, soft: bool) -> int:
        statement = self._statement(
            ("delete", where.shape, soft), lambda: self._deletion(soft).where(where.clause())
        )
        return await self._count_written(statement, {**where.values, "v_now": self.stamp})

    async def update_ids(self, ids: Sequence[Any], changes: tuple[Assignment, ...]) -> None:
        if merges(changes):
            await self.update_each([(key, changes) for key in ids])
            return
        bound = {**change_values(self.table, changes), "v_updated_at": self.stamp}
        statement = self._statement(
            ("update ids", _form(changes)), lambda: self._changed(changes).where(self._among())
        )
        await self._count_written(statement, {**bound, "ids": self._list(ids)})

    async def delete_ids(self, ids: Sequence[Any], *, soft: bool) -> None:
        statement = self._statement(("delete ids", soft), lambda: self._deletion(soft).where(self._among()))
        await self._count_written(statement, {"ids": self._list(ids), "v_now": self.stamp})

    async def update_each(self, changed: Sequence[tuple[Any, tuple[Assignment, ...]]]) -> None:
        """Change records by id, each in its own way; in this order where one is changed twice."""
        if any(merges(changes) for _, changes in changed):
            for run in apart(changed):
                await self.update_each(await self._merged(run))
            return
        for form, group in _runs(changed):
            changes = group[0][1]
            if len(group) > 1 and all(change.op == "set" for change in changes):
                columns = columns_of([_set(key, each) for key, each in group])
                if self.sets_at_once(columns):
                    await self.change_at_once(columns, len(group))
                    continue
            statement = self._statement(
                ("update one", form),
                lambda changes=changes: self._changed(changes).where(self._is()),
            )
            rows = [
                statement.bind(
                    {
                        **change_values(self.table, each),
                        "v_updated_at": self.stamp,
                        "key": self.table.encode("id", key),
                    }
                )
                for key, each in group
            ]
            await self.connection.execute_each(statement.sql, rows)
            self.call.wrote(len(rows))

    async def _merged(
        self, changed: Sequence[tuple[Any, tuple[Assignment, ...]]]
    ) -> list[tuple[Any, tuple[Assignment, ...]]]:
        """With what patches come to, for records that are locked until the end from here on."""
        names = tuple(dict.fromkeys(name for _, changes in changed for name in merged_fields(changes)))
        columns = self.table.table.c

        def select() -> sa.Select[Any]:
            found = sa.select(columns.id, *(columns[name] for name in names)).where(self._among())
            found = found.order_by(columns.id)
            return found.with_for_update() if self.database.dialect.locks_reads else found

        statement = self._statement(("merged", names), select)
        rows = await self.connection.fetch(
            statement.sql, statement.bind({"ids": self._list([key for key, _ in changed])})
        )
        stored = {
            self._key(row[0]): {name: self._decoded(name, row[i]) for i, name in enumerate(names, 1)}
            for row in rows
        }
        return [(key, settled(self.model, stored[key], changes)) for key, changes in changed if key in stored]

    async def lock(self, names: tuple[str, ...], keys: Iterable[Key]) -> None:
        """Keep everyone else who locks one of these keys waiting until the end."""
        locked = (repr((self.model.table_name, names, key)) for key in keys)
        await self.database.dialect.lock(self.connection, locked)

    async def matching(self, where: Filter = EVERYTHING) -> Where:
        return await condition(self.call, self.database, self.model, where, deleted=self.deleted)

    async def _count_written(self, statement: Any, bound: Values) -> int:
        found = (await self.connection.execute(statement.sql, statement.bind(bound))).found
        self.call.wrote(found)
        return found

    def _changed(self, changes: tuple[Assignment, ...]) -> sa.Update:
        updated = self.table.table.c.updated_at
        values: dict[str, Any] = {"updated_at": sa.bindparam("v_updated_at", type_=updated.type)}
        dialect = self.database.dialect
        if self.model.versioned:
            values[VERSION] = self.table.table.c[VERSION] + 1
        values |= {change.field: assigned(self.table, change, dialect) for change in changes}
        return sa.update(self.table.table).values(values)

    def _deletion(self, soft: bool) -> sa.Update | sa.Delete:
        if not soft:
            return sa.delete(self.table.table)
        given = sa.bindparam("v_now", type_=self.table.table.c.updated_at.type)
        values: dict[str, Any] = {DELETED_AT: given, "updated_at": given}
        if self.model.versioned:
            values[VERSION] = self.table.table.c[VERSION] + 1
        return sa.update(self.table.table).values(values)

    def _find(self, names: tuple[str, ...], scope: Where) -> sa.Select[Any]:
        columns = self.table.table.c
        tests = [
            self.database.dialect.in_list(columns[name], f"k{index}") for index, name in enumerate(names)
        ]
        found = (
            sa.select(columns.id, *(columns[name] for name in names))
            .where(*tests, scope.clause())
            .order_by(columns.id)
        )
        return found.with_for_update() if self.database.dialect.locks_reads else found

    def _pick(self, where: Where, limit: int | None) -> sa.Select[Any]:
        key = self.table.table.c.id
        picked = sa.select(key).where(where.clause()).order_by(key)
        if limit is not None:
            picked = picked.limit(sa.bindparam("limit", type_=sa.BigInteger()))
        return picked.with_for_update() if self.database.dialect.locks_reads else picked

    def _is(self) -> sa.ColumnElement[bool]:
        identity = self.table.table.c.id
        return identity == sa.bindparam("key", type_=identity.type)

    def _among(self) -> sa.ColumnElement[bool]:
        return self.database.dialect.in_list(self.table.table.c.id, "ids")

    def _list(self, ids: Sequence[Any]) -> object:
        return self.database.dialect.list_parameter([self.table.encode("id", key) for key in ids])

    def _decoded(self, name: str, value: Any) -> Any:
        decode = self.table.codecs[name].decode
        return value if decode is None or value is None else decode(value)

    def _key(self, value: Any) -> Any:
        return self._decoded("id", value)

    def _in_order(self, columns: Columns) -> Columns:
        """By id, where others would wait for what this locks: two then do not wait for each other."""
        ids = columns.each["id"]
        if not self.database.dialect.locks_reads or ids == sorted(ids):
            return columns
        return columns.at(sorted(range(len(ids)), key=ids.__getitem__))

    def _statement(self, shape: Shape, build: Any) -> Any:
        return self.shapes.statement((*shape, self.model), build)


class Bulk:
    """Opens batches for the models of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._shapes = Shapes(database.dialect)

    @asynccontextmanager
    async def batch(self, call: Call, model: Model, *, deleted: bool = False) -> AsyncIterator[Batch]:
        """The call's transaction: all that goes through the batch is kept, or nothing."""
        table = await self.database.table(model)
        async with call.connection(self.database, write=True, statements="many") as connection:
            yield Batch(model, table, connection, self._shapes, self.database, call, deleted)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _with_each(columns: Columns) -> Columns:
    """With a column at least, since what all have alike says nothing of how many they are; and with that of
    the ids, where there are any."""
    name = "id" if "id" in columns.same else next(iter(columns.same))
    if columns.each and name != "id":
        return columns
    each = {name: [columns.same[name]] * columns.count, **columns.each}
    return Columns(columns.count, each, {k: value for k, value in columns.same.items() if k != name})


def _set(key: Any, changes: Iterable[Assignment]) -> Values:
    return {"id": key, **{change.field: change.value for change in changes}}


def _form(changes: Iterable[Assignment]) -> Shape:
    return tuple((change.field, change.op) for change in changes)


def _runs(
    changed: Sequence[tuple[Any, tuple[Assignment, ...]]],
) -> Iterator[tuple[Shape, list[tuple[Any, tuple[Assignment, ...]]]]]:
    """Neighbours that change the same fields in the same way, together."""
    group: list[tuple[Any, tuple[Assignment, ...]]] = []
    form: Shape = ()
    for item in changed:
        if group and _form(item[1]) != form:
            yield form, group
            group = []
        form = _form(item[1])
        group.append(item)
    if group:
        yield form, group
