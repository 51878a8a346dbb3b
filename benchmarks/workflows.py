"""What running a workflow costs: per node, to plan, and beside the bare operation.

The first figures are of CPU time, since nothing is waited for.

    python benchmarks/workflows.py [URL]

The URL is of the database for the last figure; without one, NEXUS_TEST_POSTGRESQL_URL. Each figure is the
median of several rounds on this machine at this moment; the last is a share, measured in turns in one run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dataflow import DataFlow
from nexus import LOCAL, Call, Effect, Nexus, operation
from nexus_workflows import WorkflowBuilder

ROUNDS = 15
TOGETHER = 1000


def _application() -> Nexus:
    app = Nexus(channels=[], record_runs=False)

    @operation(effect=Effect.READ)
    async def nothing(call: Call) -> dict[str, int]:
        return {"a": 1}

    app.operation(nothing)
    return app


def _chain(kind: str, count: int, config: dict[str, Any]) -> WorkflowBuilder:
    workflow = WorkflowBuilder()
    for number in range(count):
        workflow.add_node(kind, f"n{number}", config)
        if number:
            workflow.add_connection(f"n{number - 1}", "result", f"n{number}", "input")
    return workflow


def _wide(kind: str, count: int, config: dict[str, Any]) -> WorkflowBuilder:
    workflow = WorkflowBuilder()
    for number in range(count):
        workflow.add_node(kind, f"n{number}", config)
    return workflow


async def _each(app: Nexus, workflow: WorkflowBuilder, name: str, count: int) -> list[float]:
    """Microseconds per node."""
    app.register(name, workflow)
    found = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        for _ in range(20):
            await app.runtime.invoke(name, {}, LOCAL, channel="benchmark")
        found.append((time.process_time() - begun) / 20 / count * 1e6)
    return found[1:]


def _planning(app: Nexus) -> list[float]:
    """Milliseconds for 10,000 nodes, from the builder's declarations on."""
    workflow = _chain("nothing", 10_000, {})
    found = []
    for _ in range(5):
        begun = time.process_time()
        workflow.build().as_operation("large", app.registry)
        found.append((time.process_time() - begun) * 1e3)
    return found


async def _many(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TOGETHER)))
    return TOGETHER / (time.perf_counter() - begun)


async def _share(url: str, *, recorded: bool) -> None:
    db = DataFlow(url)

    @db.model
    class BenchmarkRun:
        name: str
        price: float = 0.0

    app = Nexus(db, channels=[], record_runs=recorded)
    workflow = WorkflowBuilder()
    workflow.add_node("BenchmarkRunCreateNode", "make", {"name": "{{name}}", "price": 1.5})
    app.register("make", workflow)
    async with app.running():

        def bare() -> Awaitable[Any]:
            arguments = {"name": "x", "price": 1.5}
            return app.runtime.invoke("benchmark_runs.create", arguments, LOCAL, channel="benchmark")

        def run() -> Awaitable[Any]:
            return app.runtime.invoke("make", {"name": "x"}, LOCAL, channel="benchmark")

        await bare()
        await run()
        pairs = [(await _many(bare), await _many(run)) for _ in range(5)]
        share = statistics.median(ours / theirs for theirs, ours in pairs)
        theirs, ours = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
        named = "recorded" if recorded else "not recorded; target ≥ 0.6"
        print(f"{TOGETHER} at once, bare / workflow per second and the share ({named}):")
        print(f"  {theirs:.0f} / {ours:.0f}   {share:.2f}")
        connection = await db.database.pools.writer.take()
        await connection.fetch("DROP TABLE benchmark_runs")
        db.database.pools.writer.give(connection)


async def main(arguments: list[str]) -> None:
    app = _application()

    def show(name: str, values: list[float], unit: str, target: str) -> None:
        middle = statistics.median(values)
        print(f"{name:<34} {middle:8.1f} {unit} ({min(values):.1f} to {max(values):.1f}; target {target})")

    code = {"code": "result = {'a': 1}"}
    show("chain of 100, per node", await _each(app, _chain("nothing", 100, {}), "chain", 100), "µs", "≤ 10")
    show("100 wide, per node", await _each(app, _wide("nothing", 100, {}), "wide", 100), "µs", "≤ 15")
    workflow = _chain("PythonCodeNode", 100, code)
    show("PythonCodeNode, per node", await _each(app, workflow, "code", 100), "µs", "≤ 25")
    show("10,000 nodes planned", _planning(app), "ms", "≤ 200")
    url = arguments[0] if arguments else os.environ.get("NEXUS_TEST_POSTGRESQL_URL")
    if url:
        for recorded in (False, True):
            await _share(url, recorded=recorded)
    else:
        print("NEXUS_TEST_POSTGRESQL_URL is not set: the last figure is left out")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
