"""How cost grows: with models, records, conditions of a filter, and the length of the change log.

Ours is what has much of it; beside it stands the same with little, in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from benchmarks.kit.databases import on_each
from benchmarks.kit.driver_work import Work
from benchmarks.kit.profile import profiled_here
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES, application
from dataflow import DataFlow
from nexus import LOCAL, Nexus

_FEW = 10_000
_MODELS = (1, 50, 500)
_CHANGES = 50_000
_CONDITIONS = 20
_GIVEN_AT_ONCE = 10_000
_MODEL_TABLE, _FEWS, _MANIES = "benchmark_model_0", "benchmark_fews", "benchmark_manies"
_COPIED = "name, price, stock, active, note, created_at, updated_at"

Run: TypeAlias = Callable[..., Awaitable[Any]]


async def measure(settings: Settings) -> list[Row]:
    tables = (*TABLES, _MODEL_TABLE, _FEWS, _MANIES)
    return await on_each(settings, tables, _models, _records, _log)


async def _models(settings: Settings, kind: str, url: str) -> list[Row]:
    """Reading by id through the runtime, among so many models."""
    measures: dict[str, Measure] = {}
    made: list[DataFlow] = []
    counts = _MODELS[:2] if settings.quick else _MODELS
    try:
        for count in counts:
            db = DataFlow(url)
            made.append(db)
            for number in range(count):
                _model(db, f"BenchmarkModel{number}", f"benchmark_model_{number}")
            run = _runner(Nexus(db, channels=[]), _MODEL_TABLE)
            if count == 1:
                await run("create", name="x")
            label = "ours" if count == counts[-1] else f"{count} model{'s'[: count > 1]}"
            measures[label] = _timed(_reading(run), settings.times(200))
        targets = {"µs CPU": (Target("1 model", 0.95),)}
        name = f"read by id, among {counts[-1]} models"
        rows = await in_turns(kind, name, measures, settings.rounds, targets)
        if settings.profile:
            await profiled_here(f"{kind}: {name}", measures)
        return rows
    finally:
        for db in made:
            await db.database.close()


async def _records(settings: Settings, kind: str, url: str) -> list[Row]:
    """By id and a page after a cursor, of few records and a hundred times as many; and with a filter."""
    db = DataFlow(url)
    for name, table in (("BenchmarkFew", _FEWS), ("BenchmarkMany", _MANIES)):
        _model(db, name, table)
    app = Nexus(db, channels=[])
    few, many = _runner(app, _FEWS), _runner(app, _MANIES)
    size = _FEW // 50 if settings.quick else _FEW
    rows: list[Row] = []
    async with app.running():
        data = [{"name": f"item {n}", "price": n / 4} for n in range(size)]
        await few("bulk_create", data=data)
        await many("create", name="first")
        connection = await db.database.pools.writer.take()
        await connection.run(
            f"INSERT INTO {_MANIES} ({_COPIED}) SELECT {', '.join(f'a.{c}' for c in _COPIED.split(', '))}"
            f" FROM {_FEWS} a CROSS JOIN (SELECT id FROM {_FEWS} ORDER BY id LIMIT 100) b"
        )
        db.database.pools.writer.give(connection)
        if (counted := (await many("count")).count) != size * 100 + 1:
            raise AssertionError(f"there are {counted} records")
        times = settings.times(100)
        little = f"{size:,} records"
        for name, work, target in (
            ("read by id", _reading, ()),
            ("page after a cursor", await _paging(few, many), (Target(little, 0.9),)),
        ):
            measures = {little: _timed(work(few), times), "ours": _timed(work(many), times)}
            shown = f"{name}, of {size * 100:,} records"
            rows += await in_turns(kind, shown, measures, settings.rounds, {"µs": target})
            if settings.profile:
                await profiled_here(f"{kind}: {shown}", measures)
        conditions = {"$and": [{"price": {"$gte": -number}} for number in range(1, _CONDITIONS + 1)]}
        measures = {
            "no filter": _timed(lambda: few("list", limit=20), times),
            "1 condition": _timed(lambda: few("list", limit=20, filter={"price": {"$gte": -1}}), times),
            "ours": _timed(lambda: few("list", limit=20, filter=conditions), times),
        }
        name = f"list 20 by {_CONDITIONS} conditions"
        rows += await in_turns(kind, name, measures, settings.rounds)
        if settings.profile:
            await profiled_here(f"{kind}: {name}", measures)
    return rows


async def _paging(*runs: Run) -> Callable[[Run], Work]:
    """Reading the page after the fifth thousand."""
    cursors: dict[int, str] = {}
    for run in runs:
        cursor = ""
        for _ in range(5):
            page = await run("list", limit=1000, cursor=cursor)
            if page.next is None:
                break
            cursor = page.next
        cursors[id(run)] = cursor
    return lambda run: lambda: run("list", limit=20, cursor=cursors[id(run)])


async def _log(settings: Settings, kind: str, url: str) -> list[Row]:
    """An insert while the change log is short, and when it is long: one after the other, since there is one
    log. The drift of the machine is in the ratio."""
    _, app = application(url, channels=[])
    run = _runner(app, TABLES[0])
    changes = settings.times(_CHANGES)
    short, taken = "short log", {}
    async with app.running():
        work = _timed(lambda: run("create", name="x"), settings.times(100))
        for label in (short, "ours"):
            for row in await in_turns(kind, "", {label: work}, settings.rounds):
                taken.setdefault(row.unit, {}).update(row.taken)
            if settings.profile:
                await profiled_here(f"{kind}: insert", {label: work})
            if label == short:
                for begin in range(0, changes, _GIVEN_AT_ONCE):
                    data = [{"name": f"{n}"} for n in range(begin, min(changes, begin + _GIVEN_AT_ONCE))]
                    await run("bulk_create", data=data)
    name = f"insert, {changes:,} changes in the log"
    return [Row(kind, name, unit, by_label) for unit, by_label in taken.items()]


def _model(db: DataFlow, name: str, table: str) -> None:
    fields = {"name": str, "price": float, "stock": int, "active": bool, "note": str | None}
    defaults = {"price": 0.0, "stock": 0, "active": True, "note": None}
    about = {"__tablename__": table, "__dataflow__": {"changes": False}}
    db.model(type(name, (), {"__annotations__": fields, **defaults, **about}))


def _runner(app: Nexus, resource: str) -> Run:
    async def run(verb: str, /, **arguments: object) -> Any:
        return await app.runtime.invoke(f"{resource}.{verb}", arguments, LOCAL, channel="benchmark")

    return run


def _reading(run: Run) -> Work:
    return lambda: run("get", id=1)


def _timed(work: Work, times: int) -> Measure:
    async def once() -> Figures:
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            await work()
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        return {"µs": taken / times * 1e6, "µs CPU": used / times * 1e6}

    return once
