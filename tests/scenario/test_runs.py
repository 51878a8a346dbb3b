"""Runs through every channel of real programs: started, followed, cancelled, repeated, and left behind."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.scenario import drivers
from tests.scenario.drivers import Server
from tests.support.databases import DATABASES, empty_database
from tests.support.problems import assert_problem

APP = """
import asyncio, os
from dataflow import DataFlow
from nexus import Call, Nexus
from nexus_workflows import WorkflowBuilder

db = DataFlow(os.environ["SHOP"])
app = Nexus(db, title="Runs")

@db.model
class Product:
    name: str

@app.operation
async def wait(call: Call, seconds: float) -> dict[str, bool]:
    await asyncio.sleep(seconds)
    return {"result": True}

make = WorkflowBuilder("Make a product, and wait.")
make.add_input("seconds", float, default=0.0)
make.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
make.add_node("wait", "wait", {"seconds": "{{seconds}}"})
make.add_connection("make", "id", "wait", "input")
app.register("make", make)

later = WorkflowBuilder("Wait, and then make a product.")
later.add_node("wait", "wait", {"seconds": "{{seconds}}"})
later.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
later.add_connection("wait", "result", "make", "input")
app.register("later", later)
"""
EXECUTE = "/api/workflows/make/execute"
LATER = "/api/workflows/later/execute"
ASYNC = {"prefer": "respond-async"}


@pytest.fixture(params=[kind for kind in DATABASES if kind != "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


@pytest.fixture
async def served(app: Path, tmp_path: Path) -> AsyncIterator[Server]:
    environment = drivers.environment(SHOP=f"sqlite:///{tmp_path / 'shop.db'}", NEXUS_SHUTDOWN="1")
    async with drivers.server(app, environment) as running:
        yield running


@asynccontextmanager
async def client_of(served: Server) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=served.base, trust_env=False) as client:
        yield client


async def until(client: httpx2.AsyncClient, address: str, **wanted: Any) -> dict[str, Any]:
    """The run at an address, once it has these values."""
    async with asyncio.timeout(10):
        while True:
            found: dict[str, Any] = (await client.get(address)).json()
            if found.items() >= wanted.items():
                return found
            await asyncio.sleep(0.05)


async def test_rest_answers_before_the_end_where_that_is_preferred(served: Server) -> None:
    async with client_of(served) as client:
        answer = await client.post(EXECUTE, json={"name": "Lamp", "seconds": 0.5}, headers=ASYNC)
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "respond-async"
        address = answer.headers["location"]
        assert address == f"/api/runs/{answer.json()['run_id']}"
        assert (await client.get(address)).json()["state"] == "running"
        ended = await until(client, address, state="done")
        assert ended["output"]["results"]["make"]["name"] == "Lamp"
        assert ended["channel"] == "rest"
        waited = await client.post(
            EXECUTE, json={"name": "Pen"}, headers={"prefer": "wait=5, handling=lenient"}
        )
        assert waited.status_code == 200
        assert "preference-applied" not in waited.headers
        # A preference that cannot be honoured is left aside.
        other = await client.post("/api/workflows/wait/execute", json={"seconds": 0}, headers=ASYNC)
        assert (other.status_code, "preference-applied" in other.headers) == (200, False)
        listed = (await client.get("/api/runs", params={"state": "done", "limit": "1"})).json()
        assert (listed["count"], listed["next"]) == (1, listed["records"][0]["id"])


async def test_rest_starts_once_for_a_key(served: Server) -> None:
    key = {"idempotency-key": '"8e03978e"'}
    async with client_of(served) as client:
        starts = [client.post(EXECUTE, json={"name": "Lamp", "seconds": 0.3}, headers=key) for _ in range(5)]
        answers = await asyncio.gather(*starts)
        assert sorted(answer.status_code for answer in answers) == [200, 202, 202, 202, 202]
        assert len({answer.json()["run_id"] for answer in answers}) == 1
        assert {answer.headers.get("preference-applied") for answer in answers} == {None}
        again = await client.post(
            EXECUTE, json={"seconds": 0.3, "name": "Lamp"}, headers={"idempotency-key": "8e03978e"}
        )
        assert again.status_code == 200
        assert again.json() == next(a.json() for a in answers if a.status_code == 200)
        assert_problem(await client.post(EXECUTE, json={"name": "Pen"}, headers=key), 422, "NX-422")
        assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 4
        assert again.headers["idempotency-replayed"] == "true"
        assert (await client.post("/api/products:count", json={})).json()["count"] == 1


async def test_what_is_refused_leaves_its_key_free(served: Server) -> None:
    key = {"idempotency-key": "k"}
    async with client_of(served) as client:
        refused = await client.post(EXECUTE, json={"name": "x", "seconds": "long"}, headers=key)
        assert_problem(refused, 422, "DF-102")
        assert (await client.post(EXECUTE, json={"name": "x"}, headers=key)).status_code == 200


@pytest.mark.parametrize("channel", ["rest", "cli", "mcp_http", "mcp_stdio", "websocket"])
async def test_every_channel_lists_shows_and_cancels(served: Server, channel: str) -> None:
    async with client_of(served) as client, getattr(drivers, channel)(served) as driver:
        answer = await client.post(LATER, json={"name": "Lamp", "seconds": 60}, headers=ASYNC)
        identity = answer.json()["run_id"]
        await until(client, answer.headers["location"], state="running")
        listed = await driver.run("runs.list", {"state": "running"})
        assert [record["id"] for record in listed.result["records"]] == [identity]
        shown = await driver.run("runs.get", {"id": identity})
        assert shown.result["inputs"] == {"seconds": 60.0, "name": "Lamp"}
        ended = await _cancel(driver, identity)
        assert (ended["state"], ended["kept"]) == ("cancelled", False)
        assert (await client.post("/api/products:count", json={})).json()["count"] == 0
        assert (await driver.run("runs.get", {"id": "f" * 32})).code == "DF-404"
        own = await driver.run("make", {"name": "Pen"})
        record = (await client.get(f"/api/runs/{own.result['run_id']}")).json()
        assert (record["state"], record["channel"]) == ("done", channel.partition("_")[0])


async def _some(client: httpx2.AsyncClient, address: str) -> list[dict[str, Any]]:
    """The runs that are listed there, once there are any."""
    async with asyncio.timeout(15):
        while True:
            found: list[dict[str, Any]] = (await client.get(address)).json()["records"]
            if found:
                return found
            await asyncio.sleep(0.05)


async def _cancel(driver: Any, identity: str) -> dict[str, Any]:
    if isinstance(driver, drivers.Cli):
        outcome = await driver._command(["runs", "cancel", identity], None)
    else:
        outcome = await driver.run("runs.cancel", {"id": identity})
    assert outcome.code is None, outcome
    result: dict[str, Any] = outcome.result
    return result


async def test_who_waits_is_told_that_it_was_cancelled(served: Server) -> None:
    async with client_of(served) as client:
        waiting = asyncio.create_task(client.post(EXECUTE, json={"name": "Lamp", "seconds": 60}))
        listed = await _some(client, "/api/runs?state=running")
        cancelled = await client.post(f"/api/runs/{listed[0]['id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
        assert_problem(await waiting, 409, "NX-499")
        assert_problem(await client.post(f"/api/runs/{listed[0]['id']}x/cancel"), 404, "DF-404")
        refused = await client.get(f"/api/runs/{listed[0]['id']}/cancel")
        assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")


async def test_the_websocket_follows_runs_and_starts_them(served: Server) -> None:
    async with drivers.socket(served) as connection, client_of(served) as client:
        watcher = drivers.Watcher(connection)
        assert (await watcher.subscribe(topic="runs", filter={"workflow": "make"}))["type"] == "ready"
        await asyncio.sleep(0.1)
        call = {
            "operation": "make",
            "arguments": {"name": "Lamp"},
            "idempotency_key": "k",
            "background": True,
        }
        await connection.send(json.dumps({"type": "call", "id": "c", **call}))
        frames = [await watcher.frame()]
        while not (frames[-1]["type"] == "change" and frames[-1]["record"]["state"] == "done"):
            frames.append(await watcher.frame())
        started = next(frame["result"] for frame in frames if frame["type"] == "result")
        changes = [frame for frame in frames if frame["type"] == "change"]
        assert {change["key"] for change in changes} == {started["run_id"]}
        assert [change["event"] for change in changes] == ["enter", *["update"] * (len(changes) - 1)]
        assert {"make", "wait"} == set(changes[-1]["record"]["nodes"])
        assert len(changes) > 3
        again = await client.post(EXECUTE, json={"name": "Lamp"}, headers={"idempotency-key": "k"})
        assert again.json()["run_id"] == started["run_id"]
        # What another program does is seen by its rows.
        async with drivers.cli(served) as cli:
            made = await cli.run("make", {"name": "Pen"})
        while (frame := await watcher.frame())["record"]["state"] != "done":
            assert frame["key"] == made.result["run_id"]
        assert frame["key"] == made.result["run_id"]


async def test_the_server_ends_in_time_and_its_runs_truly(app: Path, tmp_path: Path) -> None:
    environment = drivers.environment(SHOP=f"sqlite:///{tmp_path / 'shop.db'}", NEXUS_SHUTDOWN="0.5")
    async with drivers.server(app, environment) as served, client_of(served) as client:
        addresses = [
            (await client.post(EXECUTE, json={"name": "x", "seconds": seconds}, headers=ASYNC)).headers[
                "location"
            ]
            for seconds in (0.2, 60)
        ]
        await until(client, addresses[0], state="running")
        served.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(4):
            assert await served.process.wait() == 0
    async with drivers.server(app, environment) as served, client_of(served) as client:
        states = [(await client.get(address)).json()["state"] for address in addresses]
        assert states == ["done", "cancelled"]
        assert (await client.post("/api/products:count", json={})).json()["count"] == 1


async def test_a_killed_server_leaves_its_runs_abandoned(app: Path, url: str) -> None:
    environment = drivers.environment(SHOP=url)
    async with drivers.server(app, environment) as other, client_of(other) as client:
        process = await asyncio.create_subprocess_exec(
            drivers.PROGRAM,
            "--app",
            str(app),
            "run",
            "make",
            "--name=Lamp",
            "--seconds=60",
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        listed = await _some(client, "/api/runs")
        address = f"/api/runs/{listed[0]['id']}"
        assert (await client.get(address)).json()["state"] == "running"
        await asyncio.sleep(0.5)  # it has written by now
        process.kill()
        await process.wait()
        found = (await client.get(address)).json()
        assert (found["state"], found["channel"]) == ("abandoned", "cli")
        assert (await client.post("/api/products:count", json={})).json()["count"] == 0
        killed = await client.post(
            EXECUTE, json={"name": "Lamp", "seconds": 60}, headers=ASYNC | {"idempotency-key": "k"}
        )
        await until(client, killed.headers["location"], state="running")
        await asyncio.sleep(0.3)
        other.process.kill()
        await other.process.wait()
        async with drivers.server(app, environment) as next_one, client_of(next_one) as after:
            found = (await after.get(killed.headers["location"])).json()
            assert (found["state"], found["finished"], found["output"]) == ("abandoned", None, None)
            assert (await after.post("/api/products:count", json={})).json()["count"] == 0
            again = await after.post(
                EXECUTE, json={"name": "Lamp", "seconds": 60}, headers={"idempotency-key": "k"}
            )
            assert_problem(again, 409, "NX-409")
            assert (await after.get("/api/runs?state=abandoned")).json()["count"] == 2


async def test_an_interrupted_command_is_cancelled(served: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        drivers.PROGRAM,
        "--app",
        str(served.app),
        "run",
        "make",
        "--name=Lamp",
        "--seconds=60",
        env=served.environment,
    )
    async with client_of(served) as client:
        listed = await _some(client, "/api/runs")
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert (await client.get(f"/api/runs/{listed[0]['id']}")).json()["state"] == "cancelled"
