"""Following changes: how soon they come, what one costs for many subscribers, what logging adds."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

from benchmarks.kit.databases import on_each
from benchmarks.kit.load import Line, request
from benchmarks.kit.processes import Child, serving
from benchmarks.kit.profile import profiled, profiled_here
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns, reason_of
from benchmarks.kit.settings import Settings
from benchmarks.kit.websockets import Websocket, allow_many, answer_pings, count_frames
from benchmarks.ours import TABLES, application
from nexus import LOCAL

_SUBSCRIBERS = (100, 1_000, 5_000)
_DELIVERIES = 10_000
"""How many there are in a round, at least five changes."""
_COMMITS = 100
_SUBSCRIBE = {"type": "subscribe", "id": "s", "topic": TABLES[0]}
_CREATE = request("POST", f"/api/{TABLES[0]}", b'{"name": "x", "price": 1.5}')


async def measure(settings: Settings) -> list[Row]:
    allow_many()
    return await on_each(settings, TABLES, _logging, _latency, _fan_outs)


async def _fan_outs(settings: Settings, kind: str, url: str) -> list[Row]:
    """To few and very many only on the first database, since these do not depend on it."""
    counts = _SUBSCRIBERS if kind == next(iter(settings.databases)) else (1_000,)
    rows: list[Row] = []
    for subscribers in (20,) if settings.quick else counts:
        rows += await _fan_out(settings, kind, url, subscribers)
    return rows


async def _logging(settings: Settings, kind: str, url: str) -> list[Row]:
    _, app = application(url, channels=[])
    async with app.running():

        def inserting(table: str) -> Measure:
            async def once() -> Figures:
                times = settings.times(100)
                begun = time.perf_counter()
                for _ in range(times):
                    await app.runtime.invoke(f"{table}.create", {"name": "x"}, LOCAL, channel="benchmark")
                return {"µs": (time.perf_counter() - begun) / times * 1e6}

            return once

        candidates = {"not logged": inserting(TABLES[1]), "ours": inserting(TABLES[0])}
        name = "an insert, changes logged"
        if settings.profile:
            await profiled_here(f"{kind}: {name}", candidates)
        return await in_turns(kind, name, candidates, settings.rounds * 2)


async def _latency(settings: Settings, kind: str, url: str) -> list[Row]:
    """From a commit in this process to its frame from the server, which is another one."""
    _, app = application(url, channels=[])
    loop = asyncio.get_running_loop()
    with serving("benchmarks.ours", url, settle=not settings.quick) as (_, port):
        line = Websocket(port, "/ws")
        line.send(_SUBSCRIBE)
        if (first := line.receive())["type"] != "ready":
            raise AssertionError(f"no subscription: {first}")
        line.socket.setblocking(False)
        async with app.running():

            async def once() -> Figures:
                taken = []
                for number in range(settings.times(_COMMITS)):
                    arriving = asyncio.ensure_future(line.arrives(loop))
                    await app.runtime.invoke(
                        f"{TABLES[0]}.create", {"name": str(number)}, LOCAL, channel="benchmark"
                    )
                    committed = time.perf_counter()
                    async with asyncio.timeout(10):
                        frame, came = await arriving
                    if frame["record"]["name"] != str(number):
                        raise AssertionError(f"another change came: {frame}")
                    taken.append(max(0.0, came - committed) * 1e3)
                    await asyncio.sleep(0.01)
                taken.sort()
                return {"ms, median": taken[len(taken) // 2], "ms, 99 %": taken[int(len(taken) * 0.99)]}

            await app.runtime.invoke(f"{TABLES[0]}.count", {}, LOCAL, channel="benchmark")
            await asyncio.sleep(0 if settings.quick else 2.5)  # so that this process knows of the reader
            targets = {"ms, median": (Target(at_most=5),), "ms, 99 %": (Target(at_most=25),)}
            name = "commit to frame in another process"
            found = await in_turns(kind, name, {"ours": once}, min(settings.rounds, 3), targets)
        line.close()
    return found


async def _fan_out(settings: Settings, kind: str, url: str, subscribers: int) -> list[Row]:
    failed: dict[str, str] = {}
    candidates: dict[str, Measure] = {}
    memory: dict[str, float] = {}
    everybody: list[Websocket] = []
    changes = 2 if settings.quick else max(5, _DELIVERIES // subscribers)
    with ExitStack() as stack:
        for label, module in (("floor", "benchmarks.floor.broadcast"), ("ours", "benchmarks.ours")):
            try:
                child, port = stack.enter_context(serving(module, url, settle=not settings.quick))
                followers, used = _follow(stack, child, port, subscribers, everybody)
                memory[label] = used
                candidates[label] = _delivered(child, port, followers, changes, everybody)
                if settings.profile:
                    once = candidates[label]
                    title = f"{kind}: {subscribers} subscribers: {label}"
                    profiled(title, child.pid, lambda s, o=once: _for(s, o))
            except Exception as failure:
                failed[label] = reason_of(failure)
        name = f"a change for each of {subscribers:,} subscribers"
        targets = {"µs CPU": (Target(at_most=35),)} if subscribers == 1_000 else {}
        rows = await in_turns(kind, name, candidates, min(settings.rounds, 3), targets, failed)
    taken = {label: [used] for label, used in memory.items()}
    promised = (Target(at_most=40),) if subscribers == 1_000 else ()
    return [*rows, Row(kind, f"each of {subscribers:,} connections", "KiB", taken, failed, promised)]


def _follow(
    stack: ExitStack, child: Child, port: int, subscribers: int, everybody: list[Websocket]
) -> tuple[list[Websocket], float]:
    """Connections that follow, and how many KiB the server needs for each."""
    line = Line(port)
    if line.ask(_CREATE).status != 201:  # so that everything is loaded
        raise AssertionError("no record could be made")
    line.close()
    before = child.memory()
    found = []
    for number in range(subscribers):
        if number % 500 == 0:
            answer_pings(everybody)
        each = Websocket(port, "/ws")
        stack.callback(each.close)
        each.send(_SUBSCRIBE)
        if (first := each.receive())["type"] != "ready":
            raise AssertionError(f"no subscription: {first}")
        found.append(each)
        everybody.append(each)
    return found, (child.memory() - before) * 1024 / subscribers


def _delivered(
    child: Child, port: int, followers: list[Websocket], changes: int, everybody: list[Websocket]
) -> Measure:
    def once() -> Figures:
        child.check()
        answer_pings(everybody)
        line = Line(port)
        before = child.cpu()
        for _ in range(changes):
            if line.ask(_CREATE).status != 201:
                raise AssertionError("no record could be made")
        count_frames(followers, changes)
        line.close()
        return {"µs CPU": (child.cpu() - before) / changes / len(followers) * 1e6}

    return once


def _for(seconds: float, once: Any) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        once()
