"""Fixtures for the channels that are served: an application of things, behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
import pytest

from nexus import Nexus
from nexus_channels.server import running_server
from tests.support.things import Things, application
from tests.support.wire import Wire, wire

KEY = "a key for tests"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Of a wider scope than elsewhere, so that one server can serve a whole module."""
    return "asyncio"


@dataclass
class Served:
    """A running server, what it serves, and a client of it."""

    app: Nexus
    things: Things
    url: str
    client: httpx2.AsyncClient


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Served]:
    things = Things()
    app = application(things, body_limit=20_000)
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield Served(app, things, url, client)


@pytest.fixture
def served(shared: Served) -> Served:
    """The module's server, with nothing in it."""
    shared.things.__init__()  # type: ignore[misc]
    return shared


@pytest.fixture
def client(served: Served) -> httpx2.AsyncClient:
    return served.client


@pytest.fixture(scope="module")
async def locked() -> AsyncIterator[Served]:
    """A server that asks for a key."""
    things = Things()
    app = application(things, api_key=KEY)
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield Served(app, things, url, client)


@pytest.fixture
async def line(served: Served) -> AsyncIterator[Wire]:
    async with wire(served.url) as connected:
        yield connected
