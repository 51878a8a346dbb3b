"""Records: created, read, changed and deleted, and every way of getting that wrong."""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus, NexusError
from nexus.errors import Conflict, InvalidArguments, NotFound
from tests.conftest import Invoke


async def test_a_record_comes_back_whole(invoke: Invoke) -> None:
    before = datetime.datetime.now(datetime.UTC)
    made = await invoke("products.create", name="Lamp", price=3, tags=["new"])
    assert (made.id, made.name, made.price, made.stock, made.on_sale) == (1, "Lamp", 3.0, 0, False)
    assert (made.note, made.tags) == (None, ["new"])
    assert type(made.price) is float
    assert before <= made.created_at == made.updated_at <= datetime.datetime.now(datetime.UTC)
    assert await invoke("products.get", id=1) == made


async def test_defaults_are_fresh_for_each_record(invoke: Invoke) -> None:
    first = await invoke("products.create", name="a")
    first.tags.append("mine")
    assert (await invoke("products.create", name="b")).tags == []


async def test_an_id_can_be_given_and_is_never_used_again(invoke: Invoke) -> None:
    await invoke("products.create", name="a", id=10)
    with pytest.raises(Conflict, match="same id"):
        await invoke("products.create", name="b", id=10)
    await invoke("products.delete", id=10)
    assert (await invoke("products.create", name="c")).id == 11


async def test_update_changes_what_is_named_and_nothing_else(invoke: Invoke) -> None:
    made = await invoke("products.create", name="Lamp", price=2.5, note="old", tags=["a"])
    changed = await invoke("products.update", id=1, note=None, fields={"price": {"$mul": 2}})
    assert (changed.name, changed.price, changed.note, changed.tags) == ("Lamp", 5.0, None, ["a"])
    assert changed.created_at == made.created_at
    assert changed.updated_at >= made.updated_at
    again = await invoke("products.update", id=1, fields={"$inc": {"stock": 3}, "$set": {"name": "x"}})
    assert (again.stock, again.name) == (3, "x")


async def test_delete_says_what_it_deleted(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp")
    gone = await invoke("products.delete", id=1)
    assert (gone.deleted, gone.id) == (1, 1)
    for name in ("products.get", "products.delete"):
        with pytest.raises(NotFound, match="products has no record with the id 1"):
            await invoke(name, id=1)
    with pytest.raises(NotFound):
        await invoke("products.update", id=1, stock=2)


async def test_lists_are_sorted_and_paged(invoke: Invoke) -> None:
    for name, price in (("b", 1.0), ("a", 2.0), ("B", 2.0), ("é", 1.0)):
        await invoke("products.create", name=name, price=price)
    names = [r.name for r in (await invoke("products.list", order_by="name")).records]
    assert names == ["B", "a", "b", "é"]  # by code point
    page = await invoke("products.list", order_by=["-price", "name"], limit=2, offset=1)
    assert [r.name for r in page.records] == ["a", "b"]
    assert (page.count, page.limit, page.offset) == (2, 2, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("products.create", {"name": "a\0b"}, "DF-102"),
        ("products.create", {"name": "\ud800"}, "DF-102"),
        ("products.create", {"name": "a", "price": float("nan")}, "DF-102"),
        ("products.create", {"name": "a", "price": float("inf")}, "DF-102"),
        ("products.create", {"name": "a", "stock": 2**63}, "DF-102"),
        ("products.create", {"name": "a", "stock": 1.5}, "DF-102"),
        ("products.create", {"name": None}, "DF-102"),
        ("products.create", {"price": 1}, "DF-101"),
        ("products.create", {"name": "a", "colour": "red"}, "DF-106"),
        ("products.get", {"id": "1"}, "DF-102"),
        ("products.get", {"id": 2**64}, "DF-102"),
        ("products.list", {"limit": 0}, "DF-102"),
        ("products.list", {"limit": 1001}, "DF-102"),
        ("products.list", {"offset": -1}, "DF-102"),
        ("products.list", {"order_by": "prise"}, "DF-107"),
        ("products.list", {"order_by": "tags"}, "DF-107"),
        ("products.list", {"order_by": "name; DROP TABLE products"}, "DF-107"),
        ("products.update", {"id": 1}, "DF-102"),
        ("products.update", {"id": 1, "stock": 1, "fields": {"stock": 2}}, "DF-102"),
        ("products.update", {"id": 1, "fields": {"$inc": {"name": 1}}}, "DF-102"),
        ("products.update", {"id": 1, "fields": {"$inc": {"stock": None}}}, "DF-102"),
        ("products.update", {"id": 1, "fields": {"$inc": 3}}, "DF-106"),
        ("products.update", {"id": 1, "fields": {"$icn": {"stock": 1}}}, "DF-106"),
        ("products.update", {"id": 1, "fields": {"$rename": {"tags": "x"}}}, "DF-106"),
        ("products.update", {"id": 1, "fields": {"id": 3}}, "DF-106"),
        ("products.update", {"id": 1, "fields": {"$inc": {"stock": 1}, "stock": 2}}, "DF-102"),
        ("products.update", {"id": 1, "fields": {"$inc": {"stock": 2**63 - 1}}}, "NX-409"),
        ("products.update", {"id": 1, "fields": {"$mul": {"stock": 2**62}}}, "NX-409"),
    ],
)
async def test_bad_input_is_named_and_changes_nothing(
    invoke: Invoke, name: str, arguments: dict[str, Any], code: str
) -> None:
    await invoke("products.create", name="Lamp", stock=5)
    before = await invoke("products.list")
    with pytest.raises(NexusError) as caught:
        await invoke(name, **arguments)
    assert caught.value.code == code
    assert await invoke("products.list") == before


@pytest.mark.feed
async def test_what_is_refused_is_not_published(app: Nexus, invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp", stock=5)
    async with app.feed.subscribe(LOCAL, "products") as followed:
        for arguments in ({"stock": "x"}, {"fields": {"stock": {"$inc": 2**63 - 1}}}):
            with pytest.raises(NexusError):
                await invoke("products.update", id=1, **arguments)
        with pytest.raises(Conflict):
            await invoke("products.create", name="Pen", id=1)
        await invoke("products.create", name="next")
        change = await anext(aiter(followed))
        assert change.record is not None
        assert change.record["name"] == "next"


async def test_a_text_of_a_megabyte(invoke: Invoke) -> None:
    text = "ä" * 500_000
    assert (await invoke("products.create", name=text)).name == text


async def test_increments_side_by_side_are_all_kept(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp")
    await asyncio.gather(
        *(invoke("products.update", id=1, fields={"stock": {"$inc": 1}}) for _ in range(100))
    )
    assert (await invoke("products.get", id=1)).stock == 100


async def test_a_model_with_text_ids() -> None:
    db = DataFlow(":memory:")

    @db.model
    class Page:
        id: str
        title: str = ""

    app = Nexus(db)
    async with app.running():
        with pytest.raises(InvalidArguments, match="missing argument 'id'"):
            await app.runtime.invoke("pages.create", {"title": "x"}, LOCAL, channel="test")
        made = await app.runtime.invoke("pages.create", {"id": "a/b"}, LOCAL, channel="test")
        assert made.id == "a/b"
        assert (await app.runtime.invoke("pages.get", {"id": "a/b"}, LOCAL, channel="test")).id == "a/b"


async def test_names_that_are_sql_are_only_names() -> None:
    db = DataFlow(":memory:")

    @db.model
    class Group:
        __tablename__ = "order"
        select: str
        where: int = 0
        values: list[int] = []

    app = Nexus(db)
    async with app.running():
        async with app.feed.subscribe(LOCAL, "order", filter={"where": {"$gt": 0}}) as followed:
            made = await app.runtime.invoke(
                "order.create", {"select": '\'; DROP TABLE "order"; --', "where": 1}, LOCAL, channel="t"
            )
            change = await anext(aiter(followed))
        assert change.record is not None
        assert change.record["select"] == made.select


async def test_another_program_can_write_and_cannot_write_nonsense(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'shared.db'}")

    @db.model
    class Product:
        name: str
        stock: int = 0

    app = Nexus(db)
    async with app.running(), app.feed.subscribe(LOCAL, "products") as followed:
        changes = aiter(followed)
        with sqlite3.connect(tmp_path / "shared.db") as other:
            stamp = "2026-01-01T00:00:00.000000Z"
            insert = "INSERT INTO products (name, stock, created_at, updated_at) VALUES (?, ?, ?, ?)"
            other.execute(insert, ("by hand", 3, stamp, stamp))
            other.execute("UPDATE products SET id = 9 WHERE id = 1")
            with pytest.raises(sqlite3.IntegrityError):
                other.execute(insert, ("x", "three", stamp, stamp))
        other.close()
        seen = [await anext(changes) for _ in range(3)]
    assert [(change.event, change.key) for change in seen] == [("enter", 1), ("leave", 1), ("enter", 9)]
    assert [change.actor for change in seen] == [None, None, None]


async def test_registration_touches_no_database(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'none.db'}")

    @db.model
    class Product:
        name: str

    Nexus(db)
    assert db.install_sql()[0].startswith("CREATE TABLE")
    assert not (tmp_path / "none.db").exists()


async def test_two_processes_lose_no_update(tmp_path: Path) -> None:
    program = tmp_path / "bump.py"
    program.write_text(
        f"""
import asyncio
from dataflow import DataFlow
from nexus import LOCAL, Nexus
db = DataFlow("sqlite:///{tmp_path / "both.db"}")
@db.model
class Product:
    name: str
    stock: int = 0
app = Nexus(db)
async def main():
    async with app.running():
        run = lambda op, /, **a: app.runtime.invoke(op, a, LOCAL, channel="test")
        if (await run("products.count")).count == 0:
            try:
                await run("products.create", id=1, name="Lamp")
            except Exception as failure:
                assert failure.code == "NX-409"
        for _ in range(50):
            await run("products.update", id=1, fields={{"stock": {{"$inc": 1}}}})
asyncio.run(main())
"""
    )
    running = [await asyncio.create_subprocess_exec(sys.executable, program) for _ in range(3)]
    assert [await process.wait() for process in running] == [0, 0, 0]
    with sqlite3.connect(tmp_path / "both.db") as check:
        assert check.execute("SELECT stock FROM products").fetchall() == [(150,)]
        assert check.execute("SELECT count(*), max(seq) FROM dataflow_changes").fetchone() == (151, 151)
    check.close()


async def test_where_no_id_is_left_the_record_is_refused(invoke: Invoke) -> None:
    await invoke("products.create", name="last", id=2**63 - 1)
    with pytest.raises(Conflict, match="No id is left"):
        await invoke("products.create", name="one more")
