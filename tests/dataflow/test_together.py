"""Records that are asked for at the same time: each gets its own, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import pytest

from dataflow import DataFlow
from nexus.errors import NotFound, TimedOut

_BY_ID = re.compile(r"SELECT .*WHERE .*\bid\b", re.S | re.I)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[DataFlow]:
    db = DataFlow(database, echo=True)

    @db.model
    class Product:
        name: str

    @db.model
    class Label:
        __dataflow__ = {"multi_tenant": True}
        id: str
        text: str

    for number in range(1, 41):
        await db.products.create(name=f"product {number}")
    yield db
    await db.close()


async def names(db: DataFlow, *keys: int) -> list[object]:
    found = await asyncio.gather(*[db.products.get(key) for key in keys], return_exceptions=True)
    return [each["name"] if isinstance(each, dict) else type(each) for each in found]


async def test_each_gets_the_record_it_asked_for(
    shop: DataFlow, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [7, 1, 40, 7, 999, 23, 7, *range(1, 41), -1]
    with caplog.at_level(logging.INFO):
        got = await names(shop, *keys)
    assert got == [f"product {key}" if 1 <= key <= 40 else NotFound for key in keys]
    statements = [r for r in caplog.records if _BY_ID.search(r.getMessage())]
    assert statements
    if database.startswith(("postgresql", "mysql")):
        assert len(statements) < len(keys) / 2


async def test_who_asks_alone_is_read_for_at_once(shop: DataFlow, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for key in (3, 4, 5):
            assert await names(shop, key) == [f"product {key}"]
    assert len([r for r in caplog.records if _BY_ID.search(r.getMessage())]) == 3


async def test_what_was_written_before_is_seen(shop: DataFlow) -> None:
    async def rename_and_read(key: int) -> object:
        for turn in range(5):
            await shop.products.update(key, name=f"turn {turn}")
            if (await shop.products.get(key))["name"] != f"turn {turn}":
                return key
        return None

    assert await asyncio.gather(*[rename_and_read(key) for key in range(1, 9)]) == [None] * 8


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_who_goes_away_takes_nothing_from_the_others(shop: DataFlow, cancelled: int) -> None:
    """The first reads by itself, the second for the others."""
    for turns in range(4):
        tasks = [asyncio.ensure_future(shop.products.get(key)) for key in (1, 2, 3, 4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[cancelled].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for key, each in zip((1, 2, 3, 4), found, strict=True):
            if key != cancelled + 1:
                assert isinstance(each, dict)
                assert each["name"] == f"product {key}"


async def test_a_tenant_reads_nothing_of_another(shop: DataFlow) -> None:
    for tenant in ("a", "b"):
        with shop.tenant(tenant):
            await shop.labels.create(id=f"{tenant}1", text=tenant)

    async def read(tenant: str, key: str) -> object:
        with shop.tenant(tenant):
            try:
                return (await shop.labels.get(key))["text"]
            except NotFound:
                return None

    asked = [(tenant, key) for _ in range(4) for tenant in ("a", "b") for key in ("a1", "b1")]
    found = await asyncio.gather(*[read(*each) for each in asked])
    assert found == [tenant if key.startswith(tenant) else None for tenant, key in asked]


async def test_ids_that_only_the_database_takes_for_the_same(shop: DataFlow) -> None:
    with shop.tenant("t"):
        await shop.labels.create(id="One", text="x")
        await shop.labels.create(id="two", text="y")
        alone = []
        for key in ("One", "one", "One ", "two"):
            try:
                alone.append((await shop.labels.get(key))["text"])
            except NotFound:
                alone.append(None)
        found = await asyncio.gather(
            *[shop.labels.get(key) for key in ("One", "one", "One ", "two")], return_exceptions=True
        )
    assert [each["text"] if isinstance(each, dict) else None for each in found] == alone


async def test_a_deadline_is_each_ones_own(shop: DataFlow) -> None:
    async def read(key: int, seconds: float) -> object:
        try:
            async with asyncio.timeout(seconds):
                return (await shop.products.get(key))["name"]
        except TimeoutError:
            return TimedOut

    found = await asyncio.gather(*[read(key, 0.0 if key % 2 else 5.0) for key in range(1, 13)])
    assert [each for key, each in enumerate(found, 1) if not key % 2] == [
        f"product {key}" for key in range(2, 13, 2)
    ]
