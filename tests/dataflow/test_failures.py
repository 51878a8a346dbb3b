"""What a database refuses has the same code on every kind, and no message shows a value."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL
from nexus.errors import Conflict, InvalidInput, NexusError, Retryable, SchemaMismatch, Unavailable

SECRET = "s3cret-value"


def declare(db: DataFlow) -> DataFlow:
    @db.model
    class Author:
        name: str
        email: str | None = None
        age: int = 0
        __indexes__ = [{"fields": ["email"], "unique": True}, {"fields": ["name", "age"], "unique": True}]

    @db.model
    class Book:
        title: str
        author_id: int | None = None
        __dataflow__ = {"foreign_keys": True}

    @db.model
    class Ticket:
        code: str
        __indexes__ = [{"fields": ["code"], "unique": True}]
        __dataflow__ = {"multi_tenant": True}

    return db


@pytest.fixture
async def shop(database: str) -> AsyncIterator[DataFlow]:
    db = declare(DataFlow(database, pool_size=3))
    await db.authors.create(name=SECRET, email=SECRET)
    await db.authors.create(name="second")
    await db.books.create(title="a", author_id=1)
    yield db
    await db.close()


async def raw(db: DataFlow, sql: str, write: bool = True) -> list[Any]:
    """A statement that no model would make."""
    slots = db.database.pools.writer if write else db.database.pools.readers
    connection = await slots.take()
    try:
        return await connection.fetch(sql)
    finally:
        slots.give(connection)


def server(db: DataFlow) -> bool:
    return db.database.dialect.writers is None


def is_mysql(db: DataFlow) -> bool:
    return db.database.dialect.name.startswith("MySQL")


Work = Callable[[DataFlow], Awaitable[object]]
NOW = "'2026-01-01 00:00:00'"
STAMPS = f"created_at, updated_at) VALUES ({{}}, {NOW}, {NOW})"


async def twice_a_ticket(db: DataFlow) -> None:
    with db.tenant("acme"):
        await db.tickets.create(code=SECRET)
        await db.tickets.create(code=SECRET)


async def same_email_in_bulk(db: DataFlow) -> None:
    await db.authors.bulk_create(data=[{"name": "x", "email": "y"}, {"name": "z", "email": SECRET}])


async def overflow(db: DataFlow) -> None:
    await db.authors.update(1, age=2**63 - 1)
    await db.authors.update(1, fields={"$inc": {"age": 1}})


REFUSED: dict[str, tuple[Work, type[NexusError], str]] = {
    "unique": (
        lambda db: db.authors.create(name="x", email=SECRET),
        Conflict,
        "There is another record with the same email.",
    ),
    "unique, two fields": (
        lambda db: db.authors.create(name=SECRET),
        Conflict,
        "There is another record with the same name, age.",
    ),
    "unique, in an update": (
        lambda db: db.authors.update(2, email=SECRET),
        Conflict,
        "There is another record with the same email.",
    ),
    "unique, in bulk": (same_email_in_bulk, Conflict, "There is another record with the same email."),
    "key": (
        lambda db: db.authors.create(id=1, name="x"),
        Conflict,
        "There is another record with the same id.",
    ),
    "unique for each tenant": (twice_a_ticket, Conflict, "There is another record with the same code."),
    "foreign key": (
        lambda db: db.books.create(title=SECRET, author_id=77),
        Conflict,
        "The record refers to one that does not exist, or is referred to by another.",
    ),
    "foreign key, deleted": (
        lambda db: db.authors.delete(1),
        Conflict,
        "The record refers to one that does not exist, or is referred to by another.",
    ),
    "not null": (
        lambda db: raw(db, f"INSERT INTO authors (age, {STAMPS.format(1)}"),
        Conflict,
        "'name' cannot be null.",
    ),
    "number too large": (
        lambda db: (
            db.authors.update(1, fields={"$inc": {"age": 2**63 - 1}, "name": {"$set": SECRET}})
            if False
            else overflow(db)
        ),
        Conflict,
        "number became too large",
    ),
    "no such table": (
        lambda db: raw(db, f"SELECT * FROM nothing_there WHERE name = '{SECRET}'"),
        SchemaMismatch,
        "The database has no table or column 'nothing_there'.",
    ),
    "no such column": (
        lambda db: raw(db, f"SELECT nothing_there FROM authors WHERE name = '{SECRET}'"),
        SchemaMismatch,
        "The database has no table or column 'nothing_there'.",
    ),
    "syntax": (
        lambda db: raw(db, f"SELECT FROM WHERE '{SECRET}'"),
        InvalidInput,
        "The database cannot read the statement",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(shop: DataFlow, case: str) -> None:
    work, kind, said = REFUSED[case]
    with pytest.raises(NexusError) as caught:
        await work(shop)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.describe())
    assert (await shop.authors.create(name="after"))["name"] == "after"


async def test_a_text_too_long_for_a_column_of_others(shop: DataFlow) -> None:
    if not server(shop):
        return  # its texts have no length
    table = "CREATE TABLE notes (id bigint primary key, body varchar(3))"
    await raw(shop, table)
    with pytest.raises(InvalidInput, match="longer than the field can hold") as caught:
        await raw(shop, f"INSERT INTO notes VALUES (1, '{SECRET}')")
    assert SECRET not in str(caught.value)


async def test_a_table_that_somebody_else_removed(shop: DataFlow) -> None:
    await raw(shop, "DROP TABLE books")
    with pytest.raises(SchemaMismatch, match="no table or column 'books'"):
        await shop.books.list()
    with pytest.raises(SchemaMismatch):
        await shop.books.create(title=SECRET)
    await shop.install()
    assert (await shop.books.create(title="b"))["title"] == "b"


async def test_a_column_that_somebody_else_removed(shop: DataFlow) -> None:
    if not server(shop):
        await raw(shop, "ALTER TABLE books RENAME COLUMN title TO heading")
    else:
        await raw(shop, "ALTER TABLE books DROP COLUMN title")
    with pytest.raises(SchemaMismatch, match="'title'"):
        await shop.books.list(filter={"title": SECRET})
    with pytest.raises(SchemaMismatch, match="'title'"):
        await shop.books.create(title=SECRET)


async def test_what_cannot_be_written(shop: DataFlow) -> None:
    sql = {
        "SQLite": ("PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
        "PostgreSQL": ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off"),
    }.get(
        shop.database.dialect.name,
        ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
    )
    slots = shop.database.pools.writer
    taken = [await slots.take() for _ in range(3 if server(shop) else 1)]
    for connection in taken:
        await connection.fetch(sql[0])
        slots.give(connection)
    with pytest.raises(Unavailable, match="cannot be written") as caught:
        await shop.authors.create(name=SECRET)
    assert SECRET not in str(caught.value)
    assert type(caught.value) is Unavailable
    for connection in taken:
        await connection.fetch(sql[1])
    await shop.authors.create(name="after")


async def test_a_connection_lost_while_idle_and_in_a_statement(shop: DataFlow) -> None:
    if not server(shop):
        return  # it is in this process
    mysql = is_mysql(shop)
    mine = "SELECT connection_id()" if mysql else "SELECT pg_backend_pid()"
    end = "KILL {}" if mysql else "SELECT pg_terminate_backend({})"
    sleep = "SELECT sleep(5) FROM authors" if mysql else "SELECT pg_sleep(5)"
    slots = shop.database.pools.readers
    one, other = await slots.take(), await slots.take()
    ((number,),) = await one.fetch(mine)
    slow = asyncio.ensure_future(one.fetch(sleep))
    await asyncio.sleep(0.3)
    await other.fetch(end.format(number))
    with pytest.raises(Unavailable) as caught:
        await slow
    assert caught.value.code == "NX-503"
    assert "lost" in str(caught.value) or "cancelled" in str(caught.value)
    slots.give(one)
    one = await slots.take()
    ((number,),) = await one.fetch(mine)
    slots.give(one)
    await other.fetch(end.format(number))
    slots.give(other)
    await asyncio.sleep(0.2)
    for _ in range(4):  # the one that is gone is found at its next use, and replaced
        with contextlib.suppress(Unavailable):
            await shop.authors.count()
    assert await shop.authors.count() == {"count": 2}


async def test_a_connection_lost_in_a_transaction(shop: DataFlow) -> None:
    if not server(shop):
        return
    mysql = is_mysql(shop)
    end = "KILL {}" if mysql else "SELECT pg_terminate_backend({})"
    mine = "SELECT connection_id() AS n" if mysql else "SELECT pg_backend_pid() AS n"
    other = await shop.database.pools.readers.take()

    @shop.node(internal=False)
    async def broken(tx: Any) -> None:
        await tx.authors.create(name="lost")
        rows = await tx.query(mine)
        await other.fetch(end.format(rows[0]["n"]))
        await asyncio.sleep(0.2)
        await tx.authors.create(name="lost, too")

    for _ in range(4):  # more often than there are connections
        with pytest.raises(Unavailable, match=r"lost|cancelled") as caught:
            await shop.runtime.invoke("broken", {}, LOCAL, channel="test")
        assert caught.value.code == "NX-503"
    shop.database.pools.readers.give(other)
    assert await shop.authors.count() == {"count": 2}
    metrics = shop.pool_metrics()
    assert metrics["checked_out"] == 0


async def test_with_a_ping_a_lost_connection_is_not_noticed(database: str) -> None:
    db = declare(DataFlow(database, pool_size=2, pool_pre_ping=True))
    if server(db):
        await db.authors.create(name="x")
        mysql = is_mysql(db)
        mine = "SELECT connection_id()" if mysql else "SELECT pg_backend_pid()"
        end = "KILL {}" if mysql else "SELECT pg_terminate_backend({})"
        slots = db.database.pools.readers
        one, other = await slots.take(), await slots.take()
        ((number,),) = await one.fetch(mine)
        slots.give(one)
        await other.fetch(end.format(number))
        slots.give(other)
        await asyncio.sleep(0.2)
        for _ in range(3):
            assert await db.authors.count() == {"count": 1}
    await db.close()


async def test_a_lock_that_is_not_given_in_time(shop: DataFlow, database: str) -> None:
    other = declare(DataFlow(database)) if database != ":memory:" else None
    if other is None:
        return  # nobody else can open it
    await other.authors.count()
    sql = {
        "SQLite": "PRAGMA busy_timeout = 100",
        "PostgreSQL": "SET lock_timeout = '100ms'",
    }.get(shop.database.dialect.name, "SET SESSION innodb_lock_wait_timeout = 1")
    slots = other.database.pools.writer
    connection = await slots.take()
    await connection.fetch(sql)
    slots.give(connection)
    async with shop.transaction():
        await shop.authors.update(1, age=3)
        with pytest.raises(Unavailable) as caught:
            await asyncio.create_task(_update(other), context=_empty())
        assert caught.value.code == "NX-503"
        assert type(caught.value) is not Retryable
    await other.close()


async def _update(db: DataFlow) -> None:
    await db.authors.update(1, name=SECRET)


def _empty() -> Any:
    return contextvars.Context()


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """With a limit on the size of the file, which the database reports as a full disk."""
    db = declare(DataFlow(f"sqlite:///{tmp_path / 'full.db'}"))
    await db.authors.create(name="x")
    await raw(db, "PRAGMA max_page_count = 40")
    with pytest.raises(Unavailable, match="disk of the database is full"):
        await db.authors.bulk_create(data=[{"name": f"{n}" + SECRET * 20, "age": n} for n in range(2000)])
    assert await db.authors.count() == {"count": 1}
    await db.close()


async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    db = declare(DataFlow(f"sqlite:///{path}"))
    await db.authors.create(name="x")
    await db.close()
    connection = f"sqlite:///{tmp_path / 'gone' / 'shop.db'}"
    with pytest.raises(Unavailable, match="no folder"):
        await declare(DataFlow(connection)).authors.count()
    path.write_bytes(b"this is no database at all, but a text that is long enough" * 40)
    for leftover in tmp_path.glob("shop.db-*"):
        leftover.unlink()
    broken = declare(DataFlow(f"sqlite:///{path}"))
    with pytest.raises(Unavailable, match="not a database") as caught:
        await broken.authors.count()
    assert caught.value.code == "NX-503"
    await broken.close()


@pytest.mark.parametrize("url", ["postgresql://u:S3cr3t@127.0.0.1:1/d", "mysql://u:S3cr3t@127.0.0.1:1/d"])
async def test_nobody_listens(url: str) -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await declare(DataFlow(url)).authors.count()
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize("echo", [True, "values"])
async def test_the_log_shows_values_when_it_is_asked_to(
    database: str, echo: Any, caplog: pytest.LogCaptureFixture
) -> None:
    db = declare(DataFlow(database, echo=echo))
    await db.authors.create(name="x", email=SECRET)
    caplog.clear()
    with caplog.at_level(logging.INFO, "dataflow.sql"), pytest.raises(Conflict) as caught:
        await db.authors.create(name="y", email=SECRET)
    assert SECRET not in str(caught.value)
    assert "failed: " in caplog.text
    assert (SECRET in caplog.text) is (echo == "values")
    await db.close()
