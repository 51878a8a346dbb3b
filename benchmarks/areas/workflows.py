"""Workflows: what a node costs, to plan many, a thousand runs at once, and what recording them adds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.kit.databases import on_each
from benchmarks.kit.peers import INCUMBENT, python_of
from benchmarks.kit.profile import profiled_here
from benchmarks.kit.programs import asked
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES, application
from nexus import LOCAL, Call, Effect, Nexus, operation
from nexus_workflows import WorkflowBuilder

_INCUMBENT = "benchmarks/peers/incumbent_workflows.py"
_NODES = 100
_CODE = {"code": "result = {'a': 1}"}


async def measure(settings: Settings) -> list[Row]:
    return await _nodes(settings) + await on_each(settings, TABLES, _runs)


def chain(kind: str, count: int, config: dict[str, Any]) -> WorkflowBuilder:
    workflow = fan(kind, count, config)
    for number in range(1, count):
        workflow.add_connection(f"n{number - 1}", "result", f"n{number}", "input")
    return workflow


def fan(kind: str, count: int, config: dict[str, Any]) -> WorkflowBuilder:
    workflow = WorkflowBuilder()
    for number in range(count):
        workflow.add_node(kind, f"n{number}", config)
    return workflow


async def _nodes(settings: Settings) -> list[Row]:
    """CPU for each node, since nothing is waited for. The floor calls as many functions by hand."""
    app = Nexus(channels=[], record_runs=False)

    @operation(effect=Effect.READ)
    async def nothing(call: Call) -> dict[str, int]:
        return {"a": 1}

    app.operation(nothing)
    app.register("chain", chain("nothing", _NODES, {}))
    app.register("fan", fan("nothing", _NODES, {}))
    app.register("code", chain("PythonCodeNode", _NODES, _CODE))
    rows: list[Row] = []
    async with asked(_INCUMBENT, python=lambda: python_of(INCUMBENT)) as incumbent:
        for name, shown, most in (
            ("chain", "chain of 100, a node", 10),
            ("fan", "100 side by side, a node", 15),
            ("code", "chain of 100 PythonCodeNodes, a node", 25),
        ):
            done = await app.runtime.invoke(name, {}, LOCAL, channel="benchmark")
            if len(done.results) != _NODES or done.results[f"n{_NODES - 1}"]["a"] != 1:
                raise AssertionError(f"{name} gave {done}")
            candidates: dict[str, Measure] = {
                "by hand": _by_hand(name, settings.times(100)),
                "ours": _each(app, name, settings.times(50)),
            }
            failed = {} if incumbent.failed is None else {INCUMBENT: incumbent.failed}
            if incumbent.failed is None:
                candidates[INCUMBENT] = incumbent.measuring(f"{name} 1")
            targets = {"µs CPU": (Target(at_most=most), Target(INCUMBENT, 100))}
            rows += await in_turns("-", shown, candidates, settings.rounds, targets, failed)
            if settings.profile:
                await profiled_here(shown, candidates)
    workflow = chain("nothing", 500 if settings.quick else 10_000, {})

    def planned() -> Figures:
        begun = time.process_time()
        workflow.build().as_operation("large", app.registry)
        return {"ms CPU": (time.process_time() - begun) * 1e3}

    name, target = "10,000 nodes planned", {"ms CPU": (Target(at_most=200),)}
    if settings.profile:
        await profiled_here(name, {"ours": planned})
    return rows + await in_turns("-", name, {"ours": planned}, settings.rounds, target)


def _each(app: Nexus, name: str, times: int) -> Measure:
    async def once() -> Figures:
        begun = time.process_time()
        for _ in range(times):
            await app.runtime.invoke(name, {}, LOCAL, channel="benchmark")
        return {"µs CPU": (time.process_time() - begun) / times / _NODES * 1e6}

    return once


def _by_hand(name: str, times: int) -> Measure:
    async def node(given: object = None) -> dict[str, int]:
        return {"a": 1}

    code = compile(_CODE["code"], "node", "exec")

    async def chained() -> object:
        result: object = None
        for _ in range(_NODES):
            result = await node(result)
        return result

    async def side_by_side() -> object:
        async with asyncio.TaskGroup() as group:
            return [group.create_task(node()) for _ in range(_NODES)]

    async def run_code() -> object:
        result: object = None
        for _ in range(_NODES):
            scope: dict[str, object] = {"input": result}
            exec(code, scope)  # noqa: S102
            result = scope["result"]
        return result

    work = {"chain": chained, "fan": side_by_side, "code": run_code}[name]

    async def once() -> Figures:
        begun = time.process_time()
        for _ in range(times):
            await work()
        return {"µs CPU": (time.process_time() - begun) / times / _NODES * 1e6}

    return once


async def _runs(settings: Settings, kind: str, url: str) -> list[Row]:
    """A workflow of one CreateNode, recorded and not, and the operation that its node is."""
    db, app = application(url, channels=[])
    for name, record in (("recorded", True), ("plain", False)):
        workflow = WorkflowBuilder()
        workflow.add_node("BenchmarkItemCreateNode", "make", {"name": "{{name}}"})
        app.register(name, workflow, record=record)
    works: dict[str, Callable[[], Awaitable[Any]]] = {
        "operation alone": lambda: _invoke(app, "benchmark_items.create"),
        "ours": lambda: _invoke(app, "plain"),
        "ours, recorded": lambda: _invoke(app, "recorded"),
    }
    rows: list[Row] = []
    async with app.running():
        for work in works.values():
            await work()
        one = {name: _one(work, settings.times(100)) for name, work in works.items()}
        many = {name: _many(work, settings.times(1000)) for name, work in works.items()}
        rows += await in_turns(kind, "a run, one after the other", one, settings.rounds)
        target = {"runs/s": (Target("operation alone", 0.6),)}
        rows += await in_turns(kind, "1,000 runs at once", many, settings.rounds, target)
        if settings.profile:
            await profiled_here(f"{kind}: a run, one after the other", one)
            await profiled_here(f"{kind}: 1,000 runs at once", many)
        wanted = await app.runtime.invoke("benchmark_items.count", {}, LOCAL, channel="benchmark")
        if wanted.count < len(works) * settings.rounds:
            raise AssertionError(f"only {wanted.count} records were made")
    await db.database.close()
    return rows


async def _invoke(app: Nexus, name: str) -> Any:
    return await app.runtime.invoke(name, {"name": "x"}, LOCAL, channel="benchmark")


def _one(work: Callable[[], Awaitable[Any]], times: int) -> Measure:
    async def once() -> Figures:
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            await work()
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        return {"µs": taken / times * 1e6, "µs CPU": used / times * 1e6}

    return once


def _many(work: Callable[[], Awaitable[Any]], times: int) -> Measure:
    async def once() -> Figures:
        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(times)))
        return {"runs/s": times / (time.perf_counter() - begun)}

    return once
