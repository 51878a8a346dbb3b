"""Many records at once: new ones, changed ones, and those of which nobody knows whether they are there."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.floor.bulk import TABLE, bulk_floor
from benchmarks.floor.items import Items
from benchmarks.kit.databases import on_each
from benchmarks.kit.profile import profiled_here
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES, application
from nexus import LOCAL

_LONGEST = 20.0
"""Seconds for one turn: a candidate that needs more is reported so."""
_BUDGET = 30.0
"""Seconds for one size on one database, after which the remaining verbs are left out."""
_TABLES = (*TABLES, TABLE)
_LOGGED, _UNLOGGED = TABLES

Rows = list[tuple[Any, ...]]


async def measure(settings: Settings) -> list[Row]:
    return await on_each(settings, _TABLES, _smaller, *([] if settings.quick else [_larger]))


async def _smaller(settings: Settings, kind: str, url: str) -> list[Row]:
    size, rounds = (200, 1) if settings.quick else (10_000, 4)
    return await _compared(kind, url, size, rounds, logged=True, profile=settings.profile)


async def _larger(settings: Settings, kind: str, url: str) -> list[Row]:
    return await _compared(kind, url, 100_000, 2, logged=False)


async def _compared(
    kind: str, url: str, size: int, rounds: int, *, logged: bool, profile: bool = False
) -> list[Row]:
    found: list[Row] = []
    _, app = application(url, channels=[])
    floor = bulk_floor(url)
    items = Items(url)
    await items.open()  # makes the table
    await items.close()
    await floor.open()
    numbers = itertools.count(1)
    begun = time.monotonic()

    def given(verb: str) -> Rows:
        """The same for each candidate: half of what is upserted is there already."""
        turn = next(numbers)
        if verb == "create":
            return [(f"item {n}", n / 4 + turn) for n in range(size)]
        if verb == "update":
            return [(key, turn) for key in range(1, size + 1)]
        first = size // 2 + 1
        return [(key, f"item {key}", key / 2 + turn) for key in range(first, first + size)]

    async with app.running():

        async def run(table: str, verb: str, **arguments: object) -> Any:
            return await app.runtime.invoke(f"{table}.{verb}", arguments, LOCAL, channel="benchmark")

        def ours(table: str, verb: str) -> Callable[[Rows], Awaitable[object]]:
            names = {
                "create": ("name", "price"),
                "update": ("id", "stock"),
                "upsert": ("id", "name", "price"),
            }

            async def work(rows: Rows) -> object:
                data = [dict(zip(names[verb], row, strict=True)) for row in rows]
                return await run(table, f"bulk_{verb}", data=data)

            return work

        try:
            for verb in ("create", "update", "upsert"):
                if time.monotonic() - begun > _BUDGET and not profile:
                    break
                theirs = getattr(floor, verb)
                candidates: dict[str, Measure] = {
                    "driver": _timed(lambda v=verb: given(v), theirs, size),
                    "ours": _timed(lambda v=verb: given(v), ours(_UNLOGGED, verb), size),
                }
                if logged:
                    measured = _timed(lambda v=verb: given(v), ours(_LOGGED, verb), size)
                    candidates["ours, changes logged"] = measured
                targets = {"records/s": (Target("driver", 0.75),)}
                found += await in_turns(kind, f"{verb} {size:,}", candidates, rounds, targets)
                if profile:
                    await profiled_here(f"{kind}: {verb} {size:,}", candidates)
            for table in (_UNLOGGED, _LOGGED) if logged else (_UNLOGGED,):
                await _check(run, table, size)
        finally:
            await floor.close()
    return found


async def _check(run: Callable[..., Awaitable[Any]], table: str, size: int) -> None:
    """What was written is there. Raises AssertionError."""
    changed = await run(table, "get", id=1)
    if changed.name != "item 0":
        raise AssertionError(f"{table}: {size} records were not written as given")


def _timed(given: Callable[[], Rows], work: Callable[[Rows], Awaitable[object]], size: int) -> Measure:
    async def once() -> Figures:
        rows = given()
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST):
                await work(rows)
        except TimeoutError:
            raise TimeoutError(f"{size:,} records took more than {_LONGEST:g} s") from None
        return {"records/s": size / (time.perf_counter() - begun)}

    return once
