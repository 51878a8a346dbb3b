"""One request's id on every channel, the log of requests, and how long one may take."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Call, Nexus, Settings
from nexus.call import IN_PROCESS
from nexus.session import LOCAL
from nexus_channels.cli.running import run
from nexus_channels.server import running_server
from tests.support.problems import assert_problem
from tests.support.wire import Wire, wire

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ACCEPTED = {"accept": "application/json, text/event-stream"}


@dataclass
class Traced:
    app: Nexus
    url: str
    client: httpx2.AsyncClient


@pytest.fixture(scope="module")
async def traced() -> AsyncIterator[Traced]:
    db = DataFlow(":memory:")

    @db.model
    class Lamp:
        name: str

    app = Nexus(db, settings=Settings(access_log=True, request_timeout=0.3))

    @app.operation
    async def nap(call: Call, seconds: float) -> str:
        """Sleep."""
        logging.getLogger("app").warning("nap of %s", call.request)
        await asyncio.sleep(seconds)
        return "rested"

    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield Traced(app, url, client)


@pytest.fixture
async def line(traced: Traced) -> AsyncIterator[Wire]:
    async with wire(traced.url, additional_headers={"x-request-id": "socket"}) as connected:
        await connected.subscribe("s", "lamps")
        yield connected


INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "a test", "version": "1"},
}


@pytest.fixture
async def mcp(traced: Traced) -> httpx2.Headers:
    """The headers of an older client's session, begun by another request than those that follow."""
    begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE}
    answer = await traced.client.post("/mcp", json=begin, headers={**ACCEPTED, "x-request-id": "begun"})
    headers = httpx2.Headers({**ACCEPTED, "mcp-protocol-version": "2025-06-18"})
    if session := answer.headers.get("mcp-session-id"):
        headers["mcp-session-id"] = session
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await traced.client.post("/mcp", json=done, headers=headers)
    return headers


def tool_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


class TestChangesNameTheirRequest:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({"x-request-id": "mine"}, "mine"),
            ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
            ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "mine"}, "mine"),
            ({"traceparent": "nonsense"}, None),
        ],
    )
    async def test_over_rest(
        self, traced: Traced, line: Wire, headers: dict[str, str], expected: str | None
    ) -> None:
        answer = await traced.client.post("/api/lamps", json={"name": "x"}, headers=headers)
        told = answer.headers["x-request-id"]
        assert told == expected if expected else told not in (TRACE, "nonsense")
        assert (await line.receive())["request"] == told

    async def test_over_the_websocket(self, line: Wire) -> None:
        """The id of the connection and the one of the call."""
        await line.send(type="call", id="c 1", operation="lamps.create", arguments={"name": "x"})
        frames = [await line.receive(), await line.receive()]
        (change,) = [frame for frame in frames if frame["type"] == "change"]
        assert change["request"] == "socket/c_1"

    async def test_over_mcp(self, traced: Traced, line: Wire, mcp: httpx2.Headers) -> None:
        post = tool_call("lamps_create", {"name": "x"})
        for number in range(2):
            mcp["x-request-id"] = f"mcp-{number}"
            answer = await traced.client.post("/mcp", json=post, headers=mcp)
            assert answer.status_code == 200, answer.text
            assert (await line.receive())["request"] == f"mcp-{number}"

    async def test_over_the_command_line(self, tmp_path: Any) -> None:
        db = DataFlow(f"sqlite:///{tmp_path / 'lamps.db'}")
        db.model(type("Lamp", (), {"__annotations__": {"name": str}}))
        app = Nexus(db)
        await asyncio.to_thread(run, app, "lamps.create", {"name": "x"})
        async with app.running():
            connection = await db.database.pools.log.take()
            ((request,),) = await connection.fetch("SELECT request FROM dataflow_changes")
            db.database.pools.log.give(connection)
        assert request


class TestLog:
    async def test_one_line_for_each_request(self, traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "nexus.access")
        secret = {"authorization": "Bearer secret", "x-request-id": "logged"}
        await traced.client.get("/api/lamps?name=secret&limit=5", headers=secret)
        await traced.client.get("/api/lamps/0?x=secret", headers=secret)
        async with wire(traced.url, additional_headers={"x-request-id": "socket"}):
            pass
        await asyncio.sleep(0.05)
        lines = [json.loads(r.message) for r in caplog.records if r.name == "nexus.access"]
        assert [
            (one["method"], one["path"], one["status"], one["user"], one["request"]) for one in lines
        ] == [
            ("GET", "/api/lamps", 200, "local", "logged"),
            ("GET", "/api/lamps/0", 422, "local", "logged"),
            ("WEBSOCKET", "/ws", 101, "local", "socket"),
        ]
        assert all(one["ms"] > 0 for one in lines)
        assert "secret" not in caplog.text

    async def test_not_unless_it_is_wanted(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        app = Nexus(channels=("rest",), settings=Settings())
        async with running_server(app) as url, httpx2.AsyncClient(trust_env=False) as client:
            await client.get(f"{url}/api")
        assert not [record for record in caplog.records if record.name == "nexus.access"]


class TestTime:
    """Requests may take 0.3 s here."""

    async def test_over_rest(self, traced: Traced) -> None:
        slow = await traced.client.post("/api/workflows/nap/execute", json={"seconds": 5})
        assert_problem(slow, 504, "NX-504")
        quick = await traced.client.post("/api/workflows/nap/execute", json={"seconds": 0.01})
        assert quick.json() == "rested"

    async def test_a_websocket_lasts_and_its_calls_do_not(self, traced: Traced, line: Wire) -> None:
        await asyncio.sleep(0.5)
        refused = await line.ask(type="call", id="n", operation="nap", arguments={"seconds": 5})
        assert (refused["type"], refused["code"]) == ("error", "NX-504")
        assert await line.ask(type="ping") == {"type": "pong"}

    async def test_over_mcp(self, traced: Traced, mcp: httpx2.Headers) -> None:
        answer = await traced.client.post("/mcp", json=tool_call("nap", {"seconds": 5}), headers=mcp)
        assert "NX-504" in answer.text

    async def test_a_program_takes_the_time_it_needs(self, traced: Traced) -> None:
        invoke = traced.app.runtime.invoke
        assert await invoke("nap", {"seconds": 0.4}, LOCAL, channel=IN_PROCESS) == "rested"
        assert await invoke("nap", {"seconds": 0.4}, LOCAL, channel="rest", timeout=5) == "rested"
