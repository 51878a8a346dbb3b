"""Whether the server says that it is ready: only while its database answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels import readiness
from nexus_channels.server import running_server
from tests.support.network import network

SERVERS = pytest.mark.databases("postgresql", "mysql")
pytestmark = pytest.mark.usefixtures("_ask_often")


@pytest.fixture
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 0.05)


def application(url: str) -> Nexus:
    db = DataFlow(url)

    @db.model
    class Product:
        name: str

    return Nexus(db, channels=["rest"])


@asynccontextmanager
async def served(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        running_server(application(url)) as address,
        httpx2.AsyncClient(base_url=address, trust_env=False, timeout=20) as client,
    ):
        yield client


async def is_ready(client: httpx2.AsyncClient) -> bool:
    response = await client.get("/readyz")
    assert (await client.get("/livez")).json() == {"status": "ok"}
    if response.status_code == 200:
        assert response.json() == {"status": "ok", "channels": ["rest"]}
        return True
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "NX-503"
    return False


async def until_ready(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while not await is_ready(client):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_ready(database: str) -> None:
    async with served(database) as client:
        assert await is_ready(client)
        assert (await client.get("/ready")).status_code == 200
        assert (await client.post("/api/products", json={"name": "x"})).status_code == 201
        assert await is_ready(client)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
async def test_a_database_that_is_not_there(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    url = f"{kind}://ann:secret@127.0.0.1:1/shop"
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'file' / 'shop.db'}"
    caplog.set_level(logging.WARNING, "nexus")
    async with served(url) as client:
        for _ in range(3):
            assert not await is_ready(client)
            await asyncio.sleep(0.06)
        said = (await client.get("/readyz")).text
        assert "secret" not in said + caplog.text
        assert "127.0.0.1" not in said
    assert caplog.text.count("not ready") == 1


@SERVERS
async def test_a_database_that_goes_and_comes_back(database: str) -> None:
    async with network(database) as (between, url), served(url) as client:
        assert await is_ready(client)
        await between.down()
        await asyncio.sleep(0.1)
        assert not await is_ready(client)
        await between.up()
        await until_ready(client)


@SERVERS
async def test_a_database_that_does_not_answer(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 0.3)
    async with network(database) as (between, url), served(url) as client:
        assert await is_ready(client)
        before = between.connections
        between.stall()
        await asyncio.sleep(0.06)
        async with asyncio.timeout(10):
            assert not any(await asyncio.gather(*(is_ready(client) for _ in range(20))))
            assert not await is_ready(client)
        assert between.connections == before  # one asks for all
        between.flow()
        await until_ready(client)


@SERVERS
async def test_all_connections_in_use_are_no_reason(database: str) -> None:
    app = application(database + ("&" if "?" in database else "?") + "pool_size=1")
    async with (
        running_server(app) as address,
        httpx2.AsyncClient(base_url=address, trust_env=False) as client,
    ):
        slots = app.contributors[0].database.pools.readers  # type: ignore[attr-defined]
        taken = [await slots.take() for _ in range(slots.size + slots.care.overflow)]
        assert await is_ready(client)
        for connection in taken:
            slots.give(connection)


async def test_an_answer_holds_for_a_moment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 60)
    async with served(database) as client:
        ready = [await is_ready(client) for _ in range(5)]
        assert all(ready)
