"""The change log of one database, as the kernel's feed reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from dataflow.model import Model
from dataflow.query import Where, compiled, order_by
from dataflow.schema import SchemaMode
from dataflow.scope import visible
from nexus.errors import CursorExpired, InvalidFilter, TooLarge, Unavailable, UnknownTopic
from nexus.filters import Filter, relations_in
from nexus.ports import LoggedChange, LogHead, Snapshot
from nexus.session import Session

if TYPE_CHECKING:
    from dataflow.database import Database
    from dataflow.dialects.base import Connection
    from dataflow.dialects.log import Log

_HOPEFUL = 3


class ChangeLog:
    """A ChangeSource of the kernel. Its topics are the routes of the models."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._topics: dict[str, Model] = {}
        self._tables: dict[str, Model] = {}
        self._unsealed = True  # whether this process may have committed what has no position yet

    def follow(self, model: Model) -> None:
        """Make a topic of a model."""
        self._topics[model.route] = model
        self._tables[model.table_name] = model

    def has(self, topic: str) -> bool:
        return topic in self._topics

    def models(self) -> list[Model]:
        return list(self._topics.values())

    def topics(self) -> list[str]:
        if self._database.mode is SchemaMode.EXISTING:
            return []
        return [topic for topic, model in self._topics.items() if model.changes]

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        """Raises Unavailable for a model whose changes are not logged."""
        model = self._model(topic)
        if not model.changes:
            raise Unavailable(
                f"Changes to '{topic}' are not logged: its model says so.",
                remedy='Leave out "changes": False in its __dataflow__.',
            )
        wanted = model.parse_filter(where)
        through = next(relations_in(wanted), None)
        if through is not None:  # nothing would be said when the other record changes
            raise InvalidFilter(
                f"'{through.relation}': a subscription cannot depend on the records of another model.",
                remedy=f"Filter by fields of {topic}, or list them.",
            )
        return visible(session, model, wanted)

    def fields(self, topic: str) -> tuple[str, ...]:
        return tuple(self._model(topic).fields)

    async def head(self, topic: str) -> LogHead:
        """Raises Unavailable where changes cannot be followed."""
        await self._check(topic)
        pools = self._database.pools
        connection = await pools.log.take()
        try:
            await pools.sealing.hold(connection)
            await self._log.seal(connection)
            return (await self._read_head(connection))[0]
        finally:
            pools.log.give(connection)

    async def _check(self, topic: str) -> None:
        _ = self._log
        if not await self._database.captures(self._model(topic)):
            raise Unavailable(
                f"Nothing in the database tells of changes to '{topic}' yet, and auto_migrate is off.",
                remedy="Call db.install().",
            )

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        """Raises CursorExpired when changes after `after` are no longer kept."""
        slots = self._database.pools.log
        connection = await slots.take()
        try:
            if self._unsealed:
                self._unsealed = False  # before: what is written meanwhile is for the next time
                await self._log.seal(connection)
            rows = await connection.fetch(self._log.read_sql(), (after, limit))
            if not rows or rows[0][0] != after + 1:
                (head, _) = await self._read_head(connection)
                if head.floor > after:
                    raise CursorExpired("The changes that come next are no longer kept.")
                if head.pos < after:
                    raise CursorExpired("The database was restored to an earlier state.")
        finally:
            slots.give(connection)
        return [await self._change(row) for row in rows]

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        model = self._model(topic)
        table = await self._database.table(model)
        matching = Where(where, table, self._dialect)
        statement = compiled(
            sa.select(table.table)
            .where(matching.clause())
            .order_by(*order_by(table, (("id", False),), self._dialect))
            .limit(sa.bindparam("limit")),
            self._dialect,
        )
        await self._check(topic)
        pools = self._database.pools
        connection = await pools.readers.take()
        try:
            await pools.sealing.hold(connection)
            head = await self._begin_sealed(connection)
            rows = await connection.fetch(
                statement.sql, statement.bind({**matching.values, "limit": limit + 1})
            )
            await connection.commit()
        except BaseException:
            await pools.readers.discard(connection)
            raise
        pools.readers.give(connection)
        if len(rows) > limit:
            raise TooLarge(
                f"The snapshot of '{topic}' holds more than {limit} records.",
                remedy="Narrow the filter, or list the records in pages and subscribe without a snapshot.",
            )
        return Snapshot(head, [msgspec.structs.asdict(record) for record in table.records(rows)])

    async def changed(self) -> None:
        pools = self._database.pools
        connection = await pools.watch.take()
        try:
            await pools.sealing.hold(connection)
            await self._log.changed_elsewhere(connection, pools.sealing.patience)
        finally:
            pools.watch.give(connection)

    def written(self, *, read_here: bool) -> None:
        if self._database.mode is not SchemaMode.EXISTING:
            self._unsealed = True
            self._database.pools.sealing.written(read_here=read_here)

    async def _begin_sealed(self, connection: Connection) -> LogHead:
        """Begin a transaction whose state is exactly that of a position. What was committed but not sealed
        yet would be in the records and come again as a change; mostly there is none, and then nobody has to
        wait."""
        for _ in range(_HOPEFUL):
            await self._log.seal(connection)
            await connection.begin(write=False)
            head, waiting = await self._read_head(connection)
            if not waiting:
                return head
            await connection.rollback()
        await self._log.begin_sealed(connection)
        return (await self._read_head(connection))[0]

    async def _change(self, row: Sequence[Any]) -> LoggedChange:
        pos, table_name, key, record, old, actor, session, run, tenant, request, at, txn = row
        model = self._tables.get(table_name)
        if model is None:  # of a model that this application does not have: a position and no more
            return LoggedChange(
                pos, table_name, key, None, None, actor, session, run, tenant, at, request, txn
            )
        table = await self._database.table(model)
        return LoggedChange(
            pos=pos,
            topic=model.route,
            key=table.key(key),
            record=table.logged(record),
            old=table.logged(old),
            actor=actor,
            session=session,
            run=run,
            tenant=tenant,
            at=at,
            request=request,
            txn=txn,
        )

    @property
    def _log(self) -> Log:
        if self._database.mode is SchemaMode.EXISTING:
            raise Unavailable(
                "The database is used as it is (existing_schema_mode): nothing in it tells of changes."
            )
        return self._dialect.log

    async def _read_head(self, connection: Connection) -> tuple[LogHead, bool]:
        """And whether changes are seen that have no position yet."""
        ((epoch, pos, floor, waiting, mark),) = await connection.fetch(self._log.head_sql())
        return LogHead(bytes(epoch), pos, floor, mark or ""), bool(waiting)

    def _model(self, topic: str) -> Model:
        model = self._topics.get(topic)
        if model is None:
            raise UnknownTopic(f"There is no topic '{topic}' any more.")
        return model
