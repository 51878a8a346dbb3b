"""The only builder of statements over models: whatever must hold for every access, holds here."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa

from dataflow.assignments import Assignment
from dataflow.changes import assigned, change_values
from dataflow.conditions import condition
from dataflow.database import Database
from dataflow.dialects import Connection
from dataflow.etags import STATE
from dataflow.merging import merges, settled
from dataflow.model import DELETED_AT, TENANT, VERSION, Model
from dataflow.query import Shape, Statement, Where, compiled, order_by
from dataflow.scope import tenant_of, visible
from dataflow.table import ModelTable
from dataflow.together import Together
from nexus.call import Call
from nexus.errors import Conflict, NexusError, NotFound
from nexus.etag import Match
from nexus.filters import EVERYTHING, Filter

_KEPT_SHAPES = 1000
_SEEN = "seen_"

Rows: TypeAlias = list[Any]
S = TypeVar("S", sa.Select[Any], sa.Update, sa.Delete)


class Store:
    """Reads and writes the records of the models of one database, on behalf of a call."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._statements: dict[Shape, Statement] = {}
        self._unfiltered: dict[ModelTable, Where] = {}
        self._together = Together()

    async def prepare(self, models: Iterable[Model]) -> None:
        """Make sure of the tables of these models, which cannot be done in a transaction that reads."""
        for model in models:
            await self._database.table(model)

    async def create(self, call: Call, model: Model, values: Mapping[str, Any]) -> msgspec.Struct:
        """Insert a record and return it whole. `values` are of the fields' types already."""
        table = self._database.known(model) or await self._database.table(model)
        names, fields, encode = table.parameters, model.fields, table.encode
        bound = {
            names[name]: encode(name, fields[name].check(model.route, value))
            for name, value in values.items()
        }
        for name, value in made(call, model).items():
            bound[names[name]] = encode(name, value)
        statement = self._statement(("create", model, tuple(bound)), lambda: self._insert(table, bound))
        if "insert" in self._dialect.returning:
            rows = await self._run(call, statement, bound, write=True)
            return table.record(rows[0])
        async with call.connection(self._database, write=True, statements="many") as connection:
            done = await connection.execute(statement.sql, statement.bind(bound))
            call.wrote(1)
            return await self._read_back(connection, table, bound.get("v_id", done.key))

    async def get(
        self, call: Call, model: Model, key: Any, *, deleted: bool = False, lock: bool = False
    ) -> msgspec.Struct:
        """Raises NotFound. `deleted`, here and below: soft-deleted records count, too. With a `lock`, in
        an atomic call, nobody changes it until the end."""
        table = self._database.known(model) or await self._database.table(model)
        scope = self._scope(call, table, deleted=deleted)
        if call.freely:
            record: msgspec.Struct | None
            if self._dialect.reads_together:
                read = functools.partial(self._with_keys, call, table, scope)
                kind = (table, scope.shape, tuple(scope.values.values()))
                record = await self._together.get(call, kind, key, read, table.records)
            else:
                rows = await self._with_keys(call, table, scope, (key,))
                record = table.records(rows)[0] if rows else None
            if record is None:
                raise not_found(model, key)
            return record
        lock = (lock and self._dialect.locks_reads) or self._locks(call)
        statement = self._by_key(table, scope, lock=lock)
        rows = await self._run(call, statement, {"key": table.encode("id", key), **scope.values}, write=False)
        if not rows:
            raise not_found(model, key)
        return table.record(rows[0])

    async def list(
        self,
        call: Call,
        model: Model,
        where: Filter,
        order: tuple[tuple[str, bool], ...],
        limit: int,
        offset: int,
        *,
        deleted: bool = False,
    ) -> list[msgspec.Struct]:
        table = self._database.known(model) or await self._database.table(model)
        if where is EVERYTHING:
            matching = self._scope(call, table, deleted=deleted)
        else:
            matching = await condition(call, self._database, model, where, deleted=deleted)
        lock = self._locks(call)
        statement = self._statement(
            ("list", model, matching.shape, order, lock), lambda: self._select(table, matching, order, lock)
        )
        bound = {**matching.values, "limit": limit, "offset": offset}
        rows = await self._run(call, statement, bound, write=False)
        return table.records(rows)

    async def count(self, call: Call, model: Model, where: Filter, *, deleted: bool = False) -> int:
        table = self._database.known(model) or await self._database.table(model)
        if where is EVERYTHING:
            matching = self._scope(call, table, deleted=deleted)
        else:
            matching = await condition(call, self._database, model, where, deleted=deleted)
        statement = self._statement(
            ("count", model, matching.shape),
            lambda: sa.select(sa.func.count()).select_from(table.table).where(matching.clause()),
        )
        rows = await self._run(call, statement, matching.values, write=False)
        return int(rows[0][0])

    async def estimate(self, call: Call, model: Model, where: Filter, *, deleted: bool = False) -> int | None:
        """About how many records match, without looking at them; None where the database cannot say it:
        those that not all of a table match, and a table whose statistics were never gathered."""
        table = self._database.known(model) or await self._database.table(model)
        if visible(call.session, model, where, deleted=deleted) is not EVERYTHING:
            return None
        async with call.connection(self._database, write=False) as connection:
            return await self._dialect.estimate(connection, table.table)

    async def update(
        self,
        call: Call,
        model: Model,
        key: Any,
        changes: tuple[Assignment, ...],
        *,
        version: int | None = None,
        match: Match | None = None,
        deleted: bool = False,
    ) -> msgspec.Struct:
        """Change one record in one statement and return it whole: operators work on what is stored at that
        moment. Raises NotFound, PreconditionFailed when it is not in the state that `match` says, or Conflict
        when it has another `version`."""
        if merges(changes):
            async with call.together() as whole:
                stored = await self.get(whole, model, key, deleted=deleted, lock=True)
                changes = settled(model, msgspec.structs.asdict(stored), changes)
                return await self.update(
                    whole, model, key, changes, version=version, match=match, deleted=deleted
                )
        table = self._database.known(model) or await self._database.table(model)
        scope = self._scope(call, table, deleted=deleted)
        bound = change_values(table, changes)
        bound |= {"v_updated_at": table.encode("updated_at", _now()), **scope.values}
        bound["key"] = table.encode("id", key)
        if version is not None:
            bound["version"] = version
        seen = _bind_seen(table, match, bound)
        form = tuple((change.field, change.op) for change in changes)
        statement = self._statement(
            ("update", model, form, scope.shape, version is None, seen),
            lambda: self._update(table, scope, changes, checked=version is not None, seen=seen),
        )
        returns = "update" in self._dialect.returning
        reads = _must_be_read(match, seen)
        if returns and not reads:
            rows = await self._run(call, statement, bound, write=True)
            if rows:
                return table.record(rows[0])
            raise await self._missed(call, table, key, version, match, deleted=deleted)
        async with call.connection(self._database, write=True, statements="many") as connection:
            if reads:
                await self._check_match(connection, table, scope, key, match)
            if returns:
                rows = await connection.fetch(statement.sql, statement.bind(bound))
                if rows:
                    call.wrote(len(rows))
                    return table.record(rows[0])
            elif found := (await connection.execute(statement.sql, statement.bind(bound))).found:
                call.wrote(found)
                return await self._read_back(connection, table, bound["key"])
        raise await self._missed(call, table, key, version, match, deleted=deleted)

    async def delete(
        self,
        call: Call,
        model: Model,
        key: Any,
        *,
        soft: bool | None = None,
        match: Match | None = None,
        deleted: bool = False,
    ) -> None:
        """Delete one record; of a soft-delete model, mark it as deleted unless `soft` is False. Raises
        NotFound, or PreconditionFailed when it is not in the state that `match` says."""
        table = self._database.known(model) or await self._database.table(model)
        scope = self._scope(call, table, deleted=deleted)
        soft = model.soft_delete if soft is None else soft
        bound = {"key": table.encode("id", key), **scope.values}
        if soft:
            bound["v_now"] = table.encode(DELETED_AT, _now())
        seen = _bind_seen(table, match, bound)
        statement = self._statement(
            ("delete", model, scope.shape, soft, seen),
            lambda: self._delete(table, scope, soft=soft, seen=seen),
        )
        reads = _must_be_read(match, seen)
        async with call.connection(
            self._database, write=True, statements="many" if reads else "one"
        ) as connection:
            if reads:
                await self._check_match(connection, table, scope, key, match)
            done = await connection.execute(statement.sql, statement.bind(bound))
            call.wrote(done.found)
        if not done.found:
            raise await self._missed(call, table, key, None, match, deleted=deleted)

    def _scope(self, call: Call, table: ModelTable, *, deleted: bool) -> Where:
        """What exists for the caller: the condition of every statement about one record."""
        tree = visible(call.session, table.model, deleted=deleted)
        return self._everything(table) if tree is EVERYTHING else Where(tree, table, self._dialect)

    def _everything(self, table: ModelTable) -> Where:
        found = self._unfiltered.get(table)
        if found is None:
            found = self._unfiltered[table] = Where(EVERYTHING, table, self._dialect)
        return found

    async def _missed(
        self,
        call: Call,
        table: ModelTable,
        key: Any,
        version: int | None,
        match: Match | None,
        *,
        deleted: bool,
    ) -> NexusError:
        """Why a change found nothing."""
        model = table.model
        if version is None and match is None:
            return not_found(model, key)
        try:
            record = await self.get(call, model, key, deleted=deleted)
        except NotFound as missing:
            return missing
        tag = table.tags.of(record)
        if match is not None and (version is None or not match.holds(tag)):
            return match.failure(called(model, key), tag)
        return Conflict(
            f"{called(model, key)} is not at version {version} any more.",
            remedy="Read it again and repeat the change.",
        )

    async def _check_match(
        self, connection: Connection, table: ModelTable, scope: Where, key: Any, match: Match | None
    ) -> None:
        """Read the record, and keep it as it is until the end. Raises NotFound and PreconditionFailed."""
        statement = self._by_key(table, scope, lock=self._dialect.locks_reads)
        bound = {"key": table.encode("id", key), **scope.values}
        rows = await connection.fetch(statement.sql, statement.bind(bound))
        if not rows:
            raise not_found(table.model, key)
        assert match is not None
        match.check(called(table.model, key), table.tags.of(table.record(rows[0])))

    def _locks(self, call: Call) -> bool:
        """Whether what is read must stay as it is until the end of the call, which may write it."""
        terms = call.terms
        usual = terms.isolation is None and not terms.read_only  # else the caller has said how to read
        return call.atomic and usual and self._dialect.locks_reads

    def _by_key(self, table: ModelTable, scope: Where, *, lock: bool) -> Statement:
        def select() -> sa.Select[Any]:
            found = _by_id(sa.select(table.table), table, scope)
            return found.with_for_update() if lock else found

        return self._statement(("get", table.model, scope.shape, lock), select)

    async def _with_keys(self, call: Call, table: ModelTable, scope: Where, keys: Sequence[Any]) -> Rows:
        """The rows with these ids, as far as there are any."""
        if len(keys) == 1:
            statement = self._by_key(table, scope, lock=False)
            bound = {"key": table.encode("id", keys[0]), **scope.values}
        else:
            # As many as a power of two, the last of them repeated: so there are few statements.
            names = [f"key{place}" for place in range(1 << (len(keys) - 1).bit_length())]
            encoded = [table.encode("id", key) for key in keys]
            bound = {**dict.fromkeys(names, encoded[-1]), **dict(zip(names, encoded, strict=False))}
            bound |= scope.values

            def select() -> sa.Select[Any]:
                identity = table.table.c.id
                given = [sa.bindparam(name, type_=identity.type) for name in names]
                return sa.select(table.table).where(identity.in_(given)).where(scope.clause())

            statement = self._statement(("get", table.model, scope.shape, len(names)), select)
        return await self._database.read(call, statement.sql, statement.bind(bound))

    async def _read_back(self, connection: Connection, table: ModelTable, key: object) -> msgspec.Struct:
        statement = self._by_key(table, self._everything(table), lock=False)
        rows = await connection.fetch(statement.sql, statement.bind({"key": key}))
        return table.record(rows[0])

    async def _run(self, call: Call, statement: Statement, values: Mapping[str, Any], *, write: bool) -> Rows:
        if not write and call.freely:
            return await self._database.read(call, statement.sql, statement.bind(values))
        if write and call.commits_alone(self._database):
            written = await self._database.write(call, statement.sql, statement.bind(values))
            call.kept = True
            return written
        async with call.connection(self._database, write=write) as connection:
            rows: Rows = await connection.fetch(statement.sql, statement.bind(values))
            if write:
                call.wrote(len(rows))
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

    def _update(
        self, table: ModelTable, scope: Where, changes: tuple[Assignment, ...], *, checked: bool, seen: bool
    ) -> sa.Update:
        columns = table.table.c
        values: dict[str, Any] = {"updated_at": sa.bindparam("v_updated_at", type_=columns.updated_at.type)}
        if table.model.versioned:
            values[VERSION] = columns[VERSION] + 1
        values |= {change.field: assigned(table, change, self._dialect) for change in changes}
        statement = _in_state(_by_id(sa.update(table.table), table, scope).values(values), table, seen)
        if checked:
            statement = statement.where(
                columns[VERSION] == sa.bindparam("version", type_=columns[VERSION].type)
            )
        return statement.returning(*columns) if "update" in self._dialect.returning else statement

    def _delete(self, table: ModelTable, scope: Where, *, soft: bool, seen: bool) -> sa.Update | sa.Delete:
        if soft:
            return _in_state(self._mark_deleted(table, scope), table, seen)
        return _in_state(_by_id(sa.delete(table.table), table, scope), table, seen)

    def _mark_deleted(self, table: ModelTable, scope: Where) -> sa.Update:
        now = sa.bindparam("v_now", type_=table.table.c.updated_at.type)
        values: dict[str, Any] = {DELETED_AT: now, "updated_at": now}
        if table.model.versioned:
            values[VERSION] = table.table.c[VERSION] + 1
        return _by_id(sa.update(table.table), table, scope).values(values)


def _by_id(statement: S, table: ModelTable, scope: Where) -> S:
    identity = table.table.c.id
    return statement.where(identity == sa.bindparam("key", type_=identity.type)).where(scope.clause())


def _bind_seen(table: ModelTable, match: Match | None, bound: dict[str, Any]) -> bool:
    """Whether the statement itself can look at what `match` says; then it is bound."""
    state = table.tags.known(match)
    if state is None:
        return False
    bound |= {f"{_SEEN}{name}": table.encode(name, value) for name, value in state.items()}
    return True


def _must_be_read(match: Match | None, seen: bool) -> bool:
    return match is not None and match.tags is not None and not seen


def _in_state(statement: S, table: ModelTable, seen: bool) -> S:
    columns = table.table.c
    for name in STATE if seen else ():
        statement = statement.where(columns[name] == sa.bindparam(_SEEN + name, type_=columns[name].type))
    return statement


def made(call: Call, model: Model) -> dict[str, Any]:
    """The automatic fields of a new record."""
    now = _now()
    fields: dict[str, Any] = {"created_at": now, "updated_at": now}
    if model.multi_tenant:
        fields[TENANT] = tenant_of(call.session, model)
    if model.versioned:
        fields[VERSION] = 1
    return fields


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def not_found(model: Model, key: Any) -> NotFound:
    return NotFound(f"{model.route} has no record with the id {_shown(key)}.")


def called(model: Model, key: Any) -> str:
    """A record, in messages."""
    return f"The record {_shown(key)} of {model.route}"


def _shown(key: Any) -> str:
    return str(key) if len(str(key)) <= 80 else str(key)[:80] + "…"
