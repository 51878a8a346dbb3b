"""List: projections, totals and groups."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from dataflow import DataFlow
from nexus.errors import NexusError
from tests.conftest import Invoke


@pytest.fixture
async def lamps(invoke: Invoke) -> None:
    rows = [{"name": n, "price": p} for n, p in (("a", 1), ("b", 2), ("a", 3))]
    await invoke("products.bulk_create", data=rows)


@pytest.mark.usefixtures("lamps")
async def test_only_some_fields_are_read(invoke: Invoke) -> None:
    done = await invoke("products.list", fields=["name", "id"], order_by="-id", limit=2)
    assert done.records == [{"name": "a", "id": 3}, {"name": "b", "id": 2}]
    page = await invoke("products.list", fields="price", cursor="", limit=2)
    assert page.records == [{"price": 1.0}, {"price": 2.0}]
    assert (await invoke("products.list", fields="price", cursor=page.next)).records == [{"price": 3.0}]


@pytest.mark.usefixtures("lamps")
async def test_a_total_counts_all_that_match(invoke: Invoke) -> None:
    done = await invoke("products.list", filter={"name": "a"}, limit=1, count=True)
    assert (done.count, done.total) == (1, 2)


@pytest.mark.usefixtures("lamps")
async def test_a_total_may_be_an_estimate_and_says_so(invoke: Invoke) -> None:
    for wanted in (False, "none"):
        assert (await invoke("products.list", count=wanted)).total is UNSET
    exact = await invoke("products.list", count="exact", limit=1)
    assert (exact.total, exact.estimated) == (3, UNSET)
    narrowed = await invoke("products.list", count="estimated", filter={"name": "a"})
    assert (narrowed.total, narrowed.estimated) == (2, False)
    whole = await invoke("products.list", count="estimated")
    assert whole.total >= 0
    assert whole.estimated or whole.total == 3


async def test_an_estimate_comes_from_the_statistics(database: str, db: DataFlow, invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": "x"}] * 500)
    if not database.startswith(("postgresql", "mysql")):
        counted = await invoke("products.list", count="estimated")
        assert (counted.total, counted.estimated) == (500, False)
        return
    slots = db.database.pools.readers
    connection = await slots.take()
    await connection.fetch("ANALYZE products" if "postgresql" in database else "ANALYZE TABLE products")
    slots.give(connection)
    counted = await invoke("products.list", count="estimated")
    assert counted.estimated is True
    assert 250 <= counted.total <= 1000


@pytest.mark.usefixtures("lamps")
async def test_groups_instead_of_records(invoke: Invoke) -> None:
    group = {"$group": {"_id": "$name", "sold": {"$sum": "$price"}}}
    stages = [group, {"$sort": {"sold": -1}}, {"$limit": 1}]
    done = await invoke("products.list", aggregate=stages)
    assert (done.records, done.count) == ([{"_id": "a", "sold": 4.0}], 1)
    done = await invoke("products.list", filter={"price": {"$lt": 3}}, aggregate=stages)
    assert done.records == [{"_id": "b", "sold": 2.0}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fields": ["nmae"]}, "Did you mean 'name'"),
        ({"fields": []}, "names no field"),
        ({"aggregate": [{"$count": "n"}], "limit": 3}, "'limit' belongs into 'aggregate'"),
        ({"aggregate": [{"$count": "n"}], "fields": "name"}, "'fields' belongs into 'aggregate'"),
        ({"cuont": True}, "Did you mean 'count'"),
    ],
)
async def test_what_cannot_be_meant_is_refused(invoke: Invoke, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(NexusError, match=words):
        await invoke("products.list", **arguments)
