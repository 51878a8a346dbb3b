"""Hand-made operations on things in memory, and the log of what changed: small enough to see through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec

from nexus import Call, Effect, Nexus, Operation, Session, Settings
from nexus.errors import Conflict, NotFound
from nexus.filters import Fields, Filter, matches, parse
from nexus.ports import LoggedChange, LogHead, Record, Snapshot, Unit
from nexus.runtime import Runtime

FIELDS = ("id", "name", "size", "note")


class Arguments(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class List(Arguments):
    filter: Any = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 1000
    order: list[str] = []


class ById(Arguments):
    id: str


class Create(Arguments):
    name: str
    id: str | None = None
    size: int = 0
    note: str | None = None


class Update(ById):
    name: str | msgspec.UnsetType = msgspec.UNSET
    size: int | msgspec.UnsetType = msgspec.UNSET


class Bulk(Arguments):
    records: list[Create]


class Sum(Arguments):
    numbers: list[int] = []


class Wait(Arguments):
    seconds: float = 60.0


class Greet(Arguments):
    name: str
    times: int = 1


class Things:
    """A store that is a resource, its own change log, and the contributor of its operations.

    `floor` is the position up to which the log is no longer kept. `running` counts the handlers that wait,
    `ended` what became of those that were begun.
    """

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.log: list[LoggedChange] = []
        self.floor = 0
        self.epoch = b"epoch-of-things!"
        self.running = 0
        self.ended: list[str] = []
        self.grammar = Fields("things", frozenset(FIELDS), lambda name, value: value)

    @property
    def changes(self) -> Things:
        return self

    def contribute(self, runtime: Runtime) -> None:
        runtime.registry.add(*operations(self))

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass

    @asynccontextmanager
    async def lend(self, call: Call, *, write: bool) -> AsyncIterator[Things]:
        yield self

    async def begin(self, call: Call) -> Unit:
        raise NotImplementedError

    def has(self, topic: str) -> bool:
        return topic == "things"

    def topics(self) -> list[str]:
        return ["things"]

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        return parse(where, self.grammar)

    def fields(self, topic: str) -> tuple[str, ...]:
        return FIELDS

    async def head(self, topic: str) -> LogHead:
        return LogHead(self.epoch, len(self.log), self.floor)

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        return self.log[after : after + limit]

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        records: list[Record] = [dict(r) for r in self.records.values() if matches(where, r)]
        return Snapshot(await self.head(topic), records)

    async def changed(self) -> None:
        await asyncio.sleep(1)

    def written(self, *, read_here: bool) -> None:
        """Nobody else need be told."""

    def put(self, key: str, record: dict[str, Any] | None, *, session: Session | None = None) -> None:
        """Store, or delete, and log it; it is for the caller to wake the feed."""
        old = self.records.pop(key, None)
        if record is not None:
            self.records[key] = record
        actor = session.user if session else None
        pos = len(self.log) + 1
        self.log.append(
            LoggedChange(pos, "things", key, record, old, actor, None, None, None, "2026-01-01T00:00:00Z")
        )

    def known(self, key: str) -> dict[str, Any]:
        try:
            return self.records[key]
        except KeyError:
            raise NotFound(f"things: there is no record '{key}'.") from None


def operations(things: Things) -> list[Operation]:
    async def listing(call: Call, given: List) -> object:
        where = things.parse("things", given.filter, call.session)
        return [record for record in things.records.values() if matches(where, record)][: given.limit]

    async def get(call: Call, given: ById) -> object:
        return things.known(given.id)

    async def count(call: Call, given: List) -> object:
        where = things.parse("things", given.filter, call.session)
        return {"count": sum(matches(where, record) for record in things.records.values())}

    async def create(call: Call, given: Create) -> object:
        async with call.connection(things, write=True):
            key = given.id or str(len(things.log) + 1)
            if key in things.records:
                raise Conflict(f"things: '{key}' exists already.")
            record = {"id": key, "name": given.name, "size": given.size, "note": given.note}
            things.put(key, record, session=call.session)
        return record

    async def bulk(call: Call, given: Bulk) -> object:
        return [await create(call, record) for record in given.records]

    async def update(call: Call, given: Update) -> object:
        async with call.connection(things, write=True):
            changes = {key: value for key, value in msgspec.to_builtins(given).items() if key != "id"}
            record = {**things.known(given.id), **changes}
            things.put(given.id, record, session=call.session)
        return record

    async def delete(call: Call, given: ById) -> None:
        async with call.connection(things, write=True):
            things.known(given.id)
            things.put(given.id, None, session=call.session)

    async def greet(call: Call, given: Greet) -> str:
        return ", ".join([f"hello {given.name}"] * given.times)

    async def total(call: Call, given: Sum) -> int:
        return sum(given.numbers)

    async def wait(call: Call, given: Wait) -> str:
        things.running += 1
        try:
            await asyncio.sleep(given.seconds)
        except asyncio.CancelledError:
            things.ended.append("cancelled")
            raise
        finally:
            things.running -= 1
        things.ended.append("finished")
        return "waited"

    async def explode(call: Call, given: Any) -> None:
        raise RuntimeError("a secret that nobody may see")

    async def unspeakable(call: Call, given: Any) -> object:
        return object()

    def of_things(verb: str, handler: Any, given: type[Arguments], effect: Effect, **more: Any) -> Operation:
        name = f"things.{verb}"
        node = f"Thing{verb.capitalize()}Node"
        return Operation(name, handler, given, Any, effect, resource="things", verb=verb, node=node, **more)

    return [
        of_things("list", listing, List, Effect.READ),
        of_things("create", create, Create, Effect.CREATE),
        of_things("get", get, ById, Effect.READ, on_record=True),
        of_things("update", update, Update, Effect.UPDATE, on_record=True),
        of_things("delete", delete, ById, Effect.DELETE, on_record=True),
        of_things("count", count, List, Effect.READ),
        of_things("bulk", bulk, Bulk, Effect.CREATE),
        Operation("notes.list", listing, List, Any, Effect.READ, resource="notes", verb="list"),
        Operation("greet", greet, Greet, str, Effect.READ, "Say hello."),
        Operation("total", total, Sum, int, Effect.READ),
        Operation("wait", wait, Wait, str),
        Operation("explode", explode),
        Operation("unspeakable", unspeakable),
        Operation("hidden", explode, internal=True),
    ]


def application(
    things: Things, *, channels: tuple[str, ...] = ("rest", "websocket"), **settings: Any
) -> Nexus:
    return Nexus(things, title="Things", channels=channels, settings=Settings(**settings))
