"""What HTTP itself asks for: statuses, methods, ids in addresses, bodies that do not come to their end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels.server import running_server
from tests.support.problems import assert_problem


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    db = DataFlow(":memory:")

    @db.model
    class Page:
        id: str
        title: str = ""

    @db.model
    class Lamp:
        name: str
        price: float = 0.0

    app = Nexus(db, channels=("rest",))
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield client


@pytest.mark.parametrize("key", ["a/b", "ä ö", "日本", "a:b", "100%", "a?b#c", "..", "%2F", "'=1", "a\\b"])
async def test_any_text_can_be_an_id(client: httpx2.AsyncClient, key: str) -> None:
    created = await client.post("/api/pages", json={"id": key, "title": "x"})
    assert created.status_code == 201
    location = created.headers["location"]
    assert location == f"/api/pages/{quote(key, safe='')}"
    if key != "..":  # which clients take out of an address, encoded or not
        assert (await client.get(location)).json()["id"] == key
        assert (await client.patch(location, json={"title": "y"})).json()["title"] == "y"
        assert (await client.delete(location)).json() == {"deleted": 1, "id": key}
        assert_problem(await client.get(location), 404, "DF-404")


@pytest.mark.parametrize("key", ["abc", "1.5", "9223372036854775808", "-", "%20", "0x1"])
async def test_an_id_of_another_type_cannot_be_meant(client: httpx2.AsyncClient, key: str) -> None:
    for method in ("GET", "DELETE", "PATCH"):
        body = {"json": {"name": "x"}} if method == "PATCH" else {}
        problem = assert_problem(await client.request(method, f"/api/lamps/{key}", **body), 422, "DF-102")
        assert problem["errors"][0]["pointer"] == "/id"
    assert_problem(await client.get("/api/lamps/-5"), 404, "DF-404")


async def test_a_range_is_ignored(client: httpx2.AsyncClient) -> None:
    whole = await client.get("/api/lamps")
    part = await client.get("/api/lamps", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (200, whole.content)
    assert "content-range" not in part.headers


@pytest.mark.parametrize("method", ["TRACE", "PURGE"])
async def test_methods_that_there_are_not(client: httpx2.AsyncClient, method: str) -> None:
    response = await client.request(method, "/api/lamps")
    assert_problem(response, 405, "NX-405")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_json_that_is_deep(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for body in (b'{"name":' + b"[" * 50_000, b'{"a":' * 50_000):
        assert_problem(await client.post("/api/lamps", content=body, headers=headers), 400, "NX-400")
    deep: object = 1
    for _ in range(150):
        deep = {"$not": deep}
    query = {"filter": json.dumps(deep)}
    assert_problem(await client.get("/api/lamps", params=query), 422, "DF-107")


async def test_chunks_come_together(client: httpx2.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"name": "slow"}':
            yield bytes([byte])

    made = await client.post("/api/lamps", content=chunks(), headers={"content-type": "application/json"})
    assert made.status_code == 201


@pytest.mark.parametrize("ending", [b"", b"10\r\n{", b"zz\r\n"])
async def test_chunks_that_end_too_early_do_nothing(client: httpx2.AsyncClient, ending: bytes) -> None:
    before = (await client.get("/api/lamps:count")).json()
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port)) as raw:
        raw.sendall(
            b"POST /api/lamps HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b'transfer-encoding: chunked\r\n\r\n10\r\n{"name":"partly"\r\n' + ending
        )
        await asyncio.sleep(0.1)
    assert (await client.get("/api/lamps:count")).json() == before


async def test_requests_in_a_row_without_waiting(client: httpx2.AsyncClient) -> None:
    address = urlsplit(str(client.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    one = b"GET /api/lamps:count HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /api/session HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    writer.write(one * 3 + last)
    answered = (await reader.read()).decode()
    writer.close()
    assert answered.count("HTTP/1.1 200 OK") == 4
    assert answered.index('{"count"') < answered.index('{"user"')
