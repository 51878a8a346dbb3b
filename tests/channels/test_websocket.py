"""The websocket, through a real server and a real client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from nexus_channels.websocket import connection as limits
from tests.channels.conftest import Served
from tests.support.wire import Wire, wire


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
