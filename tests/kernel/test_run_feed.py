"""The topic `runs`, in an application without any database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from nexus import LOCAL, Call, Nexus, Operation
from tests.support.runs import ANN, BOB, Given, Work, run


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def app(work: Work) -> AsyncIterator[Nexus]:
    made = Nexus(channels=[])
    made.operation(work.operation)
    async with made.running():
        yield made


async def test_the_feed_tells_of_start_nodes_and_end(app: Nexus, work: Work) -> None:
    async with app.feed.subscribe(LOCAL, "runs", snapshot=True) as following:
        assert following.records == []
        changes = aiter(following)
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.05)
        await run(app, "work", ANN, text="x")
        seen = [await asyncio.wait_for(pending, 2)]
        while seen[-1].record["state"] == "running":
            seen.append(await asyncio.wait_for(anext(changes), 2))
    told = [(c.event, c.record["state"], c.record["nodes"].get("first", {}).get("status")) for c in seen]
    assert told == [
        ("enter", "running", None),
        ("update", "running", "running"),
        ("update", "running", "done"),
        ("update", "done", "done"),
    ]
    assert {change.actor for change in seen} == {"ann"}
    assert "inputs" not in seen[0].record


async def test_the_feed_shows_each_its_own(app: Nexus) -> None:
    async with app.feed.subscribe(BOB, "runs", filter={"state": "done"}) as following:
        changes = aiter(following)
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.05)
        await run(app, "work", ANN)
        mine = await run(app, "work", BOB)
        change = await asyncio.wait_for(pending, 2)
    assert (change.event, change.key) == ("enter", mine["run"])


async def test_a_snapshot_and_what_follows_leave_no_gap(app: Nexus, work: Work) -> None:
    begun = await run(app, "work", seconds=0.3, background=True)
    async with app.feed.subscribe(LOCAL, "runs", snapshot=True) as following:
        assert following.records is not None
        assert [(r["id"], r["state"]) for r in following.records] == [(begun.run_id, "running")]
        async with asyncio.timeout(5):
            async for change in following:
                if change.record is not None and change.record["state"] == "done":
                    break
    assert change.key == begun.run_id


async def test_many_nodes_are_told_of_together(app: Nexus) -> None:
    async def many(call: Call, given: Given) -> None:
        assert call.progress is not None
        for number in range(2000):
            call.progress.node_started(f"n{number}")
            call.progress.node_ended(f"n{number}", "done", 0.0)
            await asyncio.sleep(0)

    app.operation(Operation("many", many, Given, recorded=True, digest=lambda: "1"))
    async with app.feed.subscribe(LOCAL, "runs") as following:
        changes = aiter(following)
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.05)
        await run(app, "many")
        count, change = 1, await pending
        async with asyncio.timeout(5):
            while change.record["state"] == "running":
                change = await anext(changes)
                count += 1
    assert 100 < count < 300
