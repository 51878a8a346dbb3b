"""Options of connections: honoured, measured, or refused with the reason."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.options import Options, options_from
from nexus.errors import ConfigurationError, Unavailable

URL = "sqlite:///x.db"


def test_arguments_come_before_the_environment() -> None:
    environment = {
        "DATAFLOW_POOL_SIZE": "25",
        "DATAFLOW_MAX_OVERFLOW": "50",
        "DATAFLOW_POOL_PRE_PING": "true",
    }
    assert options_from({"pool_size": 7}, environment, URL) == Options(
        pool_size=7, max_overflow=50, pool_pre_ping=True
    )
    assert options_from({}, {"DATAFLOW_LOG_LEVEL": "INFO", "DATAFLOW_DATABASE_URL": "x"}, URL) == Options()


def test_other_spellings_and_settings_for_one_url() -> None:
    assert options_from({"pool_max_overflow": 3, "connection_pool_size": 4}, {}, URL) == Options(4, 3)
    given = {"pool_size": 10, "pools": {URL: {"pool_size": 50}, "sqlite:///y.db": {"pool_size": 9}}}
    assert options_from(given, {}, URL) == Options(pool_size=50)
    assert options_from({"enable_connection_pooling": True, "pool_recycle": -1}, {}, URL) == Options()


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        ({"pool_size": 0}, {}, "between 1 and"),
        ({"pool_size": "7"}, {}, "Expected int"),
        ({"max_overflow": -1}, {}, "max_overflow"),
        ({"pool_timeout": 0}, {}, "pool_timeout"),
        ({"echo": "loud"}, {}, "echo"),
        ({"pool_size": 3, "connection_pool_size": 4}, {}, "given twice"),
        ({"enable_connection_pooling": False}, {}, "pool_size=1"),
        ({"pool_reset_on_return": "commit"}, {}, "rolled back"),
        ({"monitoring": True}, {}, "not available yet"),
        ({"pools": 3}, {}, "pools must be"),
        ({}, {"DATAFLOW_POOL_SIZE": "many"}, "Expected int"),
        ({}, {"DATAFLOW_POOL_SZIE": "3"}, "DATAFLOW_POOL_SZIE.*POOL_SIZE"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    given: dict[str, object], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        options_from(given, environment, URL)


def test_what_is_misspelt_is_named() -> None:
    with pytest.raises(TypeError, match="no option 'pool_szie'; did you mean 'pool_size'"):
        DataFlow(URL, pool_szie=3)
    with pytest.raises(TypeError, match="pools has no option"):
        DataFlow(URL, pools={URL: {"sise": 3}})


def shop(database: str, **options: Any) -> DataFlow:
    made = DataFlow(database, **options)
    made.model(type("Product", (), {"__annotations__": {"name": str}}))
    return made


async def test_never_more_than_allowed_and_overflow_goes_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.pool._SURPLUS_KEPT", 0.05)
    db = shop(database, pool_size=2, max_overflow=1, pool_timeout=0.2)
    await db.products.create(name="a")
    slots = db.database.pools.readers
    taken = [await slots.take() for _ in range(3)]
    metrics = db.pool_metrics()
    assert metrics["overflow"] == 1
    assert metrics["checked_out"] == 3
    with pytest.raises(Unavailable, match="all 3 are in use"):
        await slots.take()
    for connection in taken:
        slots.give(connection)
    assert slots.free == 3  # a moment later they may be needed again
    held = await slots.take()
    while slots.open > 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert slots.free == 1
    slots.give(held)
    assert slots.open == slots.free == 2
    assert db.pool_metrics()["overflow"] == 0
    await db.close()


async def test_metrics(database: str) -> None:
    db = shop(database, pool_size=4, max_overflow=0)
    assert db.pool_metrics()["open"] == 0
    await db.products.count()
    kept = await db.database.pools.readers.take()
    metrics = db._pool_manager.get_pool_metrics(database if database != ":memory:" else None)
    assert metrics == db.pool_metrics()
    assert metrics["checked_out"] == 1
    assert (metrics["is_exhausted"], metrics["waiting"]) == (False, 0)
    assert 0 < metrics["utilization_percent"] <= 25
    db.database.pools.readers.give(kept)
    with pytest.raises(ConfigurationError, match="this is another"):
        db._pool_manager.get_pool_metrics("sqlite:///other.db")
    await db.close()


async def test_an_old_connection_is_replaced(database: str) -> None:
    db = shop(database, pool_size=1, max_overflow=0, pool_recycle=0.05)
    slots = db.database.pools.readers
    first = await slots.take()
    slots.give(first)
    again = await slots.take()
    assert again is first
    await asyncio.sleep(0.1)
    slots.give(again)
    second = await slots.take()
    assert second is not first
    slots.give(second)
    await asyncio.sleep(0.1)
    third = await slots.take()
    assert third is not second
    slots.give(third)
    await db.close()
    assert slots.open == 0


@pytest.mark.parametrize("ping", [True, False])
async def test_a_connection_that_the_server_has_ended(database: str, ping: bool) -> None:
    if not database.startswith(("postgresql", "mysql")):
        return  # no server that could
    db = shop(database, pool_size=1, max_overflow=0, pool_pre_ping=ping)
    await db.products.create(name="a")
    await _end_connections(database)
    if not ping:
        with pytest.raises(Unavailable):
            await db.products.count()
    assert await db.products.count() == {"count": 1}
    await db.close()


async def _end_connections(database: str) -> None:
    other = DataFlow(database)
    connection = await other.database.pools.readers.take()
    if database.startswith("postgresql"):
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    else:
        ids = await connection.fetch(
            "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()"
        )
        for (number,) in ids:
            await connection.fetch(f"KILL {number}")
    other.database.pools.readers.give(connection)
    await other.close()


@pytest.mark.parametrize("echo", [True, "values", False])
async def test_echo(database: str, echo: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dataflow.sql")
    db = shop(database, echo=echo)
    async with db.transaction():
        await db.products.create(name="a-secret")
    await db.close()
    said = "\n".join(record.getMessage() for record in caplog.records if record.name == "dataflow.sql")
    assert ("INSERT INTO" in said) == bool(echo)
    assert ("BEGIN" in said and "COMMIT" in said) == bool(echo)
    assert ("a-secret" in said) == (echo == "values")


def test_pools_are_made_anew_in_each_event_loop(database: str) -> None:
    db = shop(database)
    made = [asyncio.run(db.products.create(name=str(n)))["id"] for n in range(3)]
    assert made == [1, 2, 3]
    assert db.pool_metrics()["open"] == 0


def test_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAFLOW_DATABASE_URL", f"sqlite:///{tmp_path / 'a.db'}")
    monkeypatch.setenv("DATAFLOW_POOL_SIZE", "2")
    db = DataFlow()
    assert db.database.dialect.location == str(tmp_path / "a.db")
    assert db.database.options.pool_size == 2
