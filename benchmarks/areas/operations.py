"""Operations in this process: through the runtime, their statements on the bare driver, the incumbent."""

from __future__ import annotations

import itertools
import time
from typing import Any

from benchmarks.kit.databases import on_each
from benchmarks.kit.driver_work import Work, captured
from benchmarks.kit.peers import INCUMBENT, python_of
from benchmarks.kit.profile import profiled_here
from benchmarks.kit.programs import asked
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES, application
from nexus import LOCAL, Call, Effect, Nexus, operation

_TIMES = {"get": 200, "list": 100, "create": 60, "update": 60}
_SHOWN = {"get": "read by id", "list": "list 20"}
_RECORDS = 500
_INCUMBENT = "benchmarks/peers/incumbent_operations.py"
_TABLES = (*TABLES, "benchmark_incumbents")


async def measure(settings: Settings) -> list[Row]:
    return await _nothing(settings) + await on_each(settings, _TABLES, _operations)


async def _nothing(settings: Settings) -> list[Row]:
    """The way through the runtime alone."""
    app = Nexus(channels=[])

    @operation(effect=Effect.READ)
    async def nothing(call: Call) -> None:
        return None

    app.operation(nothing)

    async def ours() -> Figures:
        times = settings.times(20_000)
        begun = time.process_time()
        for _ in range(times):
            await app.runtime.invoke("nothing", {}, LOCAL, channel="benchmark")
        return {"µs CPU": (time.process_time() - begun) / times * 1e6}

    name, target = "invoke, empty operation", {"µs CPU": (Target(at_most=8),)}
    if settings.profile:
        await profiled_here(name, {"ours": ours})
    return await in_turns("-", name, {"ours": ours}, settings.rounds, target)


async def _operations(settings: Settings, kind: str, url: str) -> list[Row]:
    rows: list[Row] = []
    db, app = application(url, channels=[])
    async with app.running(), asked(_INCUMBENT, url, python=lambda: python_of(INCUMBENT)) as incumbent:

        async def run(verb: str, /, **arguments: object) -> Any:
            return await app.runtime.invoke(f"benchmark_items.{verb}", arguments, LOCAL, channel="benchmark")

        for number in range(_RECORDS):
            await run("create", name=f"item {number}", price=number / 3, stock=number)
        numbers = itertools.count()
        ours: dict[str, Work] = {
            "get": lambda: run("get", id=1),
            "list": lambda: run("list", limit=20),
            "create": lambda: run("create", name="new", price=1.5, stock=2),
            "update": lambda: run("update", id=1, stock=next(numbers)),
        }
        await ours["update"]()
        if (await ours["get"]()).stock != 0 or len((await ours["list"]()).records) != 20:
            raise AssertionError("ours answers wrongly")
        for verb, work in ours.items():
            times = settings.times(_TIMES[verb])
            bare = await captured(work, db.database.dialect)
            candidates: dict[str, Measure] = {"driver": _timed(bare, times), "ours": _timed(work, times)}
            failed = {}
            if incumbent.failed is None:
                candidates[INCUMBENT] = incumbent.measuring(f"{verb} {max(1, times // 10)}")
            else:
                failed[INCUMBENT] = incumbent.failed
            promised = {unit: (Target(INCUMBENT, 20),) for unit in ("µs", "µs CPU")}
            name = _SHOWN.get(verb, verb)
            rows += await in_turns(kind, name, candidates, settings.rounds * 2, promised, failed)
            if settings.profile:
                await profiled_here(f"{kind}: {name}", candidates)
    return rows


def _timed(work: Work, times: int) -> Measure:
    async def once() -> Figures:
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            await work()
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        return {"µs": taken / times * 1e6, "µs CPU": used / times * 1e6}

    return once
