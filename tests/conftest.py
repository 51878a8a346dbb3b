"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from tests.support.databases import DATABASES, empty_database

settings.register_profile("quick", max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("NEXUS_TEST_PROFILE", "quick"))

Invoke = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the environment they are run in says."""
    for name in list(os.environ):
        if name.startswith(("DATABASE_URL", "DATAFLOW_")) or (
            name.startswith("NEXUS_") and not name.startswith("NEXUS_TEST_")
        ):
            monkeypatch.delenv(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses a database runs on each kind, or on those that its marker `databases` names."""
    if "database" in metafunc.fixturenames:
        named = metafunc.definition.get_closest_marker("databases")
        metafunc.parametrize("database", named.args if named else DATABASES, indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of the kind asked for."""
    return empty_database(request.param, tmp_path)


@pytest.fixture
def db(database: str) -> DataFlow:
    """A DataFlow on the database with one model."""
    made = DataFlow(database)

    @made.model
    class Product:
        """Something that is sold."""

        name: str
        price: float = 0.0
        stock: int = 0
        on_sale: bool = False
        note: str | None = None
        tags: list[str] = []

    return made


@pytest.fixture
async def app(db: DataFlow) -> AsyncIterator[Nexus]:
    made = Nexus(db)
    async with made.running():
        yield made


@pytest.fixture
def invoke(app: Nexus) -> Invoke:
    """Run an operation as the local user."""

    async def run(name: str, /, **arguments: object) -> Any:
        return await app.runtime.invoke(name, arguments, LOCAL, channel="test")

    return run
