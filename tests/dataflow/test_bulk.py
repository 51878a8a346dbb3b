"""Many records at a time: set-based, in one transaction, alike on every database."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import uuid
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import ConfirmationRequired, Conflict, InvalidArguments, NexusError, NotFound
from tests.conftest import Invoke


async def names(invoke: Invoke, **query: Any) -> list[str]:
    return [record.name for record in (await invoke("products.list", order_by="id", **query)).records]


async def test_records_are_created_whole_and_in_their_order(invoke: Invoke) -> None:
    rows = [{"name": f"n{i}", "price": i / 10, "tags": ["é", str(i)]} for i in range(25)]
    rows[3] |= {"note": 'it\'s 100 % \\ "odd" 😀', "on_sale": False, "stock": 2**63 - 1}
    done = await invoke("products.bulk_create", data=rows, on_sale=True, batch_size=10, return_ids=True)
    assert (done.success_count, done.failure_count, done.records_processed) == (25, 0, 25)
    assert (done.created, done.updated, done.skipped) == (25, 0, 0)
    assert done.ids == list(range(1, 26))
    assert done.execution_time > 0
    listed = (await invoke("products.list", order_by="id")).records
    assert [(r.id, r.name, r.price, r.tags) for r in listed] == [
        (i + 1, row["name"], row["price"], row["tags"]) for i, row in enumerate(rows)
    ]
    assert (listed[3].note, listed[3].on_sale, listed[3].stock) == (rows[3]["note"], False, 2**63 - 1)
    assert listed[4].on_sale is True
    assert len({r.created_at for r in listed} | {r.updated_at for r in listed}) == 1
    assert (await invoke("products.create", name="next")).id == 26


async def test_ids_that_are_given_and_generated_ones_may_be_mixed(invoke: Invoke) -> None:
    rows = [{"name": "a"}, {"name": "b", "id": 10}, {"name": "c", "id": 7}, {"name": "d"}]
    done = await invoke("products.bulk_create", data=rows, return_ids=True)
    assert done.ids[:3] == [1, 10, 7]
    assert done.ids[3] > 10
    assert (await invoke("products.get", id=7)).name == "c"


async def test_nothing_is_as_good_as_something(invoke: Invoke) -> None:
    done = await invoke("products.bulk_create", data=[], return_ids=True)
    assert (done.success_count, done.ids) == (0, [])
    assert (await invoke("products.bulk_upsert", data=[])).success_count == 0


async def test_many_more_rows_than_a_statement_takes_parameters(invoke: Invoke) -> None:
    rows = [{"name": f"n{i}", "note": "x" * 200} for i in range(12_000)]
    done = await invoke("products.bulk_create", data=rows, return_ids=True)
    assert done.ids == list(range(1, 12_001))
    updated = await invoke("products.bulk_update", filter={"id": {"$gt": 0}}, update={"$inc": {"stock": 1}})
    assert updated.success_count == 12_000
    ids = (await invoke("products.bulk_delete", filter={}, limit=11_999, return_ids=True)).ids
    assert ids == list(range(1, 12_000))
    assert await names(invoke) == ["n11999"]


async def test_a_record_that_is_wrong_is_named_and_nothing_is_kept(invoke: Invoke) -> None:
    rows: list[dict[str, Any]] = [{"name": "a"}, {"nmae": "b", "price": "x"}]
    with pytest.raises(InvalidArguments) as refused:
        await invoke("products.bulk_create", data=rows)
    assert {(p.code, p.pointer) for p in refused.value.problems} == {
        ("DF-106", "/data/1/nmae"),
        ("DF-101", "/data/1/name"),
        ("DF-102", "/data/1/price"),
    }
    with pytest.raises(InvalidArguments, match=r"the record 0.*NUL"):
        await invoke("products.bulk_create", data=[{"name": "a\0"}])
    assert (await invoke("products.count")).count == 0


async def test_a_conflict_in_the_last_batch_undoes_all_of_them(invoke: Invoke) -> None:
    await invoke("products.create", name="old", id=20)
    rows = [{"name": str(i), "id": i} for i in range(1, 21)]
    with pytest.raises(Conflict, match="same id"):
        await invoke("products.bulk_create", data=rows, batch_size=5)
    assert await names(invoke) == ["old"]
    await invoke("products.update", id=20, stock=2**62)
    with pytest.raises(Conflict, match="too large"):
        await invoke("products.bulk_update", filter={}, update={"$mul": {"stock": 4}}, batch_size=1)


@pytest.mark.parametrize("word", ["skip", "ignore"])
async def test_what_is_there_can_be_left_alone(invoke: Invoke, word: str) -> None:
    await invoke("products.create", name="a", price=1)
    rows = [{"id": 1, "name": "x"}, {"id": 2, "name": "b"}, {"id": 2, "name": "c"}, {"name": "d"}]
    done = await invoke("products.bulk_create", data=rows, conflict_resolution=word, return_ids=True)
    assert (done.created, done.updated, done.skipped, done.success_count) == (2, 0, 2, 2)
    assert done.ids == [1, 2, 2, 3]
    assert await names(invoke) == ["a", "b", "d"]


@pytest.mark.parametrize("verb", ["bulk_create", "bulk_upsert"])
@pytest.mark.parametrize("word", ["update", "upsert"])
async def test_what_is_there_can_be_changed(invoke: Invoke, verb: str, word: str) -> None:
    await invoke("products.create", name="a", price=1, note="kept")
    rows: list[dict[str, Any]] = [
        {"name": "a", "price": 2},
        {"name": "b", "stock": 3},
        {"name": "b", "price": 9},
    ]
    done = await invoke(
        f"products.{verb}", data=rows, conflict_resolution=word, match_fields=["name"], return_ids=True
    )
    assert (done.created, done.updated, done.skipped) == (1, 2, 0)
    assert done.ids == [1, 2, 2]
    first, second = (await invoke("products.list", order_by="id")).records
    assert (first.price, first.note) == (2.0, "kept")
    assert (second.price, second.stock) == (9.0, 3)
    assert first.updated_at > first.created_at


async def test_several_that_match_one_row_are_refused(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": "a"}, {"name": "a"}])
    with pytest.raises(Conflict, match="2 records of products match"):
        await invoke("products.bulk_upsert", data=[{"name": "a", "price": 1}], match_fields=["name"])


async def test_bulk_upserts_at_the_same_time_make_each_record_once(app: Nexus) -> None:
    async def run(start: int) -> Any:
        rows = [{"name": f"n{(start + i) % 40}", "note": str(start)} for i in range(40)]
        arguments = {"data": rows, "match_fields": ["name"]}
        return await app.runtime.invoke("products.bulk_upsert", arguments, LOCAL, channel="test")

    done = await asyncio.gather(*(run(start) for start in range(12)))
    assert sum(each.created for each in done) == 40
    counted = await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
    assert counted.count == 40


async def test_all_that_match_are_changed(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": n, "price": 10, "stock": 1} for n in "abcab"])
    done = await invoke(
        "products.bulk_update", filter={"name": "a"}, update={"price": {"$multiply": 0.5}, "note": "sale"}
    )
    assert (done.success_count, done.updated, done.records_processed) == (2, 2, 2)
    assert not done.ids
    for spelling in ({"update": {"$inc": {"stock": 1}}}, {"updates": {"stock": {"$inc": 1}}}):
        await invoke("products.bulk_update", filter={}, **spelling)
    done = await invoke("products.bulk_update", filter={"name": "b"}, fields={"note": "x"}, return_ids=True)
    assert done.ids == [2, 5]
    await invoke("products.bulk_update", filter={"name": "c"}, on_sale=True, limit=1, batch_size=1)
    listed = (await invoke("products.list", order_by="id")).records
    assert [(r.price, r.stock, r.note, r.on_sale) for r in listed] == [
        (5.0, 3, "sale", False),
        (10.0, 3, "x", False),
        (10.0, 3, None, True),
        (5.0, 3, "sale", False),
        (10.0, 3, "x", False),
    ]
    limited = await invoke("products.bulk_update", filter={}, update={"stock": 0}, limit=2, return_ids=True)
    assert limited.ids == [1, 2]


@pytest.mark.parametrize("argument", ["data", "updates"])
async def test_each_record_can_be_changed_in_its_own_way(invoke: Invoke, argument: str) -> None:
    await invoke("products.bulk_create", data=[{"name": n, "price": 1} for n in "abc"])
    rows: list[dict[str, Any]] = [
        {"id": 3, "price": {"$inc": 2}},
        {"id": 1, "note": "one", "price": 7},
        {"id": 3, "price": {"$inc": 2}},
    ]
    done = await invoke("products.bulk_update", **{argument: rows}, on_sale=True, return_ids=True)
    assert (done.success_count, done.ids) == (3, [3, 1, 3])
    first, second, third = (await invoke("products.list", order_by="id")).records
    assert (first.note, first.price, first.on_sale) == ("one", 7.0, True)
    assert (second.price, second.on_sale) == (1.0, False)
    assert (third.price, third.on_sale) == (5.0, True)
    named = [{"name": "b", "stock": 4}]
    await invoke("products.bulk_update", **{argument: named}, match_fields=["name"])
    assert (await invoke("products.get", id=2)).stock == 4
    with pytest.raises(NotFound, match=r"no record with the id 99 \(\w+ 1\)"):
        await invoke("products.bulk_update", **{argument: [{"id": 1, "stock": 9}, {"id": 99, "stock": 9}]})
    assert (await invoke("products.get", id=1)).stock == 0


async def test_all_that_match_are_deleted(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": n} for n in "abcab"])
    done = await invoke("products.bulk_delete", filter={"name": "a"}, return_ids=True)
    assert (done.success_count, done.deleted, done.ids) == (2, 2, [1, 4])
    assert (await invoke("products.bulk_delete", filter={"name": "zzz"})).deleted == 0
    assert (await invoke("products.bulk_delete", filter={})).deleted == 3
    assert await names(invoke) == []


async def test_a_confirmation_says_how_many_records_match(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": n} for n in "abcab"])
    arguments: dict[str, Any] = {"filter": {"name": "a"}, "confirmation_required": True}
    with pytest.raises(ConfirmationRequired, match="2 records of products would be deleted"):
        await invoke("products.bulk_delete", **arguments)
    with pytest.raises(ConfirmationRequired, match="1 records"):
        await invoke("products.bulk_delete", **arguments, limit=1)
    with pytest.raises(ConfirmationRequired, match="2 records of products would be changed"):
        await invoke("products.bulk_update", **arguments, update={"stock": 1})
    assert len(await names(invoke)) == 5
    assert (await invoke("products.bulk_delete", **arguments, confirmed=True)).deleted == 2


@pytest.mark.parametrize(
    ("name", "arguments", "code", "words"),
    [
        ("bulk_delete", {}, "DF-101", "missing argument 'filter'"),
        ("bulk_delete", {"filter": None}, "DF-102", "'filter'"),
        ("bulk_delete", {"filter": {}, "soft_delete": True}, "DF-106", "soft_delete"),
        ("bulk_delete", {"filtre": {}}, "DF-106", "Did you mean 'filter'"),
        ("bulk_delete", {"filter": {"nmae": 1}}, "DF-107", "Did you mean 'name'"),
        ("bulk_delete", {"filter": {}, "limit": 0}, "DF-102", "'limit'"),
        ("bulk_update", {"update": {"stock": 1}}, "DF-101", r"\{\} means every record"),
        ("bulk_update", {"filter": {}}, "DF-102", "nothing to change"),
        ("bulk_update", {"filter": {}, "update": {"nmae": 1}}, "DF-106", "Did you mean 'name'"),
        ("bulk_update", {"filter": {}, "update": {"stock": 1}, "stock": 1}, "DF-102", "given twice"),
        ("bulk_update", {"filter": {}, "update": {"stock": 1}, "fields": {}}, "DF-102", "give one"),
        ("bulk_update", {"filter": {}, "data": [{"id": 1, "stock": 1}]}, "DF-102", "beside a list"),
        ("bulk_update", {"data": [{"stock": 1}]}, "DF-101", "the record 0 needs 'id'"),
        ("bulk_update", {"data": [{"id": 1}]}, "DF-102", "nothing to change"),
        ("bulk_update", {"data": [{"id": 1, "nmae": 1}]}, "DF-106", "Did you mean 'name'"),
        ("bulk_create", {"data": [{"name": "a"}], "batch_size": 0}, "DF-102", "'batch_size'"),
        ("bulk_create", {"data": {"name": "a"}}, "DF-102", "'data'"),
        ("bulk_create", {"data": [], "conflict_resolution": "merge"}, "DF-102", "conflict_resolution"),
        ("bulk_create", {"data": [], "match_fields": ["name"]}, "DF-102", "needs a 'conflict_resolution'"),
        ("bulk_upsert", {"data": [], "match_fields": ["nmae"]}, "DF-106", "Did you mean 'name'"),
        ("bulk_upsert", {"data": [], "match_fields": ["tags"]}, "DF-106", "'tags'"),
        ("bulk_upsert", {"data": [], "match_fields": []}, "DF-102", "one or more"),
        ("bulk_upsert", {"data": [{"price": 1}], "match_fields": ["name"]}, "DF-101", "needs 'name'"),
        ("bulk_upsert", {"data": [{"id": 7, "price": 1}]}, "DF-101", "missing argument 'name'"),
    ],
)
async def test_bad_input_is_named(
    invoke: Invoke, name: str, arguments: dict[str, Any], code: str, words: str
) -> None:
    await invoke("products.create", name="Lamp")
    with pytest.raises(NexusError, match=words) as refused:
        await invoke(f"products.{name}", **arguments)
    assert refused.value.code == code
    assert await names(invoke) == ["Lamp"]


@pytest.mark.feed
async def test_each_record_of_a_bulk_is_published(app: Nexus, invoke: Invoke) -> None:
    async with app.feed.subscribe(LOCAL, "products") as subscription:
        changes = aiter(subscription)

        async def next_changes(count: int) -> list[tuple[str, int]]:
            async with asyncio.timeout(5):
                return [(c.event, c.key) for c in [await anext(changes) for _ in range(count)]]

        await invoke("products.bulk_create", data=[{"name": n} for n in "abc"])
        assert await next_changes(3) == [("enter", 1), ("enter", 2), ("enter", 3)]
        with pytest.raises(Conflict):
            await invoke("products.bulk_create", data=[{"name": "x"}, {"name": "y", "id": 1}])
        await invoke("products.bulk_update", filter={"name": {"$ne": "b"}}, update={"stock": 1})
        assert sorted(await next_changes(2)) == [("update", 1), ("update", 3)]
        await invoke("products.bulk_upsert", data=[{"id": 1, "stock": 5}, {"id": 9, "name": "z"}])
        assert sorted(await next_changes(2)) == [("enter", 9), ("update", 1)]
        await invoke("products.bulk_delete", filter={"id": {"$lt": 3}})
        assert sorted(await next_changes(2)) == [("leave", 1), ("leave", 2)]


async def test_ids_of_text_and_soft_deletion(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Note:
        id: str
        text: str = ""
        __dataflow__ = {"soft_delete": True, "versioned": True}

    app = Nexus(db)
    async with app.running():

        async def run(name: str, **arguments: Any) -> Any:
            return await app.runtime.invoke(f"notes.{name}", arguments, LOCAL, channel="test")

        rows = [{"id": "a'\"", "text": "x"}, {"id": "b"}]
        assert (await run("bulk_create", data=rows, return_ids=True)).ids == ["a'\"", "b"]
        with pytest.raises(InvalidArguments, match="'id'"):
            await run("bulk_upsert", data=[{"text": "x"}])
        done = await run("bulk_upsert", data=[{"id": "b", "text": "y"}, {"id": "c"}], return_ids=True)
        assert (done.ids, done.created, done.updated) == (["b", "c"], 1, 1)
        assert (await run("get", id="b")).version == 2
        assert (await run("bulk_delete", filter={"id": {"$ne": "c"}}, return_ids=True)).ids == ["a'\"", "b"]
        assert (await run("bulk_delete", filter={})).deleted == 1
        assert (await run("count")).count == 0
        assert (await run("count", include_deleted=True)).count == 3
        assert (await run("bulk_update", filter={}, text="z")).updated == 0
        assert (await run("bulk_update", filter={}, text="z", include_deleted=True)).updated == 3
        assert (await run("bulk_delete", filter={}, include_deleted=True, soft_delete=False)).deleted == 3
        assert (await run("count", include_deleted=True)).count == 0


async def test_every_type_travels_in_bulk(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Thing:
        id: uuid.UUID
        code: str
        price: decimal.Decimal = decimal.Decimal("0.10")
        data: bytes = b""
        at: datetime.datetime | None = None
        clock: datetime.time | None = None
        extra: dict[str, Any] = {}
        __indexes__ = [{"fields": ["code"], "unique": True}]

    app = Nexus(db)
    async with app.running():

        async def run(name: str, **arguments: Any) -> Any:
            return await app.runtime.invoke(f"things.{name}", arguments, LOCAL, channel="test")

        moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
        row = {
            "code": "a",
            "price": decimal.Decimal("12.3456"),
            "data": b"\0\xff'%",
            "at": moment,
            "clock": datetime.time(1, 2, 3),
            "extra": {"a": [1, None, "é"]},
        }
        made = await run("bulk_create", data=[row, {"code": "b"}], return_ids=True)
        assert all(isinstance(key, uuid.UUID) for key in made.ids)
        first = await run("get", id=made.ids[0])
        assert {name: getattr(first, name) for name in row} == row
        again = await run(
            "bulk_upsert",
            data=[{"code": "b", "price": "3"}, {"code": "c", "at": moment}],
            match_fields=["code"],
            return_ids=True,
        )
        assert (again.created, again.updated, again.ids[0]) == (1, 1, made.ids[1])
        rows = [{"id": key, "price": {"$inc": "0.5"}} for key in again.ids]
        assert (await run("bulk_update", data=rows)).updated == 2
        prices = [r.price for r in (await run("list", order_by="code")).records]
        assert prices == [decimal.Decimal(text) for text in ("12.3456", "3.5", "0.6")]
        done = await run("aggregate", aggregate={"least": {"$min": "price"}, "last": {"$max": "at"}})
        assert done.records == [{"least": decimal.Decimal("0.6"), "last": moment}]
        with pytest.raises(Conflict, match="code"):
            await run("bulk_create", data=[{"code": "x"}, {"code": "a"}])
        assert (await run("count")).count == 3


async def test_bulk_statements_can_be_echoed(database: str, caplog: pytest.LogCaptureFixture) -> None:
    db = DataFlow(database, echo=True)

    @db.model
    class Thing:
        name: str

    app = Nexus(db)
    async with app.running():

        async def run(name: str, /, **arguments: Any) -> Any:
            return await app.runtime.invoke(f"things.{name}", arguments, LOCAL, channel="test")

        await run("bulk_create", data=[{"name": "secret"}, {"name": "b"}])
        await run("bulk_upsert", data=[{"name": "secret"}, {"name": "c"}], match_fields=["name"])
        await run("bulk_update", data=[{"id": 1, "name": "z"}])
    assert "INSERT INTO" in caplog.text
    assert "secret" not in caplog.text
