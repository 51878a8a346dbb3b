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
    from dataflow.dialects.base import Connection, LogReader


class ChangeLog:
    """A ChangeSource of the kernel. Its topics are the routes of the models."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._topics: dict[str, Model] = {}
        self._tables: dict[str, Model] = {}

    def follow(self, model: Model) -> None:
        """Make a topic of a model."""
        self._topics[model.route] = model
        self._tables[model.table_name] = model

    def has(self, topic: str) -> bool:
        return topic in self._topics

    def models(self) -> list[Model]:
        return list(self._topics.values())

    def topics(self) -> list[str]:
        return list(self._topics)

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        model = self._model(topic)
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
        """Raises Unavailable where changes cannot be followed yet."""
        _ = self._log
        if not await self._database.captures(self._model(topic)):
            raise Unavailable(
                f"Nothing in the database tells of changes to '{topic}' yet, and auto_migrate is off.",
                remedy="Call db.install().",
            )
        slots = self._database.pools.log
        connection = await slots.take()
        try:
            return await self._read_head(connection)
        finally:
            slots.give(connection)

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        """Raises CursorExpired when changes after `after` are no longer kept."""
        slots = self._database.pools.log
        connection = await slots.take()
        try:
            rows = await connection.fetch(self._log.read_sql(), (after, limit))
            if (not rows or rows[0][0] != after + 1) and (await self._read_head(connection)).floor > after:
                raise CursorExpired("The changes that come next are no longer kept.")
        finally:
            slots.give(connection)
        return [await self._change(row) for row in rows]

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        _ = self._log
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
        slots = self._database.pools.readers
        connection = await slots.take()
        try:
            await connection.begin(write=False)
            head = await self._read_head(connection)
            rows = await connection.fetch(
                statement.sql, statement.bind({**matching.values, "limit": limit + 1})
            )
        finally:
            await connection.rollback()
            slots.give(connection)
        if len(rows) > limit:
            raise TooLarge(
                f"The snapshot of '{topic}' holds more than {limit} records.",
                remedy="Narrow the filter, or list the records in pages and subscribe without a snapshot.",
            )
        return Snapshot(head, [msgspec.structs.asdict(record) for record in table.records(rows)])

    async def changed(self) -> None:
        slots = self._database.pools.watch
        connection = await slots.take()
        try:
            await self._log.changed_elsewhere(connection)
        finally:
            slots.give(connection)

    async def _change(self, row: Sequence[Any]) -> LoggedChange:
        pos, table_name, key, record, old, actor, session, run, tenant, at = row
        model = self._tables.get(table_name)
        if model is None:  # of a model that this application does not have: a position and no more
            return LoggedChange(pos, table_name, key, None, None, actor, session, run, tenant, at)
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
        )

    @property
    def _log(self) -> LogReader:
        if self._database.mode is SchemaMode.EXISTING:
            raise Unavailable(
                "The database is used as it is (existing_schema_mode): nothing in it tells of changes."
            )
        if self._dialect.log is None:
            raise Unavailable(f"Following changes is not available yet on {self._dialect.name}.")
        return self._dialect.log

    async def _read_head(self, connection: Connection) -> LogHead:
        ((epoch, pos, floor),) = await connection.fetch(self._log.head_sql())
        return LogHead(bytes(epoch), pos, floor)

    def _model(self, topic: str) -> Model:
        model = self._topics.get(topic)
        if model is None:
            raise UnknownTopic(f"There is no topic '{topic}' any more.")
        return model
