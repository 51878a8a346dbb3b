"""Related records beside those that are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow, includes
from nexus.errors import InvalidFilter, NotFound, TooLarge
from tests.support.shop import declare_shop


@pytest.fixture
async def db(database: str) -> AsyncIterator[DataFlow]:
    db = DataFlow(database)
    declare_shop(db)
    acme = await db.companies.create(name="Acme", meta={"kind": "big"})
    ada = await db.customers.create(name="Ada", company_id=acme["id"])
    await db.customers.create(name="Bob", friend_id=ada["id"])
    for total in (10.0, 99.0):
        await db.orders.create(total=total, customer_id=ada["id"])
    yield db
    await db.close()


async def test_one_and_many(db: DataFlow) -> None:
    ada, bob = (await db.customers.list(include=["company", "orders"]))["records"]
    assert ada["company"]["name"] == "Acme"
    assert ada["company"]["meta"] == {"kind": "big"}
    assert [order["total"] for order in ada["orders"]] == [10.0, 99.0]
    assert (bob["company"], bob["orders"]) == (None, [])


async def test_relations_of_relations(db: DataFlow) -> None:
    orders = (await db.orders.list(include="customer.company, customer.friends", order_by="-total"))[
        "records"
    ]
    assert [order["customer"]["company"]["name"] for order in orders] == ["Acme", "Acme"]
    assert [friend["name"] for friend in orders[0]["customer"]["friends"]] == ["Bob"]


async def test_beside_chosen_fields(db: DataFlow) -> None:
    (order, _) = (await db.orders.list(include=["customer"], fields=["total"]))["records"]
    assert sorted(order) == ["customer", "total"]
    assert order["customer"]["name"] == "Ada"


async def test_in_pages(db: DataFlow) -> None:
    first = await db.orders.list(include="customer", cursor="", limit=1)
    second = await db.orders.list(include="customer", cursor=first["next"], limit=1, count=True)
    assert [page["records"][0]["total"] for page in (first, second)] == [10.0, 99.0]
    assert (second["next"], second["total"]) == (None, 2)
    assert second["records"][0]["customer"]["name"] == "Ada"


async def test_of_one_record(db: DataFlow) -> None:
    ada = await db.customers.get(filter={"name": "Ada"}, include="orders")
    assert [order["total"] for order in ada["orders"]] == [10.0, 99.0]
    assert (await db.customers.get(ada["id"], include="company"))["company"]["name"] == "Acme"
    assert (await db.customers.get(name="Bob", include="company"))["company"] is None
    nobody = await db.customers.get(name="nobody", include="company,orders")
    assert (nobody["id"], nobody["company"], nobody["orders"]) == (None, None, [])
    with pytest.raises(NotFound):
        await db.customers.get(999, include="company")


@pytest.mark.parametrize(
    ("include", "named"),
    [
        ("compny", "company"),
        ("company.x", "x"),
        ("", "''"),
        ("name", "name"),
        (".".join(["friend"] * 9), "at most 8"),
    ],
)
async def test_what_is_no_relation_is_refused(db: DataFlow, include: str, named: str) -> None:
    with pytest.raises(InvalidFilter, match=named):
        await db.customers.list(include=include)


async def test_inside_of_a_transaction_what_it_did_is_seen(db: DataFlow) -> None:
    async with db.transaction() as tx:
        eve = await tx.customers.create(name="Eve")
        await tx.orders.create(total=7.0, customer_id=eve["id"])
        found = await tx.customers.get(eve["id"], include="orders")
        assert [order["total"] for order in found["orders"]] == [7.0]
        groups = (await tx.orders.list(include="customer"))["records"]
        assert [order["customer"]["name"] for order in groups] == ["Ada", "Ada", "Eve"]


async def test_no_more_than_can_be_held(db: DataFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(includes, "MOST_RECORDS", 2)
    assert len((await db.customers.list(include="orders"))["records"]) == 2
    await db.orders.create(total=1.0, customer_id=(await db.customers.get(name="Bob"))["id"])
    with pytest.raises(TooLarge, match="orders"):
        await db.customers.list(include="orders")


async def test_what_belongs_together_is_read_as_one_state(db: DataFlow) -> None:
    """A customer that moves between two companies, both of which it is counted in, is always in one."""
    other = await db.companies.create(name="Other")
    ada = await db.customers.get(name="Ada")
    places = [ada["company_id"], other["id"]]
    stop = asyncio.Event()

    async def move() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            async with db.transaction() as tx:
                await tx.customers.update(ada["id"], company_id=places[turn % 2])
                await tx.companies.update(places[turn % 2], name=f"here {turn}")
                await tx.companies.update(places[(turn + 1) % 2], name=f"there {turn}")

    mover = asyncio.create_task(move())
    try:
        for _ in range(60):
            found = await db.customers.get(ada["id"], include="company")
            name: Any = found["company"]["name"]
            assert name in ("Acme", "Other") or name.startswith("here"), name
    finally:
        stop.set()
        await mover


async def test_it_needs_one_statement_for_each_relation(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = DataFlow(database, echo=True)
    declare_shop(db)
    company = await db.companies.create(name="Acme")
    for _ in range(5):
        customer = await db.customers.create(name="x", company_id=company["id"])
        await db.orders.create(total=1.0, customer_id=customer["id"])
    await db.orders.list(include="customer.company")
    with caplog.at_level("INFO", logger="dataflow.sql"):
        caplog.clear()
        await db.orders.list(include="customer.company")
    selects = [record for record in caplog.records if "SELECT" in record.getMessage()]
    assert len(selects) == 3
    await db.close()
