"""The feed: in order, without gaps, without what was rolled back, and never at another's expense."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Change, Feed, Nexus, Session
from nexus.errors import CursorExpired, Forbidden, InvalidCursor, SlowConsumer, TooLarge, UnknownTopic
from nexus.feed import FeedClosed
from tests.conftest import Invoke

pytestmark = pytest.mark.feed


async def take(followed: Any, count: int) -> list[Change]:
    changes = aiter(followed)
    async with asyncio.timeout(10):
        return [await anext(changes) for _ in range(count)]


async def test_a_query_is_entered_changed_and_left(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products", filter={"stock": {"$lt": 3}}) as followed:
        await invoke("products.create", name="many", stock=9)
        await invoke("products.create", name="few", stock=1)
        await invoke("products.update", id=2, stock=2)
        await invoke("products.update", id=2, stock=8)
        await invoke("products.update", id=1, stock=0)
        await invoke("products.delete", id=1)
        seen = await take(followed, 5)
    assert [(c.event, c.key) for c in seen] == [
        ("enter", 2),
        ("update", 2),
        ("leave", 2),
        ("enter", 1),
        ("leave", 1),
    ]
    assert [c.pos for c in seen] == [2, 3, 4, 5, 6]
    assert [c.prev for c in seen] == [0, 2, 3, 4, 5]
    assert seen[1].old is not None
    assert seen[1].record is not None
    assert (seen[1].old["stock"], seen[1].record["stock"]) == (1, 2)
    assert seen[2].record is None
    assert seen[3].old is None


async def test_many_who_follow_are_each_told_their_own(app: Nexus, invoke: Invoke) -> None:
    """What is alike for some is made once; queries and places differ all the same."""
    few, many = {"stock": {"$lt": 3}}, {"stock": {"$gte": 3}}
    async with contextlib.AsyncExitStack() as stack:

        async def follow(filter: dict[str, Any] | None) -> tuple[Any, asyncio.Task[list[Change]]]:
            followed = await stack.enter_async_context(app.feed.subscribe(LOCAL, "products", filter=filter))
            return followed, asyncio.create_task(take(followed, 2))

        early = [await follow(filter) for filter in (few, many, few, None, many)]
        await asyncio.sleep(0.05)
        await invoke("products.create", name="x", stock=1)
        await invoke("products.create", name="y", stock=7)
        late = [await follow(filter) for filter in (few, None)]
        await asyncio.sleep(0.05)
        await invoke("products.update", id=1, stock=9)
        await invoke("products.update", id=2, stock=2)
        told = [
            [(c.event, c.key, c.prev, c.pos, c.record is None) for c in await task]
            for _, task in [*early, *late]
        ]
    first_few = [("enter", 1, 0, 1, False), ("leave", 1, 1, 3, True)]
    first_many = [("enter", 2, 0, 2, False), ("enter", 1, 2, 3, False)]
    assert told[0] == told[2] == first_few
    assert told[1] == told[4] == first_many
    assert told[3] == [("enter", 1, 0, 1, False), ("enter", 2, 1, 2, False)]
    assert told[5] == [("leave", 1, 2, 3, True), ("enter", 2, 3, 4, False)]
    assert told[6] == [("update", 1, 2, 3, False), ("update", 2, 3, 4, False)]


async def test_a_snapshot_and_what_follows_have_no_gap(app: Nexus, invoke: Invoke) -> None:
    async def write() -> None:
        for number in range(200):
            await invoke("products.create", name=str(number))

    writing = asyncio.create_task(write())
    for _ in range(20):
        await asyncio.sleep(random.random() / 100)
        async with app.feed.subscribe(LOCAL, "products", snapshot=True) as followed:
            assert followed.records is not None
            known = [record["id"] for record in followed.records]
            for change in await take(followed, min(3, 200 - len(known))):
                known.append(change.key)
            assert known == list(range(1, len(known) + 1))
    await writing


async def test_iterating_is_enough(app: Nexus, invoke: Invoke) -> None:
    for number in range(3):
        await invoke("products.create", name=str(number), stock=number)
    seen: list[Change] = []
    async with asyncio.timeout(10):
        async for change in app.feed.subscribe(
            LOCAL, "products", filter={"stock": {"$gt": 0}}, snapshot=True
        ):
            seen.append(change)
            if len(seen) == 2:
                await invoke("products.update", id=1, stock=5)
            if len(seen) == 3:
                break
    assert [(c.event, c.key, c.pos, c.prev) for c in seen] == [
        ("enter", 2, 3, 3),
        ("enter", 3, 3, 3),
        ("enter", 1, 4, 3),
    ]
    async with app.feed.subscribe(
        LOCAL, "products", filter={"stock": {"$gt": 0}}, since=seen[1].cursor
    ) as on:
        assert (await take(on, 1))[0].key == 1


async def test_resuming_is_exact(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products") as followed:
        start = followed.cursor
        for number in range(1200):  # more than a page of the log
            await invoke("products.create", name=str(number))
        seen = await take(followed, 10)
    async with app.feed.subscribe(LOCAL, "products", since=seen[-1].cursor) as followed:
        rest = await take(followed, 1190)
    async with app.feed.subscribe(LOCAL, "products", since=start) as followed:
        whole = await take(followed, 1200)
    assert [c.key for c in seen + rest] == [c.key for c in whole] == list(range(1, 1201))
    assert [c.prev for c in whole] == [0, *range(1, 1200)]


async def test_a_cursor_survives_the_process(tmp_path: Path) -> None:
    def fresh() -> Nexus:
        db = DataFlow(f"sqlite:///{tmp_path / 'kept.db'}")

        @db.model
        class Product:
            name: str

        return Nexus(db)

    first = fresh()
    async with first.running():
        await first.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
        async with first.feed.subscribe(LOCAL, "products") as followed:
            cursor = followed.cursor
        await first.runtime.invoke("products.create", {"name": "b"}, LOCAL, channel="test")
    second = fresh()
    async with second.running(), second.feed.subscribe(LOCAL, "products", since=cursor) as followed:
        (change,) = await take(followed, 1)
    assert change.record is not None
    assert change.record["name"] == "b"


async def test_cursors_that_cannot_be_resumed_say_so(app: Nexus, db: DataFlow, invoke: Invoke) -> None:
    await invoke("products.create", name="a")
    async with app.feed.subscribe(LOCAL, "products") as followed:
        cursor = followed.cursor
    for forged in ("x", "", "AAAA", cursor[:-2], "é", "A" * 5000):
        with pytest.raises(InvalidCursor):
            async with app.feed.subscribe(LOCAL, "products", since=forged):
                pass
    with pytest.raises(CursorExpired, match="another topic or filter"):
        async with app.feed.subscribe(LOCAL, "products", filter={"stock": 1}, since=cursor):
            pass
    other = DataFlow(":memory:")
    other.model(type("Product", (), {"__annotations__": {"name": str}}))
    elsewhere = Nexus(other)
    async with elsewhere.running():
        with pytest.raises(CursorExpired, match="another database"):
            async with elsewhere.feed.subscribe(LOCAL, "products", since=cursor):
                pass


async def test_a_cursor_from_before_the_floor_has_expired(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'floor.db'}")
    db.model(type("Product", (), {"__annotations__": {"name": str}}))
    app = Nexus(db)
    async with app.running():
        async with app.feed.subscribe(LOCAL, "products") as followed:
            cursor = followed.cursor
        for _ in range(3):
            await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
        with sqlite3.connect(tmp_path / "floor.db") as other:
            other.execute("UPDATE dataflow_changes_head SET floor = 2")
            other.execute("DELETE FROM dataflow_changes WHERE seq <= 2")
        other.close()
        with pytest.raises(CursorExpired, match="no longer kept"):
            async with app.feed.subscribe(LOCAL, "products", since=cursor):
                pass


async def test_who_may_not_list_may_not_follow(app: Nexus) -> None:
    guest = Session(id="g", user="guest", scopes=frozenset({"products.create"}))
    with pytest.raises(Forbidden, match=r"products\.list"):
        app.feed.subscribe(guest, "products")
    with pytest.raises(UnknownTopic, match="Did you mean 'products'"):
        app.feed.subscribe(LOCAL, "product")


async def test_access_is_checked_again_at_each_delivery(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products") as followed:
        await invoke("products.create", name="seen")
        changes = aiter(followed)
        assert (await anext(changes)).key == 1
        await invoke("products.create", name="unseen")
        app.registry.remove("products.list")
        with pytest.raises(UnknownTopic):
            await anext(changes)


@pytest.mark.parametrize("behind", [30, 60])
async def test_a_slow_reader_catches_up_or_ends_and_hurts_nobody(
    app: Nexus, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    monkeypatch.setattr("nexus.feed.LAG", 40)
    app.feed._queue = 10
    async with (
        app.feed.subscribe(LOCAL, "products") as slow,
        app.feed.subscribe(LOCAL, "products") as quick,
    ):
        slow_changes, quick_changes = aiter(slow), aiter(quick)
        await invoke("products.create", name="first")
        assert (await anext(slow_changes)).key == (await anext(quick_changes)).key == 1
        for number in range(behind):
            await invoke("products.create", name=str(number))
            assert (await anext(quick_changes)).key == number + 2
        assert slow._queue.qsize() == 10
        rest = list(range(2, behind + 2))
        if behind < 40:
            seen = [await anext(slow_changes) for _ in rest]
            assert [change.key for change in seen] == rest
            assert [change.prev for change in seen] == list(range(1, behind + 1))
            await invoke("products.create", name="live again")
            assert (await anext(slow_changes)).key == (await anext(quick_changes)).key == behind + 2
            return
        with pytest.raises(SlowConsumer):
            await anext(slow_changes)
        cursor = slow.cursor
    async with app.feed.subscribe(LOCAL, "products", since=cursor) as resumed:
        assert [c.key for c in await take(resumed, behind)] == rest


async def test_closing_reaches_every_subscriber(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products") as followed:
        waiting = asyncio.ensure_future(anext(aiter(followed)))
        await asyncio.sleep(0.05)
        app.feed.close()
        with pytest.raises(FeedClosed):
            await asyncio.wait_for(waiting, 1)
        with pytest.raises(FeedClosed):
            async with app.feed.subscribe(LOCAL, "products") as late:
                await anext(aiter(late))


async def test_a_snapshot_has_a_limit(app: Nexus, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus.feed.SNAPSHOT_LIMIT", 3)
    for number in range(4):
        await invoke("products.create", name=str(number))
    with pytest.raises(TooLarge, match="more than 3 records"):
        async with app.feed.subscribe(LOCAL, "products", snapshot=True):
            pass
    async with app.feed.subscribe(LOCAL, "products", filter={"id": {"$gt": 1}}, snapshot=True) as followed:
        assert followed.records is not None
        assert len(followed.records) == 3


async def test_nothing_reads_the_log_without_subscribers(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products") as followed:
        await invoke("products.create", name="a")
        await take(followed, 1)
        assert len(app.feed._tails) == 1
    assert app.feed._tails == {}


async def test_writers_in_several_processes_are_followed_in_order(tmp_path: Path) -> None:
    """Three processes write, one of them in transactions that it sometimes rolls back, and one is killed in
    the middle: what the feed says, applied in order, is what the table holds."""
    program = tmp_path / "writer.py"
    program.write_text(
        f"""
import asyncio, random, sys
from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, NexusError
db = DataFlow("sqlite:///{tmp_path / "many.db"}")
@db.model
class Product:
    name: str
    stock: int = 0
app = Nexus(db)
@app.operation
async def both(call: Call, fail: bool) -> None:
    made = await call.run("products.create", {{"name": "two"}})
    await call.run("products.update", {{"id": made.id, "stock": 2}})
    if fail:
        raise NexusError("wanted")
async def main():
    async with app.running():
        run = lambda op, /, **a: app.runtime.invoke(op, a, LOCAL, channel="test")
        for turn in range(int(sys.argv[1])):
            made = await run("products.create", name="one")
            await run("products.update", id=made.id, fields={{"stock": {{"$inc": turn}}}})
            try:
                await run("both", fail=random.random() < 0.5)
            except NexusError:
                pass
            if random.random() < 0.5:
                await run("products.delete", id=made.id)
asyncio.run(main())
"""
    )
    db = DataFlow(f"sqlite:///{tmp_path / 'many.db'}")

    @db.model
    class Product:
        name: str
        stock: int = 0

    app = Nexus(db)
    async with app.running(), app.feed.subscribe(LOCAL, "products") as followed:
        start = asyncio.create_subprocess_exec
        writers = [await start(sys.executable, program, "40") for _ in range(2)]
        doomed = await start(sys.executable, program, "100000")
        state: dict[int, Any] = {}
        last = 0
        changes = aiter(followed)
        end = asyncio.ensure_future(_gather(writers))
        while True:
            if end.done() and doomed.returncode is None:
                doomed.kill()
                await doomed.wait()
            if doomed.returncode is not None and last == await _last(tmp_path / "many.db"):
                break
            async with asyncio.timeout(10):
                change = await anext(changes)
            assert (change.prev, change.pos) == (last, last + 1)
            last = change.pos
            if change.record is None:
                assert state.pop(change.key) == change.old
            else:
                assert state.get(change.key) == change.old
                state[change.key] = change.record
        assert await end == [0, 0]
        stocks: dict[int, int] = {}
        following: str | None = ""
        while following is not None:
            page = {"limit": 1000, "cursor": following}
            listed = await app.runtime.invoke("products.list", page, LOCAL, channel="test")
            stocks |= {record.id: record.stock for record in listed.records}
            following = listed.next
        assert stocks == {key: record["stock"] for key, record in state.items()}
        count = await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
        assert count.count == len(state)


async def _gather(processes: list[asyncio.subprocess.Process]) -> list[int]:
    return list(await asyncio.gather(*(process.wait() for process in processes)))


async def _last(path: Path) -> int:
    with sqlite3.connect(path) as other:
        ((last,),) = other.execute("SELECT max(seq) FROM dataflow_changes").fetchall()
    other.close()
    return int(last)


def test_the_feed_needs_no_event_loop_to_be_made() -> None:
    app = Nexus()
    assert isinstance(app.feed, Feed)
    assert app.feed.topics() == []
