"""What recording adds to a run: a workflow of one CreateNode, recorded and not, and the bare operation.

    python benchmarks/runs.py [URL …]

Without URLs: an SQLite file, and the servers of NEXUS_TEST_POSTGRESQL_URL and NEXUS_TEST_MYSQL_URL. The
three take turns within one run; shown is the median of the rounds. `one` is one after the other, in µs each;
`at once` is a thousand started together, in operations a second. Tables `benchmark_items` and `nexus_runs`
are made, and dropped.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus_workflows import WorkflowBuilder

ROUNDS = 5
ONE = 100
AT_ONCE = 1000


def _application(url: str) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url)

    @db.model
    class BenchmarkItem:
        name: str
        stock: int = 0

    app = Nexus(db, channels=[])
    for name, record in (("recorded", True), ("plain", False)):
        workflow = WorkflowBuilder()
        workflow.add_node("BenchmarkItemCreateNode", "make", {"name": "{{name}}"})
        app.register(name, workflow, record=record)
    return db, app


async def _one(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    for _ in range(ONE):
        await work()
    return (time.perf_counter() - begun) / ONE * 1e6


async def _at_once(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return AT_ONCE / (time.perf_counter() - begun)


async def compare(url: str) -> None:
    db, app = _application(url)
    names = {"operation": "benchmark_items.create", "plain": "plain", "recorded": "recorded"}
    works: dict[str, Callable[[], Awaitable[Any]]] = {
        shown: lambda name=name: app.runtime.invoke(name, {"name": "x"}, LOCAL, channel="benchmark")
        for shown, name in names.items()
    }
    async with app.running():
        for measure, unit in ((_one, "µs each"), (_at_once, "a second")):
            taken: dict[str, list[float]] = {shown: [] for shown in works}
            for work in works.values():
                await work()
            for _ in range(ROUNDS):
                for shown, work in works.items():
                    taken[shown].append(await measure(work))
            middle = {shown: statistics.median(values) for shown, values in taken.items()}
            ratio = statistics.median(
                recorded / plain for recorded, plain in zip(taken["recorded"], taken["plain"], strict=True)
            )
            figures = ", ".join(f"{shown} {value:.0f}" for shown, value in middle.items())
            print(f"{db.database.dialect.name}: {figures} {unit}; recorded / plain {ratio:.2f}")
        assert app.runtime.runs is not None
        await app.runtime.runs.close()
        connection = await db.database.pools.writer.take()
        for table in ("benchmark_items", "nexus_runs"):
            await connection.run(f"DROP TABLE {table}")
        db.database.pools.writer.give(connection)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        servers = [os.environ.get(f"NEXUS_TEST_{name}_URL", "") for name in ("POSTGRESQL", "MYSQL")]
        for url in sys.argv[1:] or [f"sqlite:///{folder}/runs.db", *servers]:
            if url:
                asyncio.run(compare(url))


if __name__ == "__main__":
    main()
