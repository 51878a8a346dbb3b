"""Operations in this process: through the runtime, and the same statement on the bare driver.

The driver's side sends the very statements that ours sent, on the very connection: on SQLite the core that its
thread happens to run on makes a difference of a factor two.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.kit.databases import clear
from benchmarks.kit.peers import INCUMBENT, python_of
from benchmarks.kit.processes import asked
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns, reason_of
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES, application
from nexus import LOCAL

_TIMES = {"read by id": 200, "list 20": 100, "create": 60, "update": 60}
_RECORDS = 500
_INCUMBENT = "benchmarks/peers/incumbent_operations.py"
_INCUMBENT_TABLE = "benchmark_incumbents"

Work = Callable[[], Awaitable[Any]]


async def measure(settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for kind, url in settings.databases.items():
        await clear(url, [*TABLES, _INCUMBENT_TABLE])
        try:
            rows += await _compared(settings, kind, url)
        finally:
            await clear(url, [*TABLES, _INCUMBENT_TABLE])
    return rows


async def _compared(settings: Settings, kind: str, url: str) -> list[Row]:
    rows: list[Row] = []
    db, app = application(url, channels=[])
    async with app.running(), asked(_INCUMBENT, url, python=lambda: python_of(INCUMBENT)) as incumbent:

        async def run(name: str, /, **arguments: object) -> Any:
            return await app.runtime.invoke(f"benchmark_items.{name}", arguments, LOCAL, channel="benchmark")

        for number in range(_RECORDS):
            await run("create", name=f"item {number}", price=number / 3, stock=number)
        first = (await run("get", id=1)).id
        numbers = itertools.count()
        ours: dict[str, Work] = {
            "read by id": lambda: run("get", id=first),
            "list 20": lambda: run("list", limit=20),
            "create": lambda: run("create", name="new", price=1.5, stock=2),
            "update": lambda: run("update", id=first, stock=next(numbers)),
        }
        assert (await ours["update"]()).id == first
        assert len((await ours["list 20"]()).records) == 20
        for name, work in ours.items():
            times = settings.times(_TIMES[name])
            bare = await _captured(work, db.database.dialect)
            candidates: dict[str, Measure] = {"driver": _timed(bare, times), "ours": _timed(work, times)}
            if incumbent.failed is None:
                candidates[INCUMBENT] = _from(incumbent, f"{name.replace(' ', '-')} {times}")
            failed = {} if incumbent.failed is None else {INCUMBENT: incumbent.failed}
            promised = {"µs": (Target(INCUMBENT, 20),)}
            rows += await in_turns(kind, name, candidates, settings.rounds * 2, promised, failed)
    return rows


def _timed(work: Work, times: int) -> Measure:
    async def once() -> Figures:
        begun = time.perf_counter()
        for _ in range(times):
            await work()
        return {"µs": (time.perf_counter() - begun) / times * 1e6}

    return once
