"""Rows that are alike are read and written as columns: what comes of it is the same as one by one."""

from __future__ import annotations

import asyncio
import datetime
import enum
import tempfile
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.assignments import Assignment, parse_assignments
from dataflow.bulk import Bulk
from dataflow.columns import ColumnReader
from dataflow.nodes.at_once import AtOnce
from dataflow.nodes.rows import new_row_reader
from nexus import LOCAL, Nexus
from nexus.errors import NexusError, NotFound
from tests.conftest import Invoke
from tests.support.databases import empty_database
from tests.support.filters import ENGINES


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


TEXTS = st.text(alphabet="aAé%_'\"\\ 0\n😀", max_size=4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS,
    "price": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
    "stock": st.integers(-(2**63), 2**63 - 1),
    "active": st.booleans(),
    "note": st.none() | TEXTS,
    "at": st.none() | st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
    "day": st.none() | st.dates() | st.just("2026-11-25"),
    "clock": st.none() | st.times(),
    "amount": st.none() | st.decimals(-(10**9), 10**9, places=12),
    "token": st.none() | st.uuids(),
    "blob": st.none() | st.binary(max_size=4) | st.just(bytes(range(256))),
    "colour": st.none() | st.sampled_from(["red", Colour.GREEN]),
    "tags": st.lists(TEXTS, max_size=2),
    "meta": st.none() | st.dictionaries(TEXTS, st.integers(0, 3) | st.none(), max_size=2),
}
ODD: list[Any] = [
    None, "", "a\0", "\ud800", float("nan"), float("inf"), 3.0, 2**63, True, 7, "7", Decimal("NaN"), [], {},
    {"$inc": 1}, {"$set": "b"}, {"a": {"$inc": 1}}, {"a": "\0"}, msgspec.UNSET,
]  # fmt: skip
NAMES = st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=5)


@st.composite
def rows(draw: st.DrawFn, *, keyed: bool) -> list[dict[str, Any]]:
    """Rows that mostly are alike, and mostly right."""
    names = [*(["name"] if draw(st.integers(0, 5)) else []), *draw(NAMES)]
    kinds = {name: VALUES[name] for name in names}
    if keyed:
        kinds["id"] = st.integers(1, 6)
    made = draw(st.lists(st.fixed_dictionaries(kinds), min_size=1, max_size=6, unique_by=repr))
    if keyed and draw(st.integers(0, 3)):
        for place, row in enumerate(made, draw(st.integers(1, 3))):
            row["id"] = place
    if not draw(st.integers(0, 2)):
        row = draw(st.sampled_from(made))
        row[draw(st.sampled_from([*kinds, "nmae", "stock"]))] = draw(st.sampled_from(ODD))
    return made


class Kept:
    """A model of all kinds in one event loop that lasts."""

    def __init__(self, url: str) -> None:
        db = DataFlow(url)

        @db.model
        class Kind:
            __dataflow__ = {"versioned": True}
            name: str
            price: float = 0.5
            stock: int = 0
            active: bool = True
            note: str | None = None
            at: datetime.datetime | None = None
            day: datetime.date | None = None
            clock: datetime.time | None = None
            amount: Decimal | None = Decimal("1.5")
            token: uuid.UUID | None = None
            blob: bytes | None = None
            colour: Colour | None = Colour.RED
            tags: list[str] = ["new"]
            meta: dict[str, Any] | None = None

        self.db = db
        self.app = Nexus(db)
        self.runner = asyncio.Runner()

    async def run(self, verb: str, **arguments: Any) -> Any:
        return await self.app.runtime.invoke(f"kinds.{verb}", arguments, LOCAL, channel="test")

    async def records(self) -> list[Any]:
        return list((await self.run("list", order_by="id")).records)

    async def empty(self) -> None:
        await self.run("bulk_delete", filter={})

    async def outcome(
        self, verb: str, data: list[dict[str, Any]], **more: Any
    ) -> tuple[tuple[Any, ...], list[Any]]:
        """What is said of the rows, and the ids."""
        try:
            done = await self.run(f"bulk_{verb}", data=data, return_ids=True, **more)
        except NexusError as failure:
            said = [(each.code, each.pointer, each.detail) for each in failure.problems]
            return (failure.code, failure.detail, said), []
        failures = [] if done.failures is msgspec.UNSET else msgspec.to_builtins(done.failures)
        counts = (done.success_count, done.failure_count, done.created, done.updated, done.skipped)
        return (*counts, failures), done.ids


@pytest.fixture(scope="module", params=ENGINES)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    with tempfile.TemporaryDirectory() as folder:
        made = Kept(empty_database(request.param, Path(folder)))
        with made.runner:
            running = made.app.running()
            made.runner.run(running.__aenter__())
            try:
                yield made
            finally:
                made.runner.run(running.__aexit__(None, None, None))


def one_by_one(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with something that is dropped, and for which each of them is looked at."""
    return [{**row, "created_at": None} for row in data]


def values(records: list[Any], *, but: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """What they hold, and of their times whether they were changed."""
    left_out = {"created_at", "updated_at", *but}
    return [
        {name: value for name, value in msgspec.structs.asdict(record).items() if name not in left_out}
        | {"changed": record.updated_at > record.created_at}
        for record in records
    ]


@pytest.mark.parametrize("name", VALUES)
def test_columns_take_nothing_that_a_row_may_not_have(name: str) -> None:
    db = Kept("sqlite:///:memory:").db
    model = db.models["Kind"]
    columns, whole = ColumnReader(model), new_row_reader(model, "bulk_create", "data")
    at_once = AtOnce(model, Bulk(db.database), columns, ("id",), size=9, ids=False)

    @settings(max_examples=60)
    @given(st.sampled_from(ODD) | VALUES[name], st.sampled_from(ODD) | VALUES[name])
    def check(one: object, other: object) -> None:
        data = [{"id": key, "name": "a", name: value} for key, value in enumerate((one, other))]
        read = columns.read(data)
        if read is not None and (completed := columns.completed(read)) is not None:
            assert [completed.one(place) for place in (0, 1)] == [whole.values(0, row) for row in data]
        changes = at_once.changes([{"id": row["id"], name: row[name]} for row in data], {})
        if changes is not None:
            for (_, row), given_row in zip(changes, data, strict=True):
                assert parse_assignments(model, {name: given_row[name]}) == (
                    Assignment(name, "set", row[name]),
                )

    check()


@settings(max_examples=40)
@given(data=rows(keyed=False), how=st.sampled_from(["fail", "continue"]))
def test_what_is_created(kept: Kept, data: list[dict[str, Any]], how: str) -> None:
    async def compare() -> None:
        seen = []
        for given_rows in (data, one_by_one(data)):
            await kept.empty()
            said, ids = await kept.outcome("create", given_rows, on_item_error=how)
            records = await kept.records()
            assert [key for key in ids if key is not None] == [record.id for record in records]
            seen.append((said, [key is None for key in ids], values(records, but=("id",))))
        assert seen[0] == seen[1]
        if how == "fail" and seen[0][1]:
            await kept.empty()
            for row in data:
                await kept.run("create", **row)
            assert values(await kept.records(), but=("id",)) == seen[0][2]

    kept.runner.run(compare())


@settings(max_examples=60)
@given(
    data=rows(keyed=True),
    verb=st.sampled_from(["update", "upsert"]),
    more=st.sampled_from(
        [{}, {"on_item_error": "continue"}, {"match_fields": ["name"]}, {"batch_size": 2}, {"stock": 7}]
    ),
)
def test_what_is_changed(kept: Kept, data: list[dict[str, Any]], verb: str, more: dict[str, Any]) -> None:
    async def compare() -> None:
        seen = []
        for given_rows in (data, one_by_one(data)):
            await kept.empty()
            first = [{"id": key, "name": name, "note": "old"} for key, name in enumerate(["a", "", "A"], 1)]
            await kept.run("bulk_create", data=first)
            said = await kept.outcome(verb, given_rows, **more)
            seen.append((said, values(await kept.records())))
        assert seen[0] == seen[1]

    kept.runner.run(compare())


async def test_a_record_that_is_not_there_is_named(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": str(n)} for n in range(30)])
    rows = [{"id": key, "stock": key} for key in range(30, 0, -1)]
    assert (await invoke("products.bulk_update", data=rows)).updated == 30
    assert [r.stock for r in (await invoke("products.list", order_by="id")).records] == list(range(1, 31))
    rows[7]["id"], rows[9]["id"] = 99, 98
    with pytest.raises(NotFound, match=r"the id 99 \(data 7\)") as missing:
        await invoke("products.bulk_update", data=[{**row, "stock": 0} for row in rows])
    assert missing.value.problems[0].pointer == "/data/7"
    assert (await invoke("products.count", filter={"stock": 0})).count == 0


async def test_long_and_short_texts_stand_together(invoke: Invoke) -> None:
    texts = ["", "y", "é" * 70_000, "'\\", "z" * 1_500_000, "%s"]
    done = await invoke(
        "products.bulk_create", data=[{"name": t, "note": None} for t in texts], return_ids=True
    )
    await invoke(
        "products.bulk_update",
        data=[{"id": key, "note": text} for key, text in zip(done.ids, texts, strict=True)],
    )
    listed = (await invoke("products.list", order_by="id")).records
    assert [(r.name, r.note) for r in listed] == [(text, text) for text in texts]
    await invoke("products.bulk_upsert", data=[{"id": k, "name": t} for k, t in enumerate(texts[::-1], 3)])
    listed = (await invoke("products.list", order_by="id")).records
    assert [(r.name, r.note) for r in listed[2:]] == [
        *zip(texts[::-1], texts[2:], strict=False),
        *((text, None) for text in texts[1::-1]),
    ]
