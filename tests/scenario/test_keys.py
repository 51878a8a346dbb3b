"""Writes that are repeated under an idempotency key, through every channel of real programs: in two servers
on one database, over connections that are cut, and after a server was killed."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from mcp import Client

from tests.scenario import drivers
from tests.scenario.drivers import Server
from tests.support.databases import empty_database
from tests.support.problems import assert_problem
from tests.support.programs import run_sql

APP = """
import asyncio, dataclasses, os, uuid
from dataflow import DataFlow
from nexus import Call, Nexus
from nexus_workflows import WorkflowBuilder

db = DataFlow(os.environ["SHOP"])
app = Nexus(db, title="Keys")

@db.model
class Product:
    name: str
    price: float = 0.0
    stock: int = 0
    token: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)

@app.operation
async def slow(call: Call, name: str, seconds: float) -> dict[str, str]:
    await db.products.create(name=name)
    await asyncio.sleep(seconds)
    return {"name": name}

make = WorkflowBuilder("Make a product.")
make.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
app.register("make", make)
"""
LAMP = {"name": "Lamp", "price": 9.5}
KINDS = ["file", "postgresql", "mysql"]


@pytest.fixture(params=KINDS)
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
    async with httpx2.AsyncClient(base_url=served.base, trust_env=False, timeout=20) as client:
        yield client


def under(key: str) -> dict[str, str]:
    return {"idempotency-key": key}


async def test_rest_repeats_the_whole_answer(served: Server) -> None:
    """Status, headers and body, to the byte; but for what says that it is a repetition."""
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/api/products", {"json": LAMP}),
        ("PATCH", "/api/products/1", {"json": {"fields": {"stock": {"$inc": 5}}}}),
        ("PUT", "/api/products/1", {"json": {"name": "Lamp", "price": 3, "stock": 5}}),
        ("POST", "/api/products:bulk_create", {"json": {"data": [LAMP, LAMP], "return_ids": True}}),
        (
            "POST",
            "/api/products:bulk_create",
            {"content": "name,price\nPen,1\n", "headers": {"content-type": "text/csv"}},
        ),
        ("POST", "/api/products:upsert", {"json": {"where": {"name": "Cup"}, "create": {"name": "Cup"}}}),
        ("POST", "/api/workflows/ProductCreateNode/execute", {"json": LAMP}),
        ("POST", "/api/workflows/slow/execute", {"json": {"name": "slow", "seconds": 0}}),
        ("POST", "/api/workflows/make/execute", {"json": {"name": "made"}}),
        ("DELETE", "/api/products/2", {}),
    ]
    async with client_of(served) as client:
        for number, (method, address, more) in enumerate(requests):
            headers = {**more.pop("headers", {}), **under(f"k{number}")}
            first = await client.request(method, address, headers=headers, **more)
            assert first.is_success, first.text
            again = await client.request(method, address, headers=headers, **more)
            assert "idempotency-replayed" not in first.headers
            assert again.headers.pop("idempotency-replayed") == "true"
            assert (again.status_code, again.content) == (first.status_code, first.content)
            for answer in (first, again):
                for own in ("date", "x-request-id"):
                    answer.headers.pop(own, None)
            assert again.headers.raw == first.headers.raw
            assert ("location" in first.headers) == (address == "/api/products")
        counted = await client.post("/api/products:count", json={}, headers=under("k"))
        assert (counted.json(), "idempotency-replayed" in counted.headers) == ({"count": 7}, False)
        lamp = (await client.get("/api/products/1", headers=under("k"))).json()
        assert (lamp["stock"], lamp["price"]) == (5, 3.0)


async def test_rest_refuses_a_key_that_is_used_otherwise(served: Server) -> None:
    async with client_of(served) as client:
        assert (await client.post("/api/products", json=LAMP, headers=under('"k"'))).status_code == 201
        other = await client.post("/api/products", json={"name": "Pen"}, headers=under("k"))
        assert_problem(other, 422, "NX-422")
        for key in ("", "x" * 256):
            refused = await client.post("/api/products", json=LAMP, headers=under(key))
            assert_problem(refused, 400, "NX-400")
        twice = [("idempotency-key", "a"), ("idempotency-key", "b")]
        assert_problem(await client.post("/api/products", json=LAMP, headers=twice), 400, "NX-400")
        taken = await client.post("/api/products", json={"id": 1, "name": "x"}, headers=under("free"))
        assert_problem(taken, 409, "NX-409")
        assert (await client.post("/api/products", json=LAMP, headers=under("free"))).status_code == 201
        execute, given = "/api/workflows/slow/execute", {"name": "s", "seconds": 1}
        both = await asyncio.gather(*(client.post(execute, json=given, headers=under("s")) for _ in range(2)))
        done, busy = sorted(both, key=lambda answer: answer.status_code)
        assert done.json() == {"name": "s"}
        assert_problem(busy, 409, "NX-423")
        assert busy.headers["retry-after"] == "1"


async def test_clients_that_repeat_over_cut_connections_write_once(url: str, app: Path) -> None:
    """Each of many clients sends the same create again and again, to either of two servers, and often goes
    away before the answer comes."""
    environment = drivers.environment(SHOP=url, NEXUS_SHUTDOWN="1")
    clients, times = 8, 6
    async with drivers.server(app, environment) as one, drivers.server(app, environment) as two:
        answers: dict[int, set[bytes]] = {number: set() for number in range(clients)}
        statuses: list[int] = []

        async def repeat(number: int) -> None:
            chance = random.Random(number)
            done = 0
            while done < times:
                server = chance.choice([one, two])
                cut = chance.choice([None, None, 0.0, 0.002, 0.01])
                answer = await exchange(server, f"key {number}", {"name": f"n{number}"}, cut)
                if answer is None:
                    continue
                status, body = answer
                statuses.append(status)
                if status == 201:
                    done += 1
                    answers[number].add(body)
                else:
                    assert status in (409, 503), body
                    await asyncio.sleep(0.02)

        async with asyncio.timeout(60):
            await asyncio.gather(*(repeat(number) for number in range(clients) for _ in range(2)))
        assert all(len(each) == 1 for each in answers.values())
        assert statuses.count(201) == 2 * clients * times
        names = await run_sql(url, "SELECT name FROM products ORDER BY name")
        assert names == [(f"n{number}",) for number in range(clients)]
        ids = sorted(json.loads(*each)["id"] for each in answers.values())
        assert ids == sorted(row[0] for row in await run_sql(url, "SELECT id FROM products"))
        changes = await run_sql(url, "SELECT count(*) FROM dataflow_changes WHERE model = 'products'")
        assert changes == [(clients,)]


async def exchange(
    server: Server, key: str, body: dict[str, Any], cut: float | None
) -> tuple[int, bytes] | None:
    """Post on a connection of its own; with `cut`, close it after so many seconds without reading."""
    address = urlsplit(server.base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        content = json.dumps(body).encode()
        head = (
            f"POST /api/products HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"idempotency-key: {key}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
        if cut is not None:
            await asyncio.sleep(cut)
            return None
        head_read, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        return int(head_read.split()[1]), rest
    finally:
        writer.close()


async def test_what_a_killed_server_had_not_committed_is_done_by_the_next(url: str, app: Path) -> None:
    environment = drivers.environment(SHOP=url, NEXUS_SHUTDOWN="1")
    execute, given = "/api/workflows/slow/execute", {"name": "a", "seconds": 30}
    async with drivers.server(app, environment) as one, drivers.server(app, environment) as two:
        async with client_of(one) as client:
            lost = asyncio.create_task(client.post(execute, json=given, headers=under("k")))
            await asyncio.sleep(0.3)
            one.process.send_signal(signal.SIGKILL)
            await one.process.wait()
            with pytest.raises(httpx2.TransportError):
                await lost
        async with client_of(two) as client:
            short = {**given, "seconds": 0}
            for _ in range(100):  # until its database has noticed
                if (await client.post(execute, json=short, headers=under("k"))).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            assert_problem(await client.post(execute, json=given, headers=under("k")), 422, "NX-422")
            names = [r["name"] for r in (await client.get("/api/products")).json()["records"]]
            assert names == ["a"]


async def test_every_channel_repeats_the_answer(served: Server) -> None:
    """The same session uses the same key on each of them."""
    async with client_of(served) as client:
        created = await client.post("/api/products", json=LAMP, headers=under("k"))
        lamp = created.json()
        assert (await on_a_websocket(served, "products.create", LAMP, idempotency_key="k"))["result"] == lamp
        assert (await on_mcp(served, "products_create", LAMP, "k")).structured_content == lamp
        code, out, said = await on_the_cli(
            served, "products", "create", "--name", "Lamp", "--price", "9.5", "-k", "k"
        )
        assert (code, json.loads(out)) == (0, lamp)
        assert said == "Nothing was done: this is the answer of the first time.\n"
        assert (await client.post("/api/products:count", json={})).json() == {"count": 1}


async def test_a_websocket_says_that_an_answer_is_repeated(served: Server) -> None:
    for replayed in (None, True):
        answer = await on_a_websocket(served, "products.create", LAMP, idempotency_key="k")
        assert (answer["type"], answer.get("replayed")) == ("result", replayed)
    other = await on_a_websocket(served, "products.create", {"name": "Pen"}, idempotency_key="k")
    assert (other["type"], other["code"]) == ("error", "NX-422")


async def test_mcp_says_that_an_answer_is_repeated(served: Server) -> None:
    for replayed in (None, True):
        answer = await on_mcp(served, "slow", {"name": "a", "seconds": 0}, "k")
        assert answer.structured_content == {"name": "a"}
        assert answer.meta.get("nexus/replayed") is replayed
    refused = await on_mcp(served, "slow", {"name": "b", "seconds": 0}, "k")
    assert refused.content[0].text.startswith("NX-422")
    for asked in ({"nexus/idempotencykey": "k"}, {"nexus/idempotency_key": 7}, {"nexus/background": True}):
        refused = await on_mcp(served, "slow", {"name": "c", "seconds": 0}, meta=asked)
        assert refused.is_error, asked
    assert (await on_mcp(served, "products_count", {}, "k")).structured_content == {"count": 1}


async def test_the_cli_writes_once_and_runs_nothing_in_the_background(served: Server) -> None:
    for said in ("", "Nothing was done: this is the answer of the first time.\n"):
        code, out, err = await on_the_cli(
            served, "run", "slow", "--name", "a", "--seconds", "0", "--idempotency-key", "k"
        )
        assert (code, json.loads(out), err) == (0, {"name": "a"}, said)
    code, out, err = await on_the_cli(served, "run", "slow", "--name=b", "--seconds=0", "--idempotency-key=k")
    assert (code, out) == (2, "")
    assert err.startswith("error NX-422")
    code, out, err = await on_the_cli(served, "run", "make", "--name", "b", "--background")
    assert (code, out) == (2, "")
    assert "respond-async" in err
    code, out, _ = await on_the_cli(served, "products", "count")
    assert json.loads(out) == {"count": 1}


async def on_a_websocket(served: Server, operation: str, given: dict[str, Any], **asked: Any) -> Any:
    async with drivers.socket(served) as connection:
        frame = {"type": "call", "id": "1", "operation": operation, "arguments": given, **asked}
        await connection.send(json.dumps(frame))
        return json.loads(await connection.recv())


async def on_mcp(
    served: Server, tool: str, given: dict[str, Any], key: str = "", meta: dict[str, Any] | None = None
) -> Any:
    asked: Any = meta or {"nexus/idempotency_key": key}
    async with Client(f"{served.base}/mcp") as client:
        return await client.call_tool(tool, given, meta=asked)


async def on_the_cli(served: Server, *words: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        drivers.PROGRAM,
        "--app",
        str(served.app),
        *words,
        env=served.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()
