"""Transactions in each other's way, and statements that take too long, on real servers."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus
from nexus.errors import Retryable, TimedOut
from tests.support.databases import empty_database

SERVERS = ["postgresql", "mysql", "mysql-without-returning"]


@pytest.fixture
async def shop(database: str, db: DataFlow) -> AsyncIterator[DataFlow]:
    await db.products.create(name="a")
    await db.products.create(name="b")
    yield db
    await db.close()


async def side_by_side(*work: Callable[[], Awaitable[object]]) -> list[object]:
    tasks = [asyncio.ensure_future(each()) for each in work]
    return await asyncio.gather(*tasks, return_exceptions=True)


class Meeting:
    """Two that meet once: each goes on when the other has come, or soon."""

    def __init__(self) -> None:
        self._here = 0
        self._both = asyncio.Event()

    async def wait(self) -> None:
        self._here += 1
        if self._here == 2:
            self._both.set()
        try:
            await asyncio.wait_for(self._both.wait(), 2)
        except TimeoutError:
            return


async def test_a_deadlock_ends_one_of_two(shop: DataFlow, database: str) -> None:
    if not database.startswith(("postgresql", "mysql")):
        return  # one writer at a time: the second begins when the first has ended
    meeting = Meeting()

    async def both(first: int, second: int) -> None:
        async with shop.transaction():
            await shop.products.update(first, fields={"$inc": {"stock": 1}})
            await meeting.wait()
            await shop.products.update(second, fields={"$inc": {"stock": 1}})

    ended = await side_by_side(lambda: both(1, 2), lambda: both(2, 1))
    assert sorted(type(each) for each in ended if each is not None) == [Retryable]
    assert [record["stock"] for record in (await shop.products.list())["records"]] == [1, 1]


async def test_a_deadlock_is_begun_anew(shop: DataFlow) -> None:
    meeting = Meeting()
    attempts: list[int] = []

    async def both(first: int, second: int) -> None:
        async def work(tx: object) -> None:
            attempts.append(first)
            await shop.products.update(first, fields={"$inc": {"stock": 1}})
            await meeting.wait()
            await shop.products.update(second, fields={"$inc": {"stock": 1}})

        await shop.run_in_transaction(work)

    assert await side_by_side(lambda: both(1, 2), lambda: both(2, 1)) == [None, None]
    assert [record["stock"] for record in (await shop.products.list())["records"]] == [2, 2]
    assert len(attempts) in (2, 3)


async def test_an_operation_is_begun_anew_after_a_deadlock(app: Nexus, db: DataFlow) -> None:
    meeting = Meeting()
    for name in ("a", "b"):
        await db.products.create(name=name)

    @app.operation
    async def both(call: Call, first: int, second: int) -> None:
        await call.run("products.update", {"id": first, "fields": {"$inc": {"stock": 1}}})
        await meeting.wait()
        await call.run("products.update", {"id": second, "fields": {"$inc": {"stock": 1}}})

    def run(first: int, second: int) -> Callable[[], Awaitable[object]]:
        arguments = {"first": first, "second": second}
        return lambda: app.runtime.invoke("both", arguments, LOCAL, channel="test")

    assert await side_by_side(run(1, 2), run(2, 1)) == [None, None]
    assert [record["stock"] for record in (await db.products.list())["records"]] == [2, 2]


async def test_a_serialization_failure(shop: DataFlow, database: str) -> None:
    """Both read what the other is about to write. Which database notices how, differs; nothing is lost."""
    meeting = Meeting()
    attempts = 0

    async def add(tx: object) -> None:
        nonlocal attempts
        attempts += 1
        seen = await shop.products.get(1)
        if attempts <= 2 and database.startswith(("postgresql", "mysql")):
            await meeting.wait()
        await shop.products.update(1, stock=seen["stock"] + 1)

    async def one() -> None:
        await shop.run_in_transaction(add, isolation="serializable")

    assert await side_by_side(one, one) == [None, None]
    assert (await shop.products.get(1))["stock"] == 2
    if database.startswith(("postgresql", "mysql")):
        assert attempts > 2


async def slow(call: Call, db: DataFlow) -> None:
    """A statement that takes long by the server's own doing."""
    dialect = db.database.dialect
    sql = {
        "PostgreSQL": "SELECT count(pg_sleep(20))",
        "MySQL/MariaDB": "SELECT sleep(20)",
    }.get(
        dialect.name,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000000)"
        " SELECT count(*) FROM n",
    )
    async with call.connection(db.database, write=True) as connection:
        await connection.fetch(sql)


async def running(db: DataFlow) -> int:
    """How many of the slow statements the server is busy with."""
    sql = {
        "PostgreSQL": "SELECT count(*) FROM pg_stat_activity"
        " WHERE state = 'active' AND query LIKE '%pg_sleep(20)%'"
        " AND datname = current_database() AND pid <> pg_backend_pid()",
        "MySQL/MariaDB": "SELECT count(*) FROM information_schema.processlist"
        " WHERE LEFT(info, 16) = 'SELECT sleep(20)' AND db = database()",
    }.get(db.database.dialect.name, "SELECT 0")
    connection = await db.database.pools.readers.take()
    try:
        return int((await connection.fetch(sql))[0][0])
    finally:
        db.database.pools.readers.give(connection)


async def test_a_time_limit_ends_the_statement_in_the_server(app: Nexus, db: DataFlow) -> None:
    await db.products.create(name="a")

    @app.operation
    async def dawdle(call: Call) -> None:
        await call.run("products.create", {"name": "b"})
        await slow(call, db)

    began = time.monotonic()
    with pytest.raises(TimedOut):
        await app.runtime.invoke("dawdle", {}, LOCAL, channel="test", timeout=0.4)
    assert time.monotonic() - began < 4
    assert await running(db) == 0
    assert await db.products.count() == {"count": 1}
    assert (await db.products.create(name="c"))["name"] == "c"


async def test_a_statement_that_commits_by_itself_is_ended_too(app: Nexus, db: DataFlow) -> None:
    await db.products.create(name="a")
    call = Call(app.runtime, LOCAL, app.registry["products.create"], "test")
    task = asyncio.create_task(slow(call, db))
    await asyncio.sleep(0.3)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 4
    for _ in range(20):
        if await running(db) == 0:
            break
        await asyncio.sleep(0.1)
    assert await running(db) == 0
    assert (await db.products.create(name="c"))["name"] == "c"


async def test_an_inner_transaction_can_be_cut_short(app: Nexus, db: DataFlow) -> None:
    await db.products.create(name="a")

    @app.operation
    async def impatient(call: Call) -> None:
        await call.run("products.create", {"name": "b"})
        with pytest.raises(TimedOut):
            async with db.transaction(timeout=0.3):
                await db.products.create(name="c")
                await slow(call=_current(), db=db)
        await call.run("products.create", {"name": "d"})

    await app.runtime.invoke("impatient", {}, LOCAL, channel="test")
    assert [record["name"] for record in (await db.products.list())["records"]] == ["a", "b", "d"]


def _current() -> Call:
    from nexus.call import CURRENT

    call = CURRENT.get()
    assert call is not None
    return call


async def test_a_lock_that_another_holds_is_waited_for_no_longer_than_allowed(
    shop: DataFlow,
) -> None:
    """The one who waits is ended; the one who holds goes on."""
    async with shop.transaction():
        await shop.products.update(1, stock=5)
        waiting = asyncio.get_running_loop().create_task(
            shop.within(0.3).products.update(1, stock=6), context=contextvars.Context()
        )
        with pytest.raises(TimedOut):
            await waiting
    assert (await shop.products.get(1))["stock"] == 5


@pytest.mark.parametrize("kind", SERVERS)
def test_no_connection_is_left_in_the_server(kind: str, tmp_path: Path) -> None:
    url = empty_database(kind, tmp_path)
    db = DataFlow(url, pool_size=3)
    db.model(type("Product", (), {"__annotations__": {"name": str}}))

    async def use() -> None:
        await asyncio.gather(*(db.products.create(name=str(n)) for n in range(8)))

    asyncio.run(use())  # which closes nothing
    asyncio.run(use())
    other = DataFlow(url)

    async def count() -> int:
        sql = (
            "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
            if kind == "postgresql"
            else "SELECT count(*) - 1 FROM information_schema.processlist WHERE db = database()"
        )
        connection = await other.database.pools.readers.take()
        try:
            for _ in range(30):  # a server ends a connection a moment after its client has
                left = int((await connection.fetch(sql))[0][0])
                if left == 0:
                    break
                await asyncio.sleep(0.1)
            return left
        finally:
            other.database.pools.readers.give(connection)

    assert asyncio.run(count()) == 0
