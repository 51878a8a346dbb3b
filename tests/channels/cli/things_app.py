"""Things, kept in a file: an application of hand-made operations, for the tests of the terminal.

The tests copy it to a folder of their own. Each change is a line of a log, which is what `watch` follows.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from nexus import Call, Effect, Nexus, Operation, Session
from nexus.errors import NotFound
from nexus.filters import Fields, Filter, matches, parse
from nexus.ports import LoggedChange, LogHead, Snapshot
from nexus.runtime import Runtime

HERE = Path(__file__).parent
LOG = HERE / "things.log"
FIELDS = ("id", "name", "price", "color", "in_stock", "tags")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Create(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="What it is called.")]
    price: Annotated[float, msgspec.Meta(ge=0, description="In euros.")]
    color: Color | None = None
    in_stock: bool = True
    tags: list[str] = []


class Update(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: int
    name: str | msgspec.UnsetType = msgspec.UNSET
    price: float | msgspec.UnsetType = msgspec.UNSET


class ById(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class List(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    filter: Annotated[Any, msgspec.Meta(description="Which of them.")] = None
    order: Literal["name", "price"] = "name"
    limit: int = 100
    output: str = ""


class Log:
    """A change log in a file: line n is position n."""

    def __init__(self) -> None:
        self._fields = Fields("things", frozenset(FIELDS), lambda name, value: value)

    @property
    def changes(self) -> Log:
        return self

    def contribute(self, runtime: Runtime) -> None:
        runtime.registry.add(*OPERATIONS)

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def has(self, topic: str) -> bool:
        return topic == "things"

    def topics(self) -> list[str]:
        return ["things"]

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        return parse(where, self._fields)

    def fields(self, topic: str) -> tuple[str, ...]:
        return FIELDS

    async def head(self, topic: str) -> LogHead:
        return LogHead(hashlib.sha256(str(HERE).encode()).digest(), len(lines()), 0)

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        found = enumerate(lines()[after : after + limit], after + 1)
        return [
            LoggedChange(pos, "things", line["key"], line["record"], line["old"], None, None, None, None, "")
            for pos, line in found
        ]

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        records: list[Any] = [record for record in things().values() if matches(where, record)]
        return Snapshot(await self.head(topic), records)

    async def changed(self) -> None:
        await asyncio.sleep(0.02)


def lines() -> list[dict[str, Any]]:
    if not LOG.exists():
        return []
    complete = LOG.read_bytes().rpartition(b"\n")[0]
    return [msgspec.json.decode(line) for line in complete.splitlines()]


def things() -> dict[int, dict[str, Any]]:
    """What the log amounts to."""
    found: dict[int, dict[str, Any]] = {}
    for line in lines():
        found.pop(line["key"], None)
        if line["record"] is not None:
            found[line["key"]] = line["record"]
    return found


def log(key: int, old: object, record: object) -> None:
    with LOG.open("ab") as file:
        file.write(msgspec.json.encode({"key": key, "old": old, "record": record}) + b"\n")


def known(key: int) -> dict[str, Any]:
    try:
        return things()[key]
    except KeyError:
        raise NotFound(f"things: there is no record {key}.") from None


async def create(call: Call, arguments: Create) -> object:
    key = 1 + max((line["key"] for line in lines()), default=0)
    record = {"id": key, **msgspec.to_builtins(arguments)}
    log(key, None, record)
    return record


async def get(call: Call, arguments: ById) -> object:
    return known(arguments.id)


async def update(call: Call, arguments: Update) -> object:
    old = known(arguments.id)
    record = {**old, **msgspec.to_builtins(arguments)}
    log(arguments.id, old, record)
    return record


async def delete(call: Call, arguments: ById) -> object:
    log(arguments.id, known(arguments.id), None)
    return {"deleted": 1, "id": arguments.id}


async def list_things(call: Call, arguments: List) -> object:
    where = log_of_things.parse("things", arguments.filter, call.session)
    found = sorted((r for r in things().values() if matches(where, r)), key=lambda r: r[arguments.order])
    shown = found[: arguments.limit]
    return {"records": shown, "count": len(shown), "next": None, "said": arguments.output or None}


def thing(verb: str, handler: Any, struct: type[msgspec.Struct], effect: Effect, **more: Any) -> Operation:
    return Operation(
        name=f"things.{verb}",
        handler=handler,
        input=struct,
        effect=effect,
        summary=f"{verb.capitalize()} a thing.",
        resource="things",
        verb=verb,
        node=f"Thing{verb.capitalize()}Node",
        **more,
    )


OPERATIONS = (
    thing("create", create, Create, Effect.CREATE),
    thing("get", get, ById, Effect.READ, on_record=True),
    thing("update", update, Update, Effect.UPDATE, on_record=True),
    thing("delete", delete, ById, Effect.DELETE, on_record=True),
    thing("list", list_things, List, Effect.READ),
    # Without a log, and so without a topic.
    Operation("parts.list", list_things, List, effect=Effect.READ, resource="parts", verb="list"),
    Operation("secret", get, ById, internal=True),
)

log_of_things = Log()
app = Nexus(log_of_things)


@app.operation
async def restock(call: Call, thing_id: int, amount: int = 10) -> dict[str, Any]:
    """Bring new ones."""
    return {"thing_id": thing_id, "amount": amount}


@app.operation
async def explode(call: Call) -> None:
    raise RuntimeError("boom\x1b[31m\nand more")


@app.operation
async def wait(call: Call) -> None:
    (HERE / "waiting").touch()
    await asyncio.sleep(60)


@app.operation
async def rows(call: Call, count: int) -> list[dict[str, Any]]:
    return [{"n": n, "text": "x" * 100} for n in range(count)]
