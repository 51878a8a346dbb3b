"""Every type of field: what is written is what is read, found, sorted and published, on every database."""

from __future__ import annotations

import asyncio
import datetime
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any, Literal, Optional

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, InvalidArguments, NexusError
from nexus.schema import json_schema


class Colour(enum.Enum):
    RED = "red"
    ODD = 'it\'s \\ 100% "odd" 😀'


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 2**62


def declare(db: DataFlow) -> None:
    @db.model
    class Sample:
        moment: Optional[datetime.datetime]  # noqa: UP045  as the reference writes it
        day: datetime.date | None
        clock: datetime.time | None
        amount: Decimal | None
        token: uuid.UUID | None
        blob: bytes | None
        colour: Colour | None
        level: Level | None
        size: Literal["s", "m", "l"] | None
        step: Literal[1, 2, None]
        days: list[datetime.date] | None
        prices: dict[str, Decimal] | None
        by_number: dict[int, str] | None
        anything: dict[str, Any] | None


TEXTS = st.text(alphabet="aÄ%'\"\\ 0😀\n", max_size=4)
DECIMALS = st.one_of(
    st.decimals(-(10**26) + 1, 10**26 - 1, places=12, allow_nan=False, allow_infinity=False),
    st.sampled_from([Decimal(text) for text in ("0", "-0.0", "0.1", "1.10", "1E+25", "-1E-12", "99.99")]),
    st.just(Decimal("9" * 26 + "." + "9" * 12)),
    st.just(Decimal("-" + "9" * 26 + "." + "9" * 12)),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS | st.sampled_from([0.1, -2.5, 1e-9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ZONES = st.sampled_from([None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=-7, minutes=-30))])
MOMENTS = st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=ZONES)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "moment": MOMENTS,
    "day": st.dates(),
    "clock": st.times(),
    "amount": DECIMALS,
    "token": st.uuids(),
    "blob": st.binary(max_size=8) | st.just(bytes(range(256))),
    "colour": st.sampled_from(Colour),
    "level": st.sampled_from(Level),
    "size": st.sampled_from(["s", "m", "l"]),
    "step": st.sampled_from([1, 2]),
    "days": st.lists(st.dates(), max_size=3),
    "prices": st.dictionaries(TEXTS, st.sampled_from([Decimal("1.50"), Decimal("1E+3")]), max_size=3),
    "by_number": st.dictionaries(st.integers(-5, 2**40), TEXTS, max_size=3),
    "anything": st.dictionaries(TEXTS, JSON, max_size=3),
}
RECORDS = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})


def stored(value: Any) -> Any:
    """What reading gives for what was written."""
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    return value.value if isinstance(value, enum.Enum) else value


class Program:
    """An application on one database, driven by a test that is not asynchronous itself."""

    def __init__(self, url: str) -> None:
        self.db = DataFlow(url)
        declare(self.db)
        self.app = Nexus(self.db)

    async def invoke(self, name: str, channel: str = "test", **arguments: object) -> Any:
        return await self.app.runtime.invoke(name, arguments, LOCAL, channel=channel)


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def program(loop: asyncio.Runner, database: str) -> Iterator[Program]:
    made = Program(database)
    running = made.app.running()
    loop.run(running.__aenter__())
    yield made
    loop.run(running.__aexit__(None, None, None))


@pytest.fixture
async def samples(database: str) -> AsyncIterator[Program]:
    made = Program(database)
    async with made.app.running():
        yield made


def test_what_is_written_is_what_is_read(program: Program, loop: asyncio.Runner) -> None:
    async def check(record: dict[str, Any]) -> None:
        made = await program.invoke("samples.create", **record)
        for found in (made, await program.invoke("samples.get", id=made.id)):
            for name, value in record.items():
                got = getattr(found, name)
                assert got == stored(value), name
                assert type(got) is type(stored(value)), name
        same = await program.invoke("samples.update", id=made.id, fields=record)
        assert msgspec.json.encode(same.amount) == msgspec.json.encode(made.amount)
        assert same.amount is None or "E+" not in str(same.amount)

    @settings(max_examples=40)
    @given(record=RECORDS)
    def story(record: dict[str, Any]) -> None:
        loop.run(check(record))

    story()


def test_what_goes_through_json_is_the_same(program: Program, loop: asyncio.Runner) -> None:
    async def check(record: dict[str, Any]) -> None:
        made = await program.invoke("samples.create", **record)
        given = {name: value for name, value in msgspec.structs.asdict(made).items() if name in record}
        operation = program.app.registry["samples.create"]
        again = await program.app.runtime.invoke(
            operation.name, msgspec.json.encode(given), LOCAL, channel="rest"
        )
        for name in record:
            assert getattr(again, name) == getattr(made, name), name
        for name, value in given.items():
            if value is not None and name not in ("days", "prices", "by_number", "anything"):
                text = value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
                meant = operation.arguments.from_text(name, text)
                assert program.db.models["Sample"].fields[name].check("samples", meant) == value

    @settings(max_examples=25)
    @given(record=RECORDS)
    def story(record: dict[str, Any]) -> None:
        loop.run(check(record))

    story()


@pytest.mark.feed
def test_what_is_written_is_what_is_published(program: Program, loop: asyncio.Runner) -> None:
    async def check(records: list[dict[str, Any]]) -> None:
        async with program.app.feed.subscribe(LOCAL, "samples") as followed:
            changes = aiter(followed)
            for record in records:
                made = msgspec.structs.asdict(await program.invoke("samples.create", **record))
                assert (await anext(changes)).record == made
                changed = await program.invoke("samples.update", id=made["id"], day=None)
                change = await anext(changes)
                assert (change.old, change.record) == (made, msgspec.structs.asdict(changed))
                await program.invoke("samples.delete", id=made["id"])
                await anext(changes)

    @settings(max_examples=25)
    @given(records=st.lists(RECORDS, min_size=1, max_size=2))
    def story(records: list[dict[str, Any]]) -> None:
        loop.run(check(records))

    story()


SORTED = ("moment", "day", "clock", "amount", "token", "colour", "level", "size", "step")


def test_order_and_equality_are_those_of_the_values(program: Program, loop: asyncio.Runner) -> None:
    async def check(name: str, values: list[Any], wanted: Any) -> None:
        listed = await program.invoke("samples.list", limit=1000)
        for old in listed.records:
            await program.invoke("samples.delete", id=old.id)
        for value in values:
            await program.invoke("samples.create", **{name: value})
        found = await program.invoke("samples.list", order_by=name, limit=1000)
        expected = sorted(map(stored, values))
        assert [getattr(record, name) for record in found.records] == expected
        same = await program.invoke("samples.list", filter={name: {"$in": [wanted]}})
        assert [getattr(record, name) for record in same.records] == [
            v for v in expected if v == stored(wanted)
        ]
        over = await program.invoke("samples.count", filter={name: {"$gt": wanted}})
        assert over.count == sum(value > stored(wanted) for value in expected)

    @settings(max_examples=30)
    @given(data=st.data(), name=st.sampled_from(SORTED))
    def story(data: st.DataObject, name: str) -> None:
        values = data.draw(st.lists(VALUES[name], min_size=1, max_size=6))
        loop.run(check(name, values, data.draw(st.sampled_from(values) | VALUES[name])))

    story()


def test_decimal_arithmetic_is_exact_and_rounds_as_one(program: Program, loop: asyncio.Runner) -> None:
    async def check(start: Decimal | None, op: str, operand: Decimal) -> None:
        made = await program.invoke("samples.create", amount=start)
        with localcontext(prec=200, rounding=ROUND_HALF_UP):
            exact = (start or Decimal(0)) + operand if op == "$inc" else (start or Decimal(0)) * operand
            expected = exact.quantize(Decimal(1).scaleb(-12))
            too_large = abs(expected) >= 10**26
        try:
            changed = await program.invoke("samples.update", id=made.id, fields={op: {"amount": operand}})
        except Conflict:
            assert too_large
        else:
            assert not too_large
            assert changed.amount == expected

    @settings(max_examples=60)
    @given(start=st.none() | DECIMALS, op=st.sampled_from(["$inc", "$mul"]), operand=DECIMALS)
    def story(start: Decimal | None, op: str, operand: Decimal) -> None:
        loop.run(check(start, op, operand))

    story()


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


async def test_json_of_as_many_levels_as_are_taken(samples: Program) -> None:
    made = await samples.invoke("samples.create", anything=nested(30))
    assert made.anything == nested(30)
    found = await samples.invoke("samples.list", filter={"anything": nested(30)})
    assert [record.id for record in found.records] == [made.id]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("amount", "NaN", "finite"),
        ("amount", "Infinity", "finite"),
        ("amount", "1E+26", "26 digits before the point"),
        ("amount", "1E+999999999", "26 digits before the point"),
        ("amount", "0.0000000000001", "12 digits after the point"),
        ("amount", "1E-999999999", "12 digits after the point"),
        ("amount", "ten", "decimal"),
        (
            "moment",
            datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
            "years",
        ),
        ("moment", "yesterday", "datetime"),
        ("clock", "12:00:00Z", "timezone"),
        ("clock", "25:00:00", "time"),
        ("token", "not-a-uuid", "UUID"),
        ("blob", "no base64!", "base64"),
        ("colour", "green", "green"),
        ("level", 0, "0"),
        ("size", "xl", "xl"),
        ("step", True, "int"),
        ("days", ["2024-02-30"], "date"),
        ("prices", {"a": "b"}, "decimal"),
        ("anything", {"a": [float("nan")]}, "finite"),
        ("anything", {"a": 2**64}, "64 bits"),
        ("anything", {"a\0": 1}, "NUL"),
        ("anything", {"a": "\ud800"}, "Unicode"),
        ("anything", nested(31), "30 levels"),
        ("anything", nested(5000), "30 levels"),
    ],
)
async def test_what_a_field_cannot_hold_is_refused(
    samples: Program, name: str, value: object, named: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"(?i){named}") as caught:
        await samples.invoke("samples.create", **{name: value})
    assert caught.value.code == "DF-102"
    assert caught.value.problems[0].pointer.startswith(f"/{name}")
    assert (await samples.invoke("samples.count")).count == 0


async def test_arithmetic_on_a_choice_is_refused(samples: Program) -> None:
    made = await samples.invoke("samples.create", level=Level.LOW)
    with pytest.raises(NexusError, match="takes a number"):
        await samples.invoke("samples.update", id=made.id, fields={"level": {"$inc": 1}})


def test_the_schema_says_what_each_type_takes() -> None:
    db = DataFlow(":memory:")
    declare(db)
    app = Nexus(db)
    properties = json_schema(app.registry["samples.create"].input)["properties"]
    kinds = {name: part["anyOf"][0] for name, part in properties.items() if "anyOf" in part}
    assert kinds["amount"] == {"type": "string", "format": "decimal"}
    assert kinds["token"] == {"type": "string", "format": "uuid"}
    assert kinds["blob"]["contentEncoding"] == "base64"
    assert kinds["moment"]["format"] == "date-time"
    assert kinds["size"] == {"enum": ["l", "m", "s"]}
    assert "created_at" not in properties


async def test_keys_of_each_type(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Ticket:
        id: uuid.UUID
        title: str

    @db.model
    class Page:
        id: str
        title: str = ""

    app = Nexus(db)
    async with app.running():

        async def invoke(name: str, **arguments: object) -> Any:
            return await app.runtime.invoke(name, arguments, LOCAL, channel="test")

        made = [await invoke("tickets.create", title=str(number)) for number in range(5)]
        assert [ticket.id.version for ticket in made] == [7] * 5
        assert sorted(made, key=lambda ticket: ticket.id) == made
        given = uuid.UUID(int=1)
        assert (await invoke("tickets.create", id=str(given), title="x")).id == given
        assert (await invoke("tickets.get", id=given)).title == "x"
        assert (await invoke("tickets.update", id=given, title="y")).title == "y"
        listed = await invoke("tickets.list", order_by="id")
        assert [ticket.id for ticket in listed.records] == [given, *(ticket.id for ticket in made)]
        with pytest.raises(Conflict, match="same id"):
            await invoke("tickets.create", id=given, title="z")
        assert (await invoke("tickets.delete", id=given)).id == given
        with pytest.raises(InvalidArguments, match="missing argument 'id'"):
            await invoke("pages.create")
        assert (await invoke("pages.create", id="ä" * 255)).id == "ä" * 255
        with pytest.raises(InvalidArguments, match="length <= 255"):
            await invoke("pages.create", id="ä" * 256)
