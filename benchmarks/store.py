"""What the data layer adds to the driver: the same statement, through the runtime and on a held connection.

    python benchmarks/store.py [URL …]

Without URLs: an SQLite file, and the servers of NEXUS_TEST_POSTGRESQL_URL and NEXUS_TEST_MYSQL_URL. Both
sides take turns within one run, on the same table, with the same durability; shown is the median of the
rounds. The share is how many operations a second ours does for each of the driver's. A table
`benchmark_items` is made, and dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from dataflow import DataFlow
from nexus import LOCAL, Nexus

ROUNDS = 15
OPERATIONS = {"read by id": 200, "list 20": 100, "create": 60, "update": 60}
RECORDS = 500


def _application(url: str) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url)

    @db.model
    class BenchmarkItem:
        name: str
        price: float = 0.0
        stock: int = 0
        active: bool = True
        note: str | None = None

    return db, Nexus(db, channels=[])


async def _measure(work: Callable[[], Awaitable[Any]], times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - begun) / times * 1e6


async def compare(url: str) -> None:
    db, app = _application(url)
    async with app.running():

        async def run(name: str, /, **arguments: object) -> Any:
            return await app.runtime.invoke(f"benchmark_items.{name}", arguments, LOCAL, channel="benchmark")

        for number in range(RECORDS):
            await run("create", name=f"item {number}", price=number / 3, stock=number)
        first = (await run("list", limit=1)).records[0].id
        numbers = itertools.count()
        ours: dict[str, Callable[[], Awaitable[Any]]] = {
            "read by id": lambda: run("get", id=first),
            "list 20": lambda: run("list", limit=20),
            "create": lambda: run("create", name="new", price=1.5, stock=2),
            "update": lambda: run("update", id=first, stock=next(numbers)),
        }
        # The statements that ours send, captured once, and sent again on the very connection that they were
        # sent on: on SQLite the core that its thread happens to run on makes a difference of a factor two.
        bare = {name: await _captured(work, db.database.dialect) for name, work in ours.items()}
        print(f"\n{db.database.dialect.name}: µs each, ours / driver, and the share")
        for name, times in OPERATIONS.items():
            mine: list[float] = []
            theirs: list[float] = []
            for _ in range(ROUNDS):
                mine.append(await _measure(ours[name], times))
                theirs.append(await _measure(bare[name], times))
            ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
            middle = statistics.median(mine), statistics.median(theirs)
            print(f"  {name:<12} {middle[0]:8.1f} / {middle[1]:8.1f}   {ratio:5.2f}")
        connection = await db.database.pools.writer.take()
        await connection.fetch("DROP TABLE benchmark_items")
        db.database.pools.writer.give(connection)


async def _captured(work: Callable[[], Awaitable[Any]], dialect: Any) -> Callable[[], Awaitable[Any]]:
    """What the driver alone does for `work`: its statements and parameters, with the driver's own calls. Two
    sets of parameters in turn: a database may see that an update changes nothing, and write nothing."""
    sent: list[tuple[str, Any]] = []
    drivers: list[Any] = []
    kind = type(await _any_connection(dialect))
    originals = {name: getattr(kind, name) for name in ("fetch", "execute")}

    def spy(original: Any) -> Any:
        async def spied(self: Any, sql: str, parameters: Any = ()) -> Any:
            sent.append((sql, parameters))
            drivers.append(self._driver)
            return await original(self, sql, parameters)

        return spied

    for name, original in originals.items():
        setattr(kind, name, spy(original))
    try:
        await work()
        once = len(sent)
        await work()
    finally:
        for name, original in originals.items():
            setattr(kind, name, original)
    assert len(set(map(id, drivers))) == 1
    return _bare(drivers[0], itertools.cycle([sent[:once], sent[once:]]))


async def _any_connection(dialect: Any) -> Any:
    connection = await dialect.open_reader()
    await connection.close()
    return connection


def _bare(driver: Any, turns: Iterator[list[tuple[str, Any]]]) -> Callable[[], Awaitable[Any]]:
    if hasattr(driver, "execute_fetchall"):  # aiosqlite

        async def sqlite() -> None:
            for sql, parameters in next(turns):
                await driver.execute_fetchall(sql, parameters)

        return sqlite
    if hasattr(driver, "fetchrow"):  # asyncpg

        async def postgresql() -> None:
            for sql, parameters in next(turns):
                await driver.fetch(sql, *parameters)

        return postgresql

    async def mysql() -> None:
        for sql, parameters in next(turns):
            cursor = await driver.cursor()
            await cursor.execute(sql, parameters)
            await cursor.fetchall()

    return mysql


async def main(urls: list[str]) -> None:
    if urls:
        for url in urls:
            await compare(url)
        return
    with tempfile.TemporaryDirectory() as folder:
        await compare(f"sqlite:///{folder}/benchmark.db")
    for name in ("NEXUS_TEST_POSTGRESQL_URL", "NEXUS_TEST_MYSQL_URL"):
        if url := os.environ.get(name):
            await compare(url)
        else:
            print(f"\n{name} is not set: skipped")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
