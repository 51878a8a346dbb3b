"""The websocket, through a real server and a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from nexus import LOCAL, Operation, Session, Sessions, feed
from nexus.errors import Forbidden
from nexus_channels.server import running_server
from nexus_channels.websocket import connection as limits
from tests.channels.conftest import Served
from tests.support.things import Things, application
from tests.support.wire import Wire, wire


@pytest.fixture
async def line(served: Served) -> AsyncIterator[Wire]:
    async with wire(served.url) as connected:
        yield connected


async def invoke(served: Served, name: str, /, **arguments: object) -> Any:
    """What another channel does meanwhile."""
    return await served.app.runtime.invoke(name, arguments, LOCAL, channel="test")


async def create(served: Served, count: int = 1, **more: object) -> None:
    for _ in range(count):
        await invoke(served, "things.create", name="x", **more)


class TestHandshake:
    async def test_subprotocol(self, served: Served) -> None:
        async with wire(served.url) as spoken:
            assert spoken.connection.subprotocol == "nexus.v1"
        async with wire(served.url, offer="") as unspoken:
            assert unspoken.connection.subprotocol is None
            assert await unspoken.ask(type="ping") == {"type": "pong"}

    async def test_only_other_subprotocols(self, served: Served) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with wire(served.url, offer="graphql-ws"):
                pass
        assert refused.value.response.status_code == 400
        problem = json.loads(refused.value.response.body or b"")
        assert problem["code"] == "NX-400"
        assert "nexus.v1" in problem["remedy"]

    async def test_no_compression(self, line: Wire) -> None:
        assert line.connection.protocol.extensions == []


class TestCalls:
    async def test_result(self, line: Wire) -> None:
        answer = await line.ask(type="call", id="1", operation="greet", arguments={"name": "you"})
        assert answer == {"type": "result", "id": "1", "result": "hello you"}

    @pytest.mark.parametrize("name", ["things.create", "things_create", "ThingCreateNode"])
    async def test_any_spelling(self, line: Wire, name: str) -> None:
        answer = await line.ask(type="call", id="1", operation=name, arguments={"name": "x"})
        assert answer["result"]["name"] == "x"

    async def test_no_arguments(self, line: Wire) -> None:
        assert (await line.ask(type="call", id="1", operation="total"))["result"] == 0

    async def test_run_side_by_side(self, line: Wire) -> None:
        await line.send(type="call", id="slow", operation="wait", arguments={"seconds": 0.3})
        await line.send(type="call", id="fast", operation="greet", arguments={"name": "you"})
        assert [(await line.receive())["id"] for _ in range(2)] == ["fast", "slow"]

    async def test_so_many_at_once(self, served: Served, line: Wire) -> None:
        for number in range(limits.CALLS_AT_ONCE + 8):
            await line.send(type="call", id=str(number), operation="wait", arguments={"seconds": 0.2})
        assert await line.ask(type="ping") == {"type": "pong"}
        assert served.things.running == limits.CALLS_AT_ONCE
        answers = [await line.receive() for _ in range(limits.CALLS_AT_ONCE + 8)]
        assert all(answer["result"] == "waited" for answer in answers)

    async def test_too_many_waiting(self, served: Served, line: Wire) -> None:
        for number in range(limits.CALLS_WAITING + 1):
            await line.send(type="call", id=str(number), operation="wait")
        refused = await line.receive()
        assert (refused["code"], refused["id"]) == ("NX-503", str(limits.CALLS_WAITING))

    async def test_end_with_the_client(self, served: Served) -> None:
        async with wire(served.url) as connected:
            await connected.send(type="call", id="1", operation="wait")
            await connected.subscribe()
            while not served.things.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with asyncio.timeout(2):
            while not served.things.ended:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert served.things.ended == ["cancelled"]
        assert not served.app.feed._tails

    async def test_end_with_a_client_that_vanishes(self, served: Served) -> None:
        async with wire(served.url) as connected:
            await connected.send(type="call", id="1", operation="wait")
            while not served.things.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            connected.connection.transport.abort()
            async with asyncio.timeout(2):
                while not served.things.ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


class TestBadFrames:
    """Each gets an error frame that names the offending thing; the connection stays of use."""

    @pytest.fixture(autouse=True)
    async def _still_of_use(self, served: Served, line: Wire) -> AsyncIterator[None]:
        yield
        assert await line.ask(type="ping") == {"type": "pong"}
        assert served.things.log == []

    @pytest.mark.parametrize(
        ("frame", "code", "named"),
        [
            ("{", "NX-400", "JSON"),
            ("", "NX-400", "JSON"),
            ("[" * 9000, "NX-400", "object"),
            ('{"type":"ping","x":' + "[" * 9000, "NX-400", "deep"),
            ("5", "NX-400", "object"),
            ("[]", "NX-400", "object"),
            ("{}", "NX-400", "'type'"),
            ('{"type":5}', "NX-400", "5"),
            ('{"type":"subscrib","id":"7"}', "NX-400", "'subscribe'"),
            ('{"type":"subscribe","id":"7"}', "DF-101", "'topic'"),
            ('{"type":"subscribe","topic":"things"}', "DF-101", "'id'"),
            ('{"type":"subscribe","id":"7","topic":"things","snapshott":true}', "DF-106", "'snapshot'"),
            ('{"type":"subscribe","id":"7","topic":"things","snapshot":1}', "DF-102", "'snapshot'"),
            ('{"type":"subscribe","id":"7","topic":"thigns"}', "NX-404", "'things'"),
            ('{"type":"subscribe","id":"7","topic":"things","filter":{"sise":1}}', "DF-107", "'size'"),
            ('{"type":"subscribe","id":"7","topic":"things","filter":[]}', "DF-107", "object"),
            ('{"type":"subscribe","id":"7","topic":"things","fields":["nam"]}', "DF-107", "'name'"),
            ('{"type":"subscribe","id":"7","topic":"things","since":"zzz"}', "NX-410", "cursor"),
            ('{"type":"subscribe","id":"","topic":"things"}', "DF-102", "'id'"),
            ('{"type":"unsubscribe","id":"7"}', "NX-400", "'7'"),
            ('{"type":"call","id":"7"}', "DF-101", "'operation'"),
            ('{"type":"call","id":7,"operation":"greet"}', "DF-102", "'id'"),
            ('{"type":"call","id":"7","operation":"gret"}', "DF-701", "'greet'"),
            ('{"type":"call","id":"7","operation":"hidden"}', "DF-701", "'hidden'"),
            ('{"type":"call","id":"7","operation":"greet"}', "DF-101", "'name'"),
            ('{"type":"call","id":"7","operation":"greet","arguments":{"nmae":1}}', "DF-106", "'name'"),
            ('{"type":"call","id":"7","operation":"greet","arguments":{"name":1}}', "DF-102", "'name'"),
            ('{"type":"call","id":"7","operation":"greet","arguments":[]}', "DF-102", "object"),
            ('{"type":"ping","id":"7"}', "DF-106", "'id'"),
        ],
    )
    async def test_bad(self, line: Wire, frame: str, code: str, named: str) -> None:
        await line.connection.send(frame)
        error = await line.receive()
        assert error["type"] == "error"
        assert error["code"] == code
        assert named in json.dumps(error, ensure_ascii=False)
        assert error.get("id") == ("7" if '"id":"7"' in frame else None)

    async def test_too_large(self, line: Wire) -> None:
        await line.connection.send(json.dumps({"type": "ping", "x": "x" * 20_000}))
        assert (await line.receive())["code"] == "NX-413"

    async def test_binary(self, line: Wire) -> None:
        await line.connection.send(b'{"type":"ping"}')
        assert await line.receive() == {"type": "pong"}
        await line.connection.send(b"\xff\xfe")
        assert (await line.receive())["code"] == "NX-400"

    @pytest.mark.parametrize("name", ["explode", "unspeakable"])
    async def test_failures_of_ours_say_nothing(
        self, line: Wire, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = await line.ask(type="call", id="7", operation=name)
        assert (error["type"], error["id"], error["code"]) == ("error", "7", "NX-500")
        assert "secret" not in json.dumps(error)
        assert "failed" in caplog.text


async def test_a_frame_far_too_large_ends_the_connection(line: Wire) -> None:
    await line.connection.send("x" * 100_000)
    assert await line.closed() == 1009


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
            error = await line.receive()
        finally:
            del served.app.policy.check
        assert (error["id"], error["code"]) == ("s", "NX-403")
        assert error["cursor"]
        assert "secret" not in json.dumps(error)


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
