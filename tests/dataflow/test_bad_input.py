"""Whatever is sent: a clear error or the right answer, the same on every database, and the program lives."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow
from nexus.errors import NexusError, RegistrationError

_WORDS = """all analyze cast check column constraint current_date desc distinct foreign group having index
    interval join keys left natural order primary rank references row rows schema select system table then
    union unique user using values when where window"""
WORDS = [*_WORDS.split(), "key"]


@pytest.mark.parametrize("table", ["order", "select", "user", "group", "Table"])
async def test_words_of_sql_are_names(database: str, table: str) -> None:
    db = DataFlow(database)
    members: dict[str, Any] = {
        "__annotations__": dict.fromkeys(WORDS, int),
        "__tablename__": table,
        "__indexes__": [{"fields": ["order", "group"], "unique": True}, {"fields": ["key"]}],
        "__dataflow__": {"route": "things", "versioned": True, "soft_delete": True},
        **dict.fromkeys(WORDS, 0),
    }
    db.model(type("Thing", (), members), skip_validation=True)
    things = db.things
    made = await things.create(select=7, order=1)
    assert made["select"] == 7
    assert (await things.update(made["id"], fields={"$inc": {"where": 2}}))["where"] == 2
    await things.bulk_create(data=[{"order": n, "values": n} for n in range(2, 5)])
    await things.upsert(where={"order": 9}, create={"group": 1}, update={"rank": 1}, conflict_on=["order"])
    await things.bulk_update(filter={"values": {"$gte": 3}}, update={"user": 5})
    found = await things.list(filter={"user": 5, "table": {"$lt": 1}}, order_by=["-order", "key"])
    assert [record["order"] for record in found["records"]] == [4, 3]
    grouped = await things.aggregate(group_by=["user"], aggregate={"rows": {"$sum": "order"}})
    assert {record["user"]: record["rows"] for record in grouped["records"]} == {0: 12, 5: 7}
    await things.delete(made["id"])
    await db.close()


NAMES = ['"; DROP TABLE x; --', "größe", "n" * 200, "1st", "a b", "a'b", "a`b", "a;b", "_a", "a\0"]


@pytest.mark.parametrize("name", NAMES)
def test_other_names_are_refused(name: str) -> None:
    db = DataFlow(":memory:")
    for members in (
        {"__annotations__": {"a": int}, "__tablename__": name},
        {"__annotations__": {name: int}},
        {"__annotations__": {"a": int}, "__indexes__": [{"fields": ["a"], "name": name}]},
        {"__annotations__": {"a": int}, "__dataflow__": {"route": name}},
    ):
        with pytest.raises(RegistrationError) as caught:
            db.model(type("Thing", (), members))
        assert len(str(caught.value)) < 500
    assert not db.models


@pytest.fixture
async def shop(db: DataFlow) -> AsyncIterator[DataFlow]:
    await db.products.create(name="Lamp", stock=5)
    yield db
    await db.close()


VALUES = [
    ("name", "a\0b"),
    ("name", "\ud800"),
    ("name", b"\xff\xfe"),
    ("price", float("nan")),
    ("price", float("inf")),
    ("price", float("-inf")),
    ("stock", 2**63),
    ("stock", -(2**63) - 1),
    ("stock", 10**4000),
    ("stock", 1.5),
    ("stock", "1"),
    ("on_sale", 1),
    ("tags", ["\0"]),
    ("tags", ["\udfff"]),
    ("tags", "a"),
    ("name", {"$gt": ""}),
    ("name", ["a"]),
]


async def test_what_no_field_can_hold(shop: DataFlow, subtests: pytest.Subtests) -> None:
    for field, value in VALUES:
        with subtests.test(field=field, value=repr(value)[:40]):
            await everywhere(shop, field, value)


async def everywhere(shop: DataFlow, field: str, value: Any) -> None:
    products = shop.products
    row = {"name": "x", field: value}
    before = await products.list()
    for work in (
        lambda: products.create(**row),
        lambda: products.update(1, **{field: value}),
        lambda: products.update(1, fields={"$set": {field: value}}),
        lambda: products.bulk_create(data=[{"name": "y"}, row]),
        lambda: products.bulk_update(filter={"id": 1}, update={field: value}),
        lambda: products.upsert(where={"id": 1}, create=row, update={field: value}),
        lambda: products.bulk_upsert(data=[{"id": 1, **row}]),
    ):
        with pytest.raises(NexusError) as caught:
            await work()
        assert 400 <= caught.value.status < 500, caught.value
        assert len(str(caught.value)) < 1000
    assert await products.list() == before


DOCUMENTS: list[Any] = [
    {"price": float("nan")},
    {"price": {"$gt": float("inf")}},
    {"stock": {"$in": [1, 2**64]}},
    {"name": "\0"},
    {"name": {"$contains": "\ud800"}},
    {"name": {"$regex": "^(a+)+$"}},
    {"name": {"$regex": "(" * 500}},
    {"name": {"$regex": "a" * 2000}},
    {"tags": {"$contains": "\0"}},
    {"tags": {"$in": [float("nan")]}},
    {"stock": {"$in": "abc"}},
    {"$or": []},
    {"stock": {"$between": [1]}},
    {1: 2},
    [1],
    "name = 'x'",
    {"name; DROP TABLE products": 1},
    {"nmae": 1},
    {"stock": {"$gtt": 1}},
]


async def test_filters_that_mean_nothing(shop: DataFlow, subtests: pytest.Subtests) -> None:
    for document in DOCUMENTS:
        with subtests.test(document=repr(document)[:40]):
            await refused_filter(shop, document)


async def refused_filter(shop: DataFlow, document: Any) -> None:
    for work in (
        lambda: shop.products.list(filter=document),
        lambda: shop.products.count(filter=document),
        lambda: shop.products.bulk_update(filter=document, update={"stock": 9}),
        lambda: shop.products.bulk_delete(filter=document, confirmed=True),
    ):
        with pytest.raises(NexusError) as caught:
            await work()
        assert caught.value.code in ("DF-107", "DF-102", "NX-400")
    assert (await shop.products.get(1))["stock"] == 5


async def test_nesting_without_end(shop: DataFlow) -> None:
    for operator, depth in itertools.product(("$not", "$and", "$or", "$nor"), (1000, 50_000)):
        document: Any = {"stock": 5}
        for _ in range(depth):
            document = {operator: document if operator == "$not" else [document]}
        with pytest.raises(NexusError) as caught:
            await shop.products.count(filter=document)
        assert caught.value.status in (400, 422)
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(NexusError):
        await shop.products.create(name="x", tags=deep)
    assert await shop.products.count() == {"count": 1}


PAGES: list[dict[str, Any]] = [
    {"limit": -1},
    {"limit": 0},
    {"limit": 10**30},
    {"limit": "5"},
    {"limit": True},
    {"limit": 2.5},
    {"offset": -1},
    {"offset": 2**63},
    {"cursor": "x"},
    {"cursor": "\0" * 100},
    {"order_by": "-"},
    {"order_by": ["name", "\0"]},
    {"sort": [{"name": 2}]},
    {"fields": []},
    {"limt": 5},
]


async def test_pages_that_there_are_not(shop: DataFlow, subtests: pytest.Subtests) -> None:
    for arguments in PAGES:
        with subtests.test(arguments=repr(arguments)[:40]):
            with pytest.raises(NexusError) as caught:
                await shop.products.list(**arguments)
            assert caught.value.code in ("DF-102", "DF-106", "DF-107", "NX-410")


async def test_lists_of_nothing(shop: DataFlow) -> None:
    for document, count in (
        ({"stock": {"$in": []}}, 0),
        ({"stock": {"$nin": []}}, 1),
        ({"tags": {"$in": []}}, 0),
        ({"tags": {"$nin": []}}, 1),
        ({"tags": {"$overlap": []}}, 0),
        ({"name": {"$in": []}}, 0),
        ({}, 1),
    ):
        assert await shop.products.count(filter=document) == {"count": count}
    assert (await shop.products.bulk_create(data=[]))["records_processed"] == 0
    assert (await shop.products.list(offset=2**62))["records"] == []


async def test_a_megabyte(shop: DataFlow) -> None:
    text = "é'\\%\"" * 200_000
    made = await shop.products.create(name=text, tags=[text], note="x")
    assert made["name"] == text
    assert made["tags"] == [text]
    found = ({"name": text}, {"name": {"$startswith": text}}, {"tags": text}, {"tags": {"$contains": text}})
    for document in found:
        assert await shop.products.count(filter=document) == {"count": 1}
    await shop.products.bulk_create(data=[{"name": text}, {"name": text + "x"}])
    assert (await shop.products.update(made["id"], note=text))["note"] == text
    assert await shop.products.count(filter={"name": {"$contains": text}}) == {"count": 3}


async def test_moments_without_zone_are_in_utc(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Visit:
        at: datetime.datetime

    plain = datetime.datetime(2026, 3, 29, 2, 30)
    there = plain.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    for value in (plain, "2026-03-29T02:30:00", "2026-03-29T02:30:00Z", there.isoformat()):
        made = await db.visits.create(at=value)
        assert made["at"].tzinfo is datetime.UTC
    assert await db.visits.count(filter={"at": plain}) == {"count": 3}
    assert await db.visits.count(filter={"at": there}) == {"count": 1}
    assert await db.visits.count(filter={"at": {"$lt": "2026-03-29T02:30:00"}}) == {"count": 1}
    await db.close()
