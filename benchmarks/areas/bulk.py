"""Many records at once: new ones, changed ones, and those of which nobody knows whether they are there."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

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

_NAMES = {"create": ("name", "price"), "update": ("id", "stock"), "upsert": ("id", "name", "price")}

Rows = list[tuple[Any, ...]]
Objects = list[dict[str, Any]]
T = TypeVar("T")


class Given:
    """What one candidate is given, turn by turn, for a table in which ids are counted from 1: of what is
    to be upserted one half is there already."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._last = 0  # the largest id
        self._turns = itertools.count(1)

    def rows(self, verb: str) -> Rows:
        turn, size = next(self._turns), self._size
        if verb == "update":
            return [(key, turn) for key in range(1, size + 1)]
        first = self._last + 1 - (size // 2 if verb == "upsert" else 0)
        self._last = first + size - 1
        if verb == "create":
            return [(f"item {n}", n / 4 + turn) for n in range(size)]
        return [(key, f"item {key}", key / 2 + turn) for key in range(first, first + size)]


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
    begun = time.monotonic()

    async with app.running():

        async def run(table: str, verb: str, **arguments: object) -> Any:
            return await app.runtime.invoke(f"{table}.{verb}", arguments, LOCAL, channel="benchmark")

        def ours(table: str, verb: str) -> Callable[[Objects], Awaitable[object]]:
            more = {"return_ids": True} if verb == "create" else {}
            return lambda rows: run(table, f"bulk_{verb}", data=rows, **more)

        tables = {"driver": Given(size), "ours": Given(size), "ours, changes logged": Given(size)}

        def objects(name: str, verb: str) -> Objects:
            """The same in the form that operations take."""
            return [dict(zip(_NAMES[verb], row, strict=True)) for row in tables[name].rows(verb)]

        try:
            for verb in ("create", "update", "upsert"):
                if time.monotonic() - begun > _BUDGET and not profile:
                    break
                theirs = getattr(floor, verb)
                candidates: dict[str, Measure] = {
                    "driver": _timed(lambda v=verb: tables["driver"].rows(v), theirs, size),
                    "ours": _timed(lambda v=verb: objects("ours", v), ours(_UNLOGGED, verb), size),
                }
                if logged:
                    name = "ours, changes logged"
                    measured = _timed(lambda v=verb, n=name: objects(n, v), ours(_LOGGED, verb), size)
                    candidates[name] = measured
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


def _timed(given: Callable[[], T], work: Callable[[T], Awaitable[object]], size: int) -> Measure:
    """What is given is made before: each candidate takes its own form."""

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
