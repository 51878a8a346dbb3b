"""The change log: what writes into it, who is named in it, and how it is kept small."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, Session
from nexus.errors import ConfigurationError, Conflict, CursorExpired, Unavailable
from nexus.request import REQUEST
from tests.support.programs import kind_of, run_sql

pytestmark = pytest.mark.feed

REACHABLE = ("file", "postgresql", "mysql")  # for another program, or for another instance of ours

ANN = Session(id="s-ann", user="ann", scopes=frozenset({"*"}), tenant="acme")
BOB = Session(id="s-bob", user="bob'; --", scopes=frozenset({"*"}), tenant="o'hara \\ \x1f 😀")
PUT = "INSERT INTO products (name, price, stock, on_sale, tags, created_at, updated_at) VALUES ({})"
# What makes a log that of before, and the trigger of its inserts.
OLD_PG = (
    'INSERT INTO dataflow_changes (model, pk, op, "row", actor, at)'
    " VALUES ('products', NEW.id::text, 'create',"
    " json_build_object('id', NEW.id, 'name', NEW.name), split_part(current_setting('nexus.who', true),"
    " chr(31), 1), now())"
)
OLD_MYSQL = (
    "INSERT INTO dataflow_changes (model, pk, op, `row`, actor, at) VALUES ('products', NEW.id, 'create',"
    " JSON_OBJECT('id', NEW.id, 'name', NEW.name), @nexus_actor, UTC_TIMESTAMP(6))"
)
_WITHOUT = "ALTER TABLE dataflow_changes DROP COLUMN "
UNDONE = {
    "sqlite": [f"{_WITHOUT}request", f"{_WITHOUT}txn"],
    "postgresql": [
        "CREATE FUNCTION dataflow_log_products() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {OLD_PG}; RETURN NULL; END $$",
        "DROP FUNCTION dataflow_insert_products, dataflow_bulk_products, dataflow_update_products,"
        " dataflow_delete_products, dataflow_truncate_products CASCADE",
        "CREATE TRIGGER dataflow_log_insert AFTER INSERT ON products"
        " FOR EACH ROW EXECUTE FUNCTION dataflow_log_products()",
        "CREATE TRIGGER dataflow_log AFTER UPDATE OR DELETE ON products"
        " FOR EACH ROW EXECUTE FUNCTION dataflow_log_products()",
        f"{_WITHOUT}request, DROP COLUMN txn, DROP COLUMN began",
    ],
    "mysql": [
        "DROP TRIGGER dataflow_insert_products",
        f"CREATE TRIGGER dataflow_insert_products AFTER INSERT ON products FOR EACH ROW {OLD_MYSQL}",
        "DROP TRIGGER dataflow_update_products",
        "DROP TRIGGER dataflow_delete_products",
        f"{_WITHOUT}request, DROP COLUMN txn",
    ],
}
ROW = "'raw', 1.5, 3, {}, '[]', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z'"


def raw_insert(url: str) -> str:
    row = ROW.format({"postgresql": "false"}.get(kind_of(url), "0"))
    return PUT.format(row.replace("T00", " 00").replace("Z", "") if kind_of(url) == "mysql" else row)


async def logged(db: DataFlow) -> list[Any]:
    """Op, key, actor, session, run and tenant of all changes, in their order."""
    connection = await db.database.pools.log.take()
    try:
        rows = await connection.fetch(
            "SELECT op, pk, actor, session, run, tenant FROM dataflow_changes ORDER BY seq"
        )
    finally:
        db.database.pools.log.give(connection)
    return [tuple(row) for row in rows]


async def requests(db: DataFlow) -> list[Any]:
    connection = await db.database.pools.log.take()
    try:
        rows = await connection.fetch("SELECT request FROM dataflow_changes ORDER BY seq")
    finally:
        db.database.pools.log.give(connection)
    return [row[0] for row in rows]


async def take(followed: Any, count: int) -> list[Any]:
    changes = aiter(followed)
    async with asyncio.timeout(10):
        return [await anext(changes) for _ in range(count)]


@pytest.fixture
async def single(database: str) -> AsyncIterator[tuple[Nexus, DataFlow]]:
    """One connection for everybody, so that each finds what the one before left on it."""
    db = DataFlow(database, pool_size=1, max_overflow=0)

    @db.model
    class Product:
        name: str
        stock: int = 0

    app = Nexus(db)

    @app.operation
    async def both(call: Call) -> None:
        await call.run("products.create", {"name": "two"})
        await call.run("products.update", {"id": 1, "stock": 2})

    async with app.running():
        yield app, db


class TestWhoDidIt:
    async def test_is_on_the_record(self, single: tuple[Nexus, DataFlow]) -> None:
        app, db = single

        async def run(name: str, session: Session, /, **arguments: object) -> Any:
            return await app.runtime.invoke(name, arguments, session, channel="test")

        await run("products.create", ANN, name="a")
        await run("products.update", BOB, id=1, stock=1)
        await run("products.bulk_create", ANN, data=[{"name": "b"}, {"name": "c"}])
        await run("products.delete", BOB, id=2)
        ann = ("ann", "s-ann", None, "acme")
        bob = ("bob'; --", "s-bob", None, "o'hara \\ ? 😀")
        assert await logged(db) == [
            ("create", "1", *ann),
            ("update", "1", *bob),
            ("create", "2", *ann),
            ("create", "3", *ann),
            ("delete", "2", *bob),
        ]

    async def test_the_request_is_named(self, single: tuple[Nexus, DataFlow]) -> None:
        """And no other: what a connection was told before is not what it says later."""
        app, db = single
        ids = ["r-1", "r-2", "it's\x1f\\ 😀", None, "r" * 300]
        for number, request in enumerate(ids):
            token = REQUEST.set(request)
            await app.runtime.invoke("products.create", {"name": str(number)}, ANN, channel="test")
            REQUEST.reset(token)
        token = REQUEST.set("r-3")
        await app.runtime.invoke("both", {}, BOB, channel="test")
        data = [{"name": "x"}, {"name": "y"}]
        await app.runtime.invoke("products.bulk_create", {"data": data}, BOB, channel="test")
        REQUEST.reset(token)
        head = ["r-1", "r-2", "it's?\\ 😀", None, "r" * 255]
        assert await requests(db) == [*head, "r-3", "r-3", "r-3", "r-3"]

    async def test_the_feed_tells_it(self, single: tuple[Nexus, DataFlow]) -> None:
        app, _ = single
        async with app.feed.subscribe(LOCAL, "products") as followed:
            token = REQUEST.set("r-1")
            await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
            REQUEST.reset(token)
            await app.runtime.invoke("products.create", {"name": "b"}, LOCAL, channel="test")
            assert [change.request for change in await take(followed, 2)] == ["r-1", None]

    async def test_a_run_is_named(self, single: tuple[Nexus, DataFlow]) -> None:
        app, db = single
        await app.runtime.invoke("products.create", {"name": "a"}, ANN, channel="test")
        for _ in range(2):
            await app.runtime.invoke("both", {}, ANN, channel="test")
        (_, *rest) = await logged(db)
        runs = [row[4] for row in rest]
        assert runs[0] == runs[1] != runs[2] == runs[3]
        assert None not in runs
        await app.runtime.invoke("products.create", {"name": "a"}, ANN, channel="test")
        assert (await logged(db))[-1][4] is None

    async def test_never_somebody_who_used_the_connection_before(
        self, single: tuple[Nexus, DataFlow]
    ) -> None:
        app, db = single

        async def run(name: str, session: Session, /, **arguments: object) -> Any:
            return await app.runtime.invoke(name, arguments, session, channel="test")

        async def nobody() -> None:
            connection = await db.database.pools.writer.take()
            try:
                await connection.execute("UPDATE products SET stock = stock + 1 WHERE id = 1")
            finally:
                db.database.pools.writer.give(connection)

        await run("products.create", ANN, name="a")
        await nobody()
        with pytest.raises(Conflict):
            async with db.as_session(BOB).transaction():
                await db.products.create(name="b")
                raise Conflict("wanted")
        await nobody()
        async with db.as_session(BOB).transaction():
            await db.products.create(name="c")
        await nobody()
        await run("products.update", ANN, id=1, stock=7)
        waiting = asyncio.ensure_future(run("products.create", BOB, name="d"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await nobody()
        rows = [row for row in await logged(db) if row[1] == "1"]
        assert [row[2] for row in rows] == ["ann", None, None, None, "ann", None]
        assert {row[3:] for row in rows if row[2] is None} == {(None, None, None)}


@pytest.mark.databases(*REACHABLE)
class TestOtherPrograms:
    async def test_are_seen(self, app: Nexus, database: str) -> None:
        async with app.feed.subscribe(LOCAL, "products") as followed:
            await run_sql(
                database,
                raw_insert(database),
                "UPDATE products SET name = 'é', price = 0.1 WHERE id = 1",
                "UPDATE products SET id = 7 WHERE id = 1",
                "DELETE FROM products",
            )
            made, changed, gone, moved, left = await take(followed, 5)
        assert (made.record["name"], made.record["on_sale"], made.record["tags"]) == ("raw", False, [])
        assert (changed.event, changed.record["price"], changed.old["price"]) == ("update", 0.1, 1.5)
        assert changed.record["name"] == "é"
        assert [(c.event, c.key) for c in (gone, moved, left)] == [("leave", 1), ("enter", 7), ("leave", 7)]
        assert {c.actor for c in (made, changed, gone, moved, left)} == {None}

    async def test_replace_and_upsert_by_sql(self, app: Nexus, database: str) -> None:
        again = {
            "postgresql": "INSERT INTO products"
            " (id, name, price, stock, on_sale, tags, created_at, updated_at) SELECT id, 'new',"
            " price, stock, on_sale, tags, created_at, updated_at FROM products"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            "mysql": "REPLACE INTO products SELECT id, 'new', price, stock, on_sale, note, tags, created_at,"
            " updated_at FROM (SELECT * FROM products) AS p",
            "sqlite": "INSERT INTO products SELECT * FROM products WHERE true"
            " ON CONFLICT (id) DO UPDATE SET name = 'new'",
        }[kind_of(database)]
        async with app.feed.subscribe(LOCAL, "products", filter={"name": "new"}) as followed:
            await run_sql(database, raw_insert(database), again)
            (entered,) = await take(followed, 1)
        assert (entered.event, entered.key, entered.record["name"]) == ("enter", 1, "new")

    @pytest.mark.databases("postgresql")  # elsewhere it is no statement, or one that no trigger sees
    async def test_truncate(self, app: Nexus, database: str) -> None:
        async with app.feed.subscribe(LOCAL, "products") as followed:
            await run_sql(database, raw_insert(database), raw_insert(database), "TRUNCATE products")
            seen = await take(followed, 4)
        assert sorted((c.event, c.key) for c in seen[2:]) == [("leave", 1), ("leave", 2)]
        assert seen[2].old["name"] == "raw"


@pytest.mark.databases("postgresql")
@pytest.mark.parametrize("other_triggers", [False, True])
async def test_bulk_inserts_are_logged_before_what_another_trigger_does(
    app: Nexus, database: str, other_triggers: bool
) -> None:
    await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
    if other_triggers:
        await run_sql(
            database,
            "CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN UPDATE products SET stock = 9 WHERE id = NEW.id; RETURN NULL; END'",
            "CREATE TRIGGER meddle AFTER INSERT ON products FOR EACH ROW EXECUTE FUNCTION meddle()",
        )
    rows = [{"name": name} for name in "abc"]
    async with app.feed.subscribe(LOCAL, "products") as followed:
        await app.runtime.invoke("products.bulk_create", {"data": rows}, LOCAL, channel="test")
        await app.runtime.invoke("products.create", {"name": "d"}, LOCAL, channel="test")
        seen = await take(followed, 8 if other_triggers else 4)
    for key in (1, 2, 3, 4):
        events = [change.event for change in seen if change.key == key]
        assert events == (["enter", "update"] if other_triggers else ["enter"])
    assert {change.actor for change in seen} == {"local"}


def flow(url: str, *, auto_migrate: bool = True, **more: Any) -> DataFlow:
    """A DataFlow with one model of these fields or options."""
    db = DataFlow(url, auto_migrate=auto_migrate)
    options = {"__dataflow__": more.pop("options")} if "options" in more else {}
    db.model(type("Product", (), {"__annotations__": {"name": str, **more}, **options}))
    return db


@pytest.mark.databases(*REACHABLE)
async def test_new_columns_are_logged(database: str) -> None:
    for more in ({}, {"size": int | None}, {"size": int | None, "note": str | None}):
        app = Nexus(flow(database, **more))
        async with app.running(), app.feed.subscribe(LOCAL, "products") as followed:
            values = {name: 5 if name == "size" else "x" for name in more}
            await app.runtime.invoke("products.create", {"name": "a", **values}, LOCAL, channel="test")
            (change,) = await take(followed, 1)
            assert {name: change.record[name] for name in more} == values


class TestOlderLogs:
    """A log that was made before it kept requests."""

    @pytest.fixture
    async def older(self, database: str) -> str:
        app = Nexus(flow(database))
        async with app.running():
            await app.runtime.invoke("products.create", {"name": "before"}, LOCAL, channel="test")
        await run_sql(database, *UNDONE[kind_of(database)])
        return database

    @pytest.mark.databases(*REACHABLE)
    async def test_they_are_added_to(self, older: str) -> None:
        app = Nexus(db := flow(older))
        async with app.running(), app.feed.subscribe(LOCAL, "products") as followed:
            token = REQUEST.set("r-1")
            await app.runtime.invoke("products.create", {"name": "after"}, LOCAL, channel="test")
            REQUEST.reset(token)
            (change,) = await take(followed, 1)
            assert (change.request, change.actor) == ("r-1", "local")
            assert await requests(db) == [None, "r-1"]

    @pytest.mark.databases(*REACHABLE)
    async def test_not_unasked(self, older: str) -> None:
        """With auto_migrate off one can write on, and follow after an installation."""
        app = Nexus(db := flow(older, auto_migrate=False))
        async with app.running():
            await app.runtime.invoke("products.create", {"name": "after"}, LOCAL, channel="test")
            assert [row[2] for row in await logged(db)] == ["local", "local"]
            with pytest.raises(Unavailable, match=r"db\.install"):
                async with app.feed.subscribe(LOCAL, "products"):
                    pass
            await db.install()
            async with app.feed.subscribe(LOCAL, "products"):
                assert await requests(db) == [None, None]


async def test_changes_can_be_switched_off(database: str) -> None:
    for options in ({}, {"changes": False}, {"changes": True}):
        db = flow(database, options=options)
        app = Nexus(db)
        async with app.running():
            await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
            if options == {"changes": False}:
                with pytest.raises(Unavailable, match="its model says so"):
                    app.feed.subscribe(LOCAL, "products")
                assert app.feed.topics() == []
                expected = 0 if kind_of(database) == "memory" else 1
                assert len(await logged(db)) == expected
                assert not any("TRIGGER" in sql and "CREATE" in sql for sql in db.install_sql())
            else:
                assert app.feed.topics() == ["products"]
    if kind_of(database) != "memory":
        async with Nexus(db).running():
            assert len(await logged(db)) == 2


async def test_existing_schema_mode_says_so(app: Nexus, database: str) -> None:
    used = DataFlow(database, existing_schema_mode=True)
    used.model(type("Product", (), {"__annotations__": {"name": str}}))
    other = Nexus(used)
    async with other.running():
        with pytest.raises(Unavailable, match="existing_schema_mode"):
            async with other.feed.subscribe(LOCAL, "products"):
                pass


class TestRetention:
    @pytest.mark.parametrize("bounds", [{"changes_max_rows": 10}, {"changes_max_age": 0.5}])
    async def test_bounds_the_log_and_tells_who_is_too_late(
        self, database: str, bounds: dict[str, Any]
    ) -> None:
        db = DataFlow(database, **bounds)
        db.model(type("Product", (), {"__annotations__": {"name": str}}))
        app = Nexus(db)
        async with app.running():

            async def create(count: int) -> None:
                for _ in range(count):
                    await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")

            async with app.feed.subscribe(LOCAL, "products") as late:
                early = late.cursor
                await create(30)
                if "changes_max_age" in bounds:
                    await asyncio.sleep(0.6)
                    await create(10)
                sealing = db.database.pools.sealing
                await sealing.close()  # what the first write has begun
                connection = await db.database.pools.care.take()
                await sealing._retention.cut(connection)
                db.database.pools.care.give(connection)
                kept = len(await logged(db))
                assert 10 <= kept <= (10 if "changes_max_rows" in bounds else 20)
                with pytest.raises(CursorExpired):
                    await take(late, 1)
            with pytest.raises(CursorExpired):
                async with app.feed.subscribe(LOCAL, "products", since=early):
                    pass
            async with app.feed.subscribe(LOCAL, "products") as followed:
                await create(1)
                (change,) = await take(followed, 1)
            assert change.prev == change.pos - 1
            async with app.feed.subscribe(LOCAL, "products", since=change.cursor):
                pass

    async def test_comes_by_itself(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dataflow.retention._PAUSE", 0.05)
        db = DataFlow(database, changes_max_rows=10)
        db.model(type("Product", (), {"__annotations__": {"name": str}}))
        app = Nexus(db)
        async with app.running():
            for _ in range(100):
                await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
            await db.database.pools.sealing.close()
            assert len(await logged(db)) < 40

    @pytest.mark.parametrize("option", ["changes_max_age", "changes_max_rows"])
    def test_what_is_no_bound_is_refused(self, option: str) -> None:
        with pytest.raises(ConfigurationError, match=option):
            DataFlow(":memory:", **{option: -1})


def test_the_environment_bounds_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "DATAFLOW_CHANGES_MAX_ROWS", "5")
    assert DataFlow(":memory:").database.options.changes_max_rows == 5
