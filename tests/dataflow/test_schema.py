"""Tables: made, added to, left alone, and never narrowed, on every database."""

from __future__ import annotations

import asyncio
import datetime
import enum
import sqlite3
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    RegistrationError,
    SchemaMismatch,
    Unavailable,
)
from tests.support.databases import empty_database

NASTY = 'it\'s \\ 100% "new" ; DROP TABLE things; -- 😀'


class Shape(enum.Enum):
    ROUND = "round"


def model(db: DataFlow, annotations: dict[str, Any], name: str = "Thing", **members: Any) -> None:
    db.model(type(name, (), {"__module__": __name__, "__annotations__": annotations, **members}))


@pytest.fixture(params=["file", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that outlives the DataFlow that uses it."""
    return empty_database(request.param, tmp_path)


class Using:
    """A DataFlow in use, as by one process."""

    def __init__(self, db: DataFlow) -> None:
        self.db = db
        self.app = Nexus(db)

    async def __aenter__(self) -> Using:
        self._running = self.app.running()
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._running.__aexit__(*failure)

    async def run(self, name: str, /, **arguments: object) -> Any:
        return await self.app.runtime.invoke(name, arguments, LOCAL, channel="test")


async def test_columns_that_are_new_are_added_with_their_defaults(url: str) -> None:
    first = DataFlow(url)
    model(first, {"name": str})
    async with Using(first) as using:
        await using.run("things.create", name="old")
    token, moment = uuid.uuid4(), datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC)
    new: dict[str, tuple[Any, Any]] = {
        "note": (str | None, None),
        "text": (str, NASTY),
        "number": (int, -5),
        "ratio": (float, 0.1),
        "flag": (bool, True),
        "price": (Decimal, Decimal("-9.99")),
        "token": (uuid.UUID, token),
        "moment": (datetime.datetime, moment),
        "day": (datetime.date, moment.date()),
        "clock": (datetime.time, moment.time()),
        "blob": (bytes, bytes(range(256))),
        "tags": (list[str], ["a", NASTY]),
        "data": (dict[str, Any], {}),
        "shape": (Shape, Shape.ROUND),
    }
    second = DataFlow(url)
    annotations = {"name": str, **{name: kind for name, (kind, _) in new.items()}}
    model(second, annotations, **{name: default for name, (_, default) in new.items()})
    async with Using(second) as using:
        old = await using.run("things.get", id=1)
        fresh = await using.run("things.create", name="fresh")
        for record in (old, fresh):
            for name, (_, default) in new.items():
                expected = default.value if isinstance(default, enum.Enum) else default
                assert getattr(record, name) == expected, name
        assert old.name == "old"
        assert (await using.run("things.count", filter={"price": Decimal("-9.99"), "flag": True})).count == 2


@pytest.mark.parametrize(
    ("annotations", "members", "named"),
    [
        ({"name": str, "must": int}, {}, "'must' cannot be added.*no default"),
        ({"name": str, "own": str}, {"own": lambda: "x"}, "'own' cannot be added.*its own"),
    ],
)
async def test_what_cannot_be_added_safely_is_refused(
    url: str, annotations: dict[str, Any], members: dict[str, Any], named: str
) -> None:
    first = DataFlow(url)
    model(first, {"name": str})
    async with Using(first) as using:
        await using.run("things.create", name="old")
    second = DataFlow(url)
    model(second, annotations, **members)
    async with Using(second) as using:
        with pytest.raises(SchemaMismatch, match=named):
            await using.run("things.count")
    async with Using(first) as using:
        assert (await using.run("things.get", id=1)).name == "old"


async def test_without_auto_migrate_nothing_is_touched(url: str) -> None:
    db = DataFlow(url, auto_migrate=False)
    model(db, {"name": str}, __indexes__=[{"fields": ["name"]}])
    async with Using(db) as using:
        for _ in range(2):
            with pytest.raises(SchemaMismatch, match=r"(?s)no table 'things'.*db\.install\(\).*CREATE TABLE"):
                await using.run("things.create", name="a")
        await db.install()
        await using.run("things.create", name="a")
        await db.install()
        assert (await using.run("things.count")).count == 1
    wider = DataFlow(url, auto_migrate=False)
    model(wider, {"name": str, "size": int | None})
    async with Using(wider) as using:
        with pytest.raises(SchemaMismatch, match=r"no column 'size'.*ADD COLUMN"):
            await using.run("things.count")
        await wider.install("Thing")
        assert (await using.run("things.get", id=1)).size is None


async def test_an_existing_schema_is_used_and_not_changed(url: str) -> None:
    maker = DataFlow(url)
    model(maker, {"name": str})
    async with Using(maker) as using:
        await using.run("things.create", name="a")
    db = DataFlow(url, existing_schema_mode=True)
    model(db, {"name": str})
    model(db, {"x": int}, name="Other")
    async with Using(db) as using:
        assert (await using.run("things.create", name="b")).id == 2
        with pytest.raises(SchemaMismatch, match=r"no table 'others'.*changes nothing"):
            await using.run("others.count")
        with pytest.raises(ConfigurationError, match="changes nothing"):
            await db.install()
        with pytest.raises(Unavailable, match="used as it is"):
            async with using.app.feed.subscribe(LOCAL, "things"):
                pass


async def test_an_existing_file_gets_no_table_of_ours(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as theirs:
        theirs.execute(
            "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, created_at TEXT, updated_at TEXT)"
        )
    before = theirs.execute("SELECT * FROM sqlite_master").fetchall()
    for options in ({"existing_schema_mode": True}, {"auto_migrate": False}):
        db = DataFlow(f"sqlite:///{tmp_path / 'theirs.db'}", **options)
        model(db, {"name": str})
        async with Using(db) as using:
            assert (await using.run("things.create", name="a")).name == "a"
            with pytest.raises(Unavailable, match="tells of changes"):
                async with using.app.feed.subscribe(LOCAL, "things"):
                    pass
    assert theirs.execute("SELECT * FROM sqlite_master").fetchall() == before
    theirs.close()


async def test_unique_indexes_are_kept_and_conflicts_name_the_fields(url: str) -> None:
    db = DataFlow(url)
    indexes = [
        {"name": "idx_email", "fields": ["email"], "unique": True},
        {"fields": ["city", "size"], "unique": True},
        ["size", "created_at"],
    ]
    model(db, {"email": str, "city": str, "size": int}, __indexes__=indexes)
    async with Using(db) as using:
        await using.run("things.create", email="a", city="x", size=1)
        await using.run("things.create", email="a ", city="X", size=1)
        with pytest.raises(Conflict, match=r"same email\."):
            await using.run("things.create", email="a", city="y", size=1)
        with pytest.raises(Conflict, match=r"same city, size\."):
            await using.run("things.create", email="b", city="x", size=1)
        with pytest.raises(InvalidInput, match="length <= 255"):
            await using.run("things.create", email="e" * 256, city="x", size=3)
        assert (await using.run("things.create", email="é" * 255, city="é" * 255, size=1)).id
    assert [index.name for index in db.models["Thing"].indexes] == [
        "idx_email",
        "uq_things_city_size",
        "ix_things_size_created_at",
    ]


async def test_an_index_is_added_to_a_table_unless_its_records_forbid_it(url: str) -> None:
    first = DataFlow(url)
    model(first, {"size": int})
    async with Using(first) as using:
        for size in (1, 1):
            await using.run("things.create", size=size)
    second = DataFlow(url)
    model(second, {"size": int}, __indexes__=[{"fields": ["size"], "unique": True}])
    async with Using(second) as using:
        with pytest.raises(SchemaMismatch, match="uq_things_size"):
            await using.run("things.count")
        async with Using(first) as old:
            await old.run("things.update", id=2, size=2)
        assert (await using.run("things.count")).count == 2
        with pytest.raises(Conflict, match="same size"):
            await using.run("things.create", size=2)


async def test_foreign_keys_hold_and_their_tables_come_first(url: str) -> None:
    db = DataFlow(url)
    keys = {"__dataflow__": {"foreign_keys": True}}
    model(db, {"thing_id": int, "page_id": str | None, "item_id": int | None}, name="Item", **keys)
    model(db, {"name": str})
    model(db, {"id": str}, name="Page")
    async with Using(db) as using:
        with pytest.raises(Conflict, match="refers to one that does not exist"):
            await using.run("items.create", thing_id=1)
        await using.run("things.create", name="a")
        await using.run("pages.create", id="p")
        item = await using.run("items.create", thing_id=1, page_id="p")
        await using.run("items.create", thing_id=1, item_id=item.id)
        for name, key in (("things", 1), ("pages", "p"), ("items", item.id)):
            with pytest.raises(Conflict, match="referred to by another"):
                await using.run(f"{name}.delete", id=key)


async def test_words_of_sql_are_names_like_others(database: str) -> None:
    db = DataFlow(database)
    names = {
        "select": int,
        "order": str,
        "group": int,
        "key": int,
        "primary": int,
        "where": str,
        "Table": int,
    }
    members = {"__tablename__": "order", "__indexes__": [["select", "order"]]}
    db.model(skip_validation=True)(type("Order", (), {"__annotations__": names, **members}))
    values = {"select": 1, "order": NASTY, "group": 2, "key": 3, "primary": 4, "where": "x", "Table": 5}
    async with Using(db) as using:
        made = await using.run("order.create", **values)
        found = await using.run("order.list", filter={"order": NASTY, "select": 1}, order_by="-group")
        assert found.records == [made]
        assert (await using.run("order.update", id=made.id, where="y")).where == "y"


async def test_processes_that_begin_together_make_tables_once(url: str, tmp_path: Path) -> None:
    program = tmp_path / "begin.py"
    program.write_text(
        f"""
import asyncio
from dataflow import DataFlow
from nexus import LOCAL, Nexus
db = DataFlow({url!r})
@db.model
class Thing:
    name: str
    size: int = 3
    __indexes__ = [{{"fields": ["name"], "unique": True}}]
async def main():
    app = Nexus(db)
    async with app.running():
        await app.runtime.invoke("things.count", {{}}, LOCAL, channel="test")
asyncio.run(main())
"""
    )
    narrow = DataFlow(url)
    model(narrow, {"name": str})
    async with Using(narrow) as using:
        await using.run("things.count")
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-W", "error", str(program)) for _ in range(4)
    ]
    assert [await process.wait() for process in started] == [0] * 4


async def test_the_cache_of_tables_counts(url: str) -> None:
    db = DataFlow(url)
    model(db, {"name": str})
    async with Using(db) as using:
        for _ in range(4):
            await using.run("things.count")
        metrics = db._schema_cache.get_metrics()
        assert metrics == {"hits": 3, "misses": 1, "hit_rate": 0.75, "cached_tables": 1}
        db._schema_cache.clear()
        assert db._schema_cache.get_metrics()["cached_tables"] == 0
        await using.run("things.count")
        assert db._schema_cache.get_metrics()["cached_tables"] == 1


# MariaDB says so of each IF NOT EXISTS.
@pytest.mark.filterwarnings("ignore:Table 'things' already exists", "ignore:Duplicate key name")
async def test_what_is_printed_is_what_is_run(url: str) -> None:
    printed = DataFlow(url)
    model(printed, {"name": str}, __indexes__=[{"fields": ["name"], "unique": True}])
    async with Using(printed) as using:
        await using.run("things.count")
        statements = printed.install_sql()
        assert sum("CREATE UNIQUE INDEX" in sql and " ON things " in sql for sql in statements) == 1
        writer = await printed.database.pools.writer.take()
        try:
            for sql in statements * 2:
                await writer.run(sql)
        finally:
            printed.database.pools.writer.give(writer)
    with pytest.raises(RegistrationError):
        model(printed, {"name": str})
