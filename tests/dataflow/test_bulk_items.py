"""Many records of which some are wrong: all or nothing, or each by itself; alike on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.demands import Demands
from nexus.errors import Conflict, InvalidArguments, NexusError, NotFound, TooManyAffected
from nexus_workflows import WorkflowBuilder
from tests.conftest import Invoke


@pytest.fixture
async def app(database: str) -> AsyncIterator[Nexus]:
    db = DataFlow(database)

    @db.model
    class Seat:
        __indexes__ = [{"fields": ["place"], "unique": True}]
        place: str
        price: int = 0

    made = Nexus(db)
    async with made.running():
        yield made


@pytest.fixture
def run(app: Nexus) -> Invoke:
    async def invoke(name: str, /, demands: Demands | None = None, **arguments: Any) -> Any:
        return await app.runtime.invoke(f"seats.{name}", arguments, LOCAL, channel="test", demands=demands)

    return invoke


async def places(run: Invoke) -> list[str]:
    return [record.place for record in (await run("list", order_by="id", limit=1000)).records]


def seats(*names: str) -> list[dict[str, Any]]:
    return [{"place": name} for name in names]


async def test_those_that_are_right_are_kept(run: Invoke) -> None:
    await run("create", place="b")
    rows: list[dict[str, Any]] = [*seats("a", "b", "c"), {"plcae": "d"}, {"place": "e", "id": 1}, *seats("f")]
    done = await run("bulk_create", data=rows, on_item_error="continue", return_ids=True)
    assert (done.success_count, done.failure_count, done.records_processed, done.created) == (3, 3, 6, 3)
    assert await places(run) == ["b", "a", "c", "f"]
    assert [identity is None for identity in done.ids] == [False, True, False, True, True, False]
    assert [(f.index, f.error["code"]) for f in done.failures] == [
        (1, "NX-409"),
        (3, "DF-106"),
        (4, "NX-409"),
    ]
    assert done.failures[2].id == 1
    assert {each["pointer"] for each in done.failures[1].error["errors"]} == {
        "/data/3/plcae",
        "/data/3/place",
    }
    assert done.failures[0].error["errors"][0]["pointer"] == "/data/1"


async def test_nothing_wrong_is_reported_as_such(run: Invoke) -> None:
    done = await run("bulk_create", data=seats("a", "b"), on_item_error="continue")
    assert (done.success_count, done.failure_count, done.failures) == (2, 0, [])
    none = await run("bulk_create", data=[], on_item_error="continue", return_ids=True)
    assert (none.success_count, none.failures, none.ids) == (0, [], [])
    plain = msgspec.to_builtins(await run("bulk_create", data=seats("c")))
    assert "failures" not in plain


async def test_of_many_the_few(run: Invoke) -> None:
    wrong = {7, 8, 250, 499}
    rows = [{"place": "same" if number in wrong else f"p{number}"} for number in range(500)]
    await run("create", place="same")
    done = await run("bulk_create", data=rows, on_item_error="continue", batch_size=100)
    assert ({f.index for f in done.failures}, done.created) == (wrong, 496)
    assert len(await places(run)) == 497


async def test_everything_wrong_keeps_nothing(run: Invoke) -> None:
    await run("create", place="a")
    done = await run("bulk_create", data=seats("a", "a", "a"), on_item_error="continue")
    assert (done.success_count, [f.index for f in done.failures]) == (0, [0, 1, 2])


async def test_all_or_nothing_names_the_first_that_is_wrong(run: Invoke) -> None:
    await run("create", place="x")
    for rows, index in (
        (seats("a", "b", "x", "c", "x"), 2),
        (seats("x"), 0),
        (seats("a", "b", "c", "a"), 3),
    ):
        with pytest.raises(Conflict) as refused:
            await run("bulk_create", data=rows)
        assert [p.pointer for p in refused.value.problems] == [f"/data/{index}"]
        assert await places(run) == ["x"]


async def test_upserts(run: Invoke) -> None:
    await run("bulk_create", data=[{"place": "a", "price": 1}, {"place": "b", "price": 1}])
    rows: list[dict[str, Any]] = [
        {"id": 1, "price": 5},
        {"id": 2, "place": "a"},  # another has that place
        {"place": "c", "price": "x"},
        {"place": "c"},
        {"id": 1, "price": 6},
    ]
    done = await run("bulk_upsert", data=rows, on_item_error="continue", return_ids=True)
    assert [(f.index, f.error["code"]) for f in done.failures] == [(1, "NX-409"), (2, "DF-102")]
    assert (done.success_count, done.created, done.updated) == (3, 1, 2)
    assert [identity for identity in done.ids if identity is not None][0::2] == [1, 1]
    assert (await run("get", id=1)).price == 6
    assert await places(run) == ["a", "b", "c"]
    with pytest.raises(Conflict) as refused:
        await run("bulk_upsert", data=rows[:2])
    assert refused.value.problems[0].pointer == "/data/1"


async def test_updates(run: Invoke) -> None:
    await run("bulk_create", data=seats("a", "b", "c"))
    rows: list[dict[str, Any]] = [
        {"id": 1, "fields": 1},
        {"id": 2, "$inc": {"price": 3}},
        {"id": 9, "price": 1},
        {"id": 3, "place": "a"},
        {"id": 3},
        {"price": 7},
        {"id": 3, "price": 8},
    ]
    done = await run("bulk_update", data=rows, on_item_error="continue", return_ids=True)
    assert [(f.index, f.error["code"]) for f in done.failures] == [
        (0, "DF-106"),
        (2, "DF-404"),
        (3, "NX-409"),
        (4, "DF-102"),
        (5, "DF-101"),
    ]
    assert [f.error["errors"][0]["pointer"].split("/")[2] for f in done.failures] == list("02345")
    assert (done.success_count, done.failure_count, done.records_processed) == (2, 5, 7)
    assert done.ids == [None, 2, None, None, None, None, 3]
    assert [record.price for record in (await run("list", order_by="id")).records] == [0, 3, 8]
    with pytest.raises(NotFound) as missing:
        await run("bulk_update", data=[{"id": 1, "price": 1}, {"id": 9, "price": 1}])
    assert missing.value.problems[0].pointer == "/data/1"
    with pytest.raises(InvalidArguments, match="list of records"):
        await run("bulk_update", filter={}, update={"price": 1}, on_item_error="continue")


async def test_what_is_not_the_fault_of_an_item_ends_all(run: Invoke) -> None:
    await run("create", place="x")
    with pytest.raises(TooManyAffected):
        await run(
            "bulk_create", Demands(max_affected=2), data=seats("a", "b", "c", "x"), on_item_error="continue"
        )
    assert await places(run) == ["x"]
    kept = await run(
        "bulk_create", Demands(max_affected=3), data=seats("a", "x", "b", "c"), on_item_error="continue"
    )
    assert (kept.success_count, len(kept.failures)) == (3, 1)
    dry = await run("bulk_create", Demands(dry_run=True), data=seats("d", "x"), on_item_error="continue")
    assert (dry.success_count, dry.failures[0].index) == (1, 1)
    assert await places(run) == ["x", "a", "b", "c"]


async def test_in_a_workflow(app: Nexus, run: Invoke) -> None:
    await run("create", place="x")
    for name, how in (("careful", "continue"), ("strict", "fail")):
        flow = WorkflowBuilder("Make many, and one more.")
        flow.add_node("SeatBulkCreateNode", "many", {"data": seats("a", "x"), "on_item_error": how})
        flow.add_node("SeatCreateNode", "more", {"place": "z"})
        app.register(name, flow)
    with pytest.raises(NexusError) as refused:
        await app.runtime.invoke("strict", {}, LOCAL, channel="test")
    assert refused.value.problems[0].pointer == "/data/1"
    assert await places(run) == ["x"]
    await app.runtime.invoke("careful", {}, LOCAL, channel="test")
    assert sorted(await places(run)) == ["a", "x", "z"]
