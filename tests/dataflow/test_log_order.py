"""Transactions in the change log: their changes stand together, and those of a record in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.ports import LoggedChange
from tests.conftest import Invoke
from tests.support.programs import Program, run_sql

pytestmark = pytest.mark.feed

SERVERS = pytest.mark.databases("postgresql", "mysql")  # the others have one writer at a time


@pytest.fixture
async def db(database: str) -> AsyncIterator[DataFlow]:
    flow = DataFlow(database)

    @flow.model
    class Item:
        name: str
        size: int = 0

    async with Nexus(flow).running():
        await flow.items.bulk_create(data=[{"name": "a"}, {"name": "b"}])
        yield flow


@pytest.fixture
def app(db: DataFlow) -> Nexus:
    return Nexus(db)


async def logged(db: DataFlow) -> list[LoggedChange]:
    """What was logged after the two records that there are from the beginning."""
    head = await db.changes.head("items")
    found: list[LoggedChange] = []
    while len(found) < head.pos:
        found += await db.changes.read(len(found), 5000)
    assert [change.pos for change in found] == list(range(1, head.pos + 1))
    assert found[0].txn is not None
    assert found[0].txn == found[1].txn != found[2].txn
    return found[2:]


def together(changes: list[LoggedChange]) -> list[list[Any]]:
    """The keys of each transaction, which must not come twice."""
    found = [(txn, [one.key for one in ones]) for txn, ones in groupby(changes, lambda change: change.txn)]
    assert len({txn for txn, _ in found}) == len(found)
    assert None not in dict(found)
    return [keys for _, keys in found]


class Other:
    """A transaction of another task, step by step."""

    def __init__(self, db: DataFlow) -> None:
        self._db = db
        self._steps: asyncio.Queue[Any] = asyncio.Queue()
        self._done: asyncio.Queue[None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._db.transaction():
            while (step := await self._steps.get()) is not None:
                await step()
                self._done.put_nowait(None)

    async def create(self, count: int = 1) -> None:
        rows = [{"name": "x"}] * count
        await self._do(lambda: self._db.items.bulk_create(data=rows, return_ids=False))

    async def update(self, key: int, size: int = 1) -> None:
        await self._do(lambda: self._db.items.update(key, size=size))

    async def _do(self, step: Any) -> None:
        self._steps.put_nowait(step)
        async with asyncio.timeout(20):
            await self._done.get()

    async def commit(self) -> None:
        self._steps.put_nowait(None)
        await self._task


async def test_what_is_one_transaction_is_known(db: DataFlow, invoke: Invoke) -> None:
    await db.items.create(name="c")
    await db.items.create(name="d")
    await db.items.bulk_update(filter={"id": {"$lte": 3}}, update={"size": 5})
    two = [{"operation": "items.update", "arguments": {"id": key, "size": 6}} for key in (2, 1)]
    await invoke("batch", operations=two)
    async with db.transaction():
        await db.items.create(name="e")
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.items.update(1, size=7)
                raise ZeroDivisionError
        await db.items.update(3, size=8)
    await db.items.delete(4)
    assert together(await logged(db)) == [[3], [4], [1, 2, 3], [2, 1], [5, 3], [4]]


async def test_followers_are_told(db: DataFlow, app: Nexus) -> None:
    async with app.running(), app.feed.subscribe(LOCAL, "items", filter={"size": {"$gt": 0}}) as followed:
        async with db.transaction():
            await db.items.update(1, size=1)
            await db.items.create(name="not followed")
            await db.items.update(2, size=1)
        await db.items.update(2, size=2)
        changes = aiter(followed)
        async with asyncio.timeout(10):
            one, other, last = [await anext(changes) for _ in range(3)]
    assert one.txn is not None
    assert one.txn == other.txn != last.txn


@SERVERS
async def test_nothing_stands_between(db: DataFlow) -> None:
    """And what waited for another transaction comes after all of it."""
    one, other = Other(db), Other(db)
    await one.update(1)
    await other.update(2)
    await db.items.create(name="c")
    await other.create()
    await one.create()
    await other.commit()
    await one.update(2, size=2)  # which the other had: the first of this transaction precedes it
    await db.items.create(name="d")
    await one.create()
    await one.commit()
    groups = together(changes := await logged(db))
    assert [len(keys) for keys in groups] == [1, 2, 1, 4]
    assert (groups[1][0], groups[3][0], groups[3][2]) == (2, 1, 2)
    assert [change.record["size"] for change in changes if change.key == 2 and change.record] == [1, 2]


@SERVERS
async def test_many_changes_are_sealed_in_parts_of_whole_transactions(db: DataFlow) -> None:
    one, other = Other(db), Other(db)
    await one.create()
    await other.create(3000)
    await one.create(4000)
    await db.items.create(name="between")
    await other.create(3000)
    await one.update(1)
    await one.commit()
    await other.commit()
    await db.items.update(1, size=2)
    assert [len(keys) for keys in together(await logged(db))] == [1, 6000, 4002, 1]


@SERVERS
async def test_one_transaction_may_be_longer_than_a_part(db: DataFlow) -> None:
    one = Other(db)
    await one.create()
    await one.create(6000)
    await db.items.create(name="between")
    await one.create()
    await one.commit()
    assert [len(keys) for keys in together(await logged(db))] == [1, 6002]


@SERVERS
async def test_of_other_programs(db: DataFlow, database: str) -> None:
    """On MariaDB one has to say that it begins a transaction, or each of its statements is one."""
    says = ("SET @nexus_txn = UUID_SHORT()",) if database.startswith("mysql") else ()
    change = "UPDATE items SET size = size + 1 WHERE id = {}"
    async with Program(database) as program:
        await program.run("BEGIN", *says, change.format(1))
        await db.items.create(name="c")
        await program.run(change.format(2), "COMMIT", *("SET @nexus_txn = NULL" for _ in says))
        await program.run("UPDATE items SET size = 9", change.format(1))
    groups = together(await logged(db))
    assert [sorted(keys) for keys in groups] == [[3], [1, 2], [1, 2, 3], [1]]


@pytest.mark.databases("mysql")
async def test_a_program_may_say_what_is_not_so(db: DataFlow, database: str) -> None:
    """It costs what stands together, and never the order of a record's changes."""
    async with Program(database) as program:
        await program.run("SET @nexus_txn = 'always the same'", "UPDATE items SET size = 1 WHERE id = 1")
        await db.items.update(1, size=2)
        await program.run("UPDATE items SET size = 3 WHERE id = 2")
    changes = await logged(db)
    assert [change.key for change in changes] == [1, 1, 2]
    assert [change.record["size"] for change in changes if change.record] == [1, 2, 3]


@SERVERS
async def test_of_a_log_that_did_not_keep_them(db: DataFlow, database: str) -> None:
    """What waits in it gets its place by its number."""
    await db.items.update(1, size=1)
    await db.items.update(2, size=1)
    await run_sql(database, "UPDATE dataflow_changes SET txn = NULL WHERE pos IS NULL AND seq > 2")
    await db.items.update(1, size=2)
    changes = await logged(db)
    assert [(change.key, change.txn is None) for change in changes] == [(1, True), (2, True), (1, False)]
