"""Subscriptions over the websocket, through a real server and a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from nexus import LOCAL, Operation, Session, Sessions, feed
from nexus.errors import Forbidden
from nexus_channels.server import running_server
from nexus_channels.websocket import connection as limits
from tests.channels.conftest import Served
from tests.support.things import Things, application
from tests.support.wire import Wire, wire


async def invoke(served: Served, name: str, /, **arguments: object) -> Any:
    """What another channel does meanwhile."""
    return await served.app.runtime.invoke(name, arguments, LOCAL, channel="test")


async def create(served: Served, count: int = 1, **more: object) -> None:
    for _ in range(count):
        await invoke(served, "things.create", name="x", **more)


class TestSubscriptions:
    async def test_a_life(self, served: Served, line: Wire) -> None:
        await line.subscribe()
        await create(served, size=1)
        await invoke(served, "things.update", id="1", size=2)
        await invoke(served, "things.delete", id="1")
        first = {"id": "1", "name": "x", "size": 1, "note": None}
        entered = await line.receive()
        assert entered.pop("cursor")
        assert entered == {
            "type": "change",
            "id": "s",
            "event": "enter",
            "key": "1",
            "record": first,
            "old": None,
            "prev": 0,
            "pos": 1,
            "actor": "local",
            "run": None,
            "request": None,
            "txn": None,
            "at": "2026-01-01T00:00:00Z",
        }
        updated = await line.receive()
        assert (updated["event"], updated["old"], updated["prev"]) == ("update", first, 1)
        assert updated["record"] == {**first, "size": 2}
        left = await line.receive()
        assert (left["event"], left["record"], left["old"]["size"]) == ("leave", None, 2)

    async def test_what_failed_is_not_told(self, served: Served, line: Wire) -> None:
        await line.subscribe()
        answer = await line.ask(type="call", id="c", operation="things.update", arguments={"id": "none"})
        assert answer["code"] == "DF-404"
        assert await line.silent()

    async def test_a_filter_is_a_window(self, served: Served, line: Wire) -> None:
        await line.subscribe(filter={"size": {"$gte": 5}})
        await create(served, size=1)
        await invoke(served, "things.update", id="1", size=5)
        await invoke(served, "things.update", id="1", size=6)
        await invoke(served, "things.update", id="1", size=2)
        await create(served, size=2)
        frames = [await line.receive() for _ in range(3)]
        assert [frame["event"] for frame in frames] == ["enter", "update", "leave"]
        assert [(frame["prev"], frame["pos"]) for frame in frames] == [(0, 2), (2, 3), (3, 4)]
        assert await line.silent()

    async def test_fields(self, served: Served, line: Wire) -> None:
        await create(served)
        snapshot = await line.ask(
            type="subscribe", id="s", topic="things", fields=["size", "id"], snapshot=True
        )
        assert snapshot["records"] == [{"size": 0, "id": "1"}]
        await line.receive()
        await invoke(served, "things.update", id="1", size=2)
        change = await line.receive()
        assert change["record"] == {"size": 2, "id": "1"}
        assert change["old"] == {"size": 0, "id": "1"}

    async def test_snapshot_in_parts(self, served: Served, line: Wire) -> None:
        await create(served, 1201)
        await line.send(type="subscribe", id="s", topic="things", snapshot=True)
        parts = [await line.receive() for _ in range(3)]
        assert [len(part["records"]) for part in parts] == [500, 500, 201]
        assert [part["more"] for part in parts] == [True, True, False]
        assert all(part["type"] == "snapshot" and part["id"] == "s" for part in parts)
        assert (await line.receive())["type"] == "ready"
        await create(served)
        assert (await line.receive())["pos"] == 1202

    async def test_empty_snapshot(self, line: Wire) -> None:
        snapshot = await line.ask(type="subscribe", id="s", topic="things", snapshot=True)
        assert snapshot == {"type": "snapshot", "id": "s", "records": [], "more": False}
        assert (await line.receive())["type"] == "ready"

    async def test_resuming_misses_nothing(self, served: Served) -> None:
        async with wire(served.url) as before:
            await before.subscribe()
            await create(served, 3)
            seen = [await before.receive() for _ in range(2)]
        await create(served, 1000)
        async with wire(served.url) as after:
            await after.subscribe(since=seen[-1]["cursor"])
            await create(served, 2)
            caught = [await after.receive() for _ in range(1003)]
            assert [frame["pos"] for frame in caught] == list(range(3, 1006))
            assert [frame["prev"] for frame in caught] == list(range(2, 1005))
            assert await after.silent()

    async def test_a_cursor_that_expired(self, served: Served, line: Wire) -> None:
        cursor = await line.subscribe()
        await create(served, 3)
        served.things.floor = 2
        frame = await line.ask(type="subscribe", id="again", topic="things", since=cursor)
        while frame["type"] == "change":
            frame = await line.receive()
        assert frame["type"] == "resnapshot"
        assert frame["id"] == "again"
        assert frame["reason"]
        await line.connection.send('{"type":"unsubscribe","id":"again"}')
        assert (await line.receive())["code"] == "NX-400"

    async def test_a_cursor_of_another_query(self, line: Wire) -> None:
        cursor = await line.subscribe()
        frame = await line.ask(type="subscribe", id="t", topic="things", since=cursor, filter={"size": 1})
        assert (frame["type"], frame["id"]) == ("resnapshot", "t")

    async def test_several_on_one_connection(self, served: Served, line: Wire) -> None:
        await line.subscribe("small", filter={"size": {"$lt": 5}})
        await line.subscribe("large", filter={"size": {"$gte": 5}})
        await create(served, size=1)
        await create(served, size=9)
        frames = [await line.receive() for _ in range(2)]
        assert {frame["id"]: frame["record"]["size"] for frame in frames} == {"small": 1, "large": 9}

    async def test_duplicate_id(self, served: Served, line: Wire) -> None:
        await line.subscribe()
        refused = await line.ask(type="subscribe", id="s", topic="things")
        assert (refused["code"], refused["id"]) == ("NX-400", "s")
        await create(served)
        assert (await line.receive())["pos"] == 1
        assert await line.silent()

    async def test_unsubscribing(self, served: Served, line: Wire) -> None:
        await line.subscribe("a")
        await line.subscribe("b")
        await line.send(type="unsubscribe", id="a")
        assert await line.ask(type="ping") == {"type": "pong"}
        await create(served)
        assert (await line.receive())["id"] == "b"
        assert await line.silent()
        await line.subscribe("a")

    async def test_a_bounded_number(self, line: Wire) -> None:
        for number in range(limits.SUBSCRIPTIONS):
            await line.subscribe(str(number))
        refused = await line.ask(type="subscribe", id="more", topic="things")
        assert refused["type"] == "error"
        assert str(limits.SUBSCRIPTIONS) in refused["detail"]
        await line.send(type="unsubscribe", id="0")
        await line.subscribe("more")

    async def test_a_topic_that_goes(self, served: Served, line: Wire) -> None:
        await line.subscribe()
        listing = served.app.registry["things.list"]
        served.app.registry.remove("things.list")
        try:
            await create(served)
            error = await line.receive()
        finally:
            served.app.registry.add(listing)
        assert (error["type"], error["id"], error["code"]) == ("error", "s", "NX-404")
        assert error["cursor"]
        await line.subscribe()

    async def test_one_connection_does_not_see_anothers_frames(self, served: Served, line: Wire) -> None:
        async with wire(served.url) as other:
            await other.subscribe()
            await line.ask(type="call", id="1", operation="things.create", arguments={"name": "x"})
            assert (await other.receive())["type"] == "change"
        assert await line.silent()


class Visitors(Sessions):
    """Lets everybody in, to do what `scopes` says."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = frozenset(scopes)

    async def resolve(self, credential: str | None) -> Session:
        return Session("s", "visitor", self.scopes)


class TestPermissions:
    async def test_are_those_of_the_session(self) -> None:
        app = application(Things())
        app.sessions = Visitors("things.list", "greet")
        async with running_server(app) as url, wire(url) as line:
            await line.subscribe()
            greeted = await line.ask(type="call", id="1", operation="greet", arguments={"name": "x"})
            assert greeted["type"] == "result"
            refused = await line.ask(type="call", id="2", operation="things.create", arguments={})
            assert (refused["id"], refused["code"]) == ("2", "NX-403")

    async def test_following_is_listing(self) -> None:
        app = application(Things())
        app.sessions = Visitors("things.get")
        async with running_server(app) as url, wire(url) as line:
            refused = await line.ask(type="subscribe", id="s", topic="things", snapshot=True)
            assert (refused["id"], refused["code"]) == ("s", "NX-403")

    async def test_are_asked_for_again_at_each_delivery(self, served: Served, line: Wire) -> None:
        await line.subscribe()
        await create(served)
        assert (await line.receive())["type"] == "change"
        served.app.policy.check = _deny  # type: ignore[method-assign]
        try:
            served.things.put("secret", {"id": "secret"})
            served.app.feed.wake(served.things)
            left = await line.receive()
            error = await line.receive()
        finally:
            del served.app.policy.check
        assert (left["event"], left["key"], left["old"]) == ("leave", "1", None)
        assert (error["id"], error["code"]) == ("s", "NX-403")
        assert error["cursor"]
        assert "secret" not in json.dumps([left, error])


def _deny(session: Session, operation: Operation) -> None:
    raise Forbidden("You may not do this any more.")


class TestSlowConsumer:
    @pytest.fixture(autouse=True)
    def _less_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feed, "LAG", 3000)

    async def test_is_cut_off_and_hurts_nobody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "LAST_WORDS", 10.0)
        things, total = Things(), 6000
        app = application(things)
        async with running_server(app) as url, wire(url) as healthy, deaf(url) as slow:
            await healthy.subscribe(fields=["id"])
            for number in range(total):
                things.put(str(number), {"id": str(number), "note": "x" * 10_000})
                if number % 100 == 0:
                    app.feed.wake(things)
                    await asyncio.sleep(0)
            app.feed.wake(things)
            seen = [(await healthy.receive())["pos"] for _ in range(total)]
            assert seen == list(range(1, total + 1))
            slow.connection.transport.resume_reading()
            frames: list[dict[str, Any]] = []
            with pytest.raises(ConnectionClosed):
                while True:
                    frames.append(await slow.receive())
            assert slow.connection.close_code == 1013
            last = frames.pop()
            assert (last["type"], last["code"]) == ("error", "NX-429")
            assert 0 < len(frames) < total
            assert last["cursor"] == frames[-1]["cursor"]
            async with wire(url) as again:
                await again.subscribe(since=last["cursor"], fields=["id"])
                rest = [(await again.receive())["pos"] for _ in range(total - len(frames))]
            assert rest == list(range(len(frames) + 1, total + 1))

    async def test_that_takes_nothing_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "STALLED", 0.5)
        things = Things()
        app = application(things)
        async with running_server(app) as url, deaf(url) as slow:
            await slow.send(type="call", id="1", operation="wait")
            for number in range(2000):
                things.put(str(number), {"id": str(number), "note": "x" * 10_000})
                if number % 100 == 0:
                    app.feed.wake(things)
                    await asyncio.sleep(0)
            app.feed.wake(things)
            async with asyncio.timeout(5):
                while not things.ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert things.ended == ["cancelled"]
            assert not app.feed._tails

    async def test_that_is_only_slow_gets_everything(self) -> None:
        things, total = Things(), 2900
        app = application(things)
        async with running_server(app) as url, deaf(url) as slow:
            for number in range(total):
                things.put(str(number), {"id": str(number), "note": "x" * 10_000})
                if number % 100 == 0:
                    app.feed.wake(things)
                    await asyncio.sleep(0)
            await asyncio.sleep(0.2)
            slow.connection.transport.resume_reading()
            frames = [await slow.receive() for _ in range(total)]
            assert [frame["pos"] for frame in frames] == list(range(1, total + 1))
            assert [frame["prev"] for frame in frames] == list(range(total))


@asynccontextmanager
async def deaf(url: str) -> AsyncIterator[Wire]:
    """A subscriber that does not read."""
    connection = await connect(url.replace("http", "ws") + "/ws", proxy=None, max_queue=1, max_size=None)
    line = Wire(connection)
    await line.subscribe()
    connection.transport.pause_reading()
    try:
        yield line
    finally:
        connection.transport.abort()
        await connection.wait_closed()


class TestClosing:
    async def test_subscribers_get_their_cursors(self) -> None:
        things = Things()
        app = application(things)
        async with running_server(app) as url:
            connected = await connect(url.replace("http", "ws") + "/ws", proxy=None)
            line = Wire(connected)
            await line.subscribe("a")
            await line.subscribe("b", filter={"size": 5})
            things.put("1", {"id": "1", "size": 1})
            app.feed.wake(things)
            change = await line.receive()
            await line.send(type="call", id="c", operation="wait", arguments={"seconds": 0.5})
            while not things.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        frames = [await line.receive() for _ in range(3)]
        closing = {frame["id"]: frame for frame in frames if frame["type"] == "closing"}
        assert closing["a"]["cursor"] == change["cursor"]
        assert closing["b"]["cursor"]
        assert {"type": "result", "id": "c", "result": "waited"} in frames
        assert await line.closed() == 1012

    async def test_without_subscriptions(self) -> None:
        async with running_server(application(Things())) as url:
            connected = await connect(url.replace("http", "ws") + "/ws", proxy=None)
            await Wire(connected).ask(type="ping")
        assert await Wire(connected).closed() == 1012
