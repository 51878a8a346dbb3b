"""Whether the server says that it is ready: only while its database answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels import readiness
from nexus_channels.server import running_server

SERVERS = pytest.mark.databases("postgresql", "mysql")
pytestmark = pytest.mark.usefixtures("_ask_often")


@pytest.fixture
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 0.05)


class Network:
    """Between the application and its database, and sometimes not there."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, to_there = await asyncio.open_connection(*self._there)
        self._writers |= {writer, to_there}
        await asyncio.gather(self._pass(reader, to_there), self._pass(there, writer))
        self._writers -= {writer, to_there}

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()


@asynccontextmanager
async def network(url: str) -> AsyncIterator[tuple[Network, str]]:
    """And the database's URL through it."""
    parts = urlsplit(url)
    made = Network(parts.hostname or "", parts.port or 0)
    await made.up()
    try:
        yield made, parts._replace(netloc=f"{parts.username}@127.0.0.1:{made.port}").geturl()
    finally:
        made.flow()
        await made.down()


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
