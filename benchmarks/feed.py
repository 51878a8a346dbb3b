"""What following changes costs, and how soon they come.

    python benchmarks/feed.py [--quick] [URL …]

Without URLs: an SQLite file, and the servers of NEXUS_TEST_POSTGRESQL_URL and NEXUS_TEST_MYSQL_URL. Shown are

- how long after its commit in this process a change is received by another process,
- how many single inserts a second there are with changes logged, for each without, and records of bulk
  inserts; both sides take turns within one run;
- what one delivered change costs the server for many subscribers, and the memory of an idle connection.

Tables `benchmark_on` and `benchmark_off` are made, and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import connect

from dataflow import DataFlow
from nexus import LOCAL, Nexus

QUICK = "--quick" in sys.argv
COMMITS = 100 if QUICK else 400
ROUNDS = 5 if QUICK else 15
SINGLE, BULK = 60, 1000


def application(url: str) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url)

    @db.model
    class On:
        __tablename__ = "benchmark_on"
        name: str
        price: float = 0.0
        stock: int = 0
        active: bool = True
        note: str | None = None

    @db.model
    class Off:
        __tablename__ = "benchmark_off"
        __dataflow__ = {"changes": False}
        name: str
        price: float = 0.0
        stock: int = 0
        active: bool = True
        note: str | None = None

    return db, Nexus(db, channels=["rest", "websocket"])


async def follow(url: str) -> None:
    """The other process: a server, and its client, which prints for each frame when it came."""
    from nexus_channels.server import running_server

    _, app = application(url)
    async with (
        running_server(app) as base,
        connect(base.replace("http", "ws", 1) + "/ws", proxy=None) as line,
    ):
        await line.send(json.dumps({"type": "subscribe", "id": "s", "topic": "benchmark_on"}))
        await line.recv()
        print("ready", flush=True)
        async for text in line:
            now = time.monotonic_ns()
            frame = msgspec.json.decode(text)
            print(frame["record"]["name"], now, flush=True)


async def latency(url: str) -> list[float]:
    """Milliseconds from a commit here to its frame there."""
    _, app = application(url)
    other = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--follow", url, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    taken: list[float] = []
    async with app.running():
        try:
            assert (await other.stdout.readline()) == b"ready\n"
            await asyncio.sleep(2.5)  # so that this process knows that there is a reader
            for number in range(COMMITS):
                await app.runtime.invoke("benchmark_on.create", {"name": str(number)}, LOCAL, channel="test")
                committed = time.monotonic_ns()
                async with asyncio.timeout(10):
                    name, came = (await other.stdout.readline()).split()
                assert int(name) == number
                taken.append((int(came) - committed) / 1e6)
                await asyncio.sleep(0.02)
        finally:
            other.kill()
            await other.wait()
    return taken


async def throughput(url: str) -> dict[str, tuple[float, float, float]]:
    """For single and for bulk inserts: µs a record without and with changes logged, and the share."""
    db, app = application(url)
    async with app.running():
        single = {"name": "new", "price": 1.5, "stock": 2}
        rows = [{"name": f"new {n}", "price": n / 3, "stock": n} for n in range(BULK)]

        async def each(table: str) -> float:
            begun = time.perf_counter()
            for _ in range(SINGLE):
                await app.runtime.invoke(f"{table}.create", single, LOCAL, channel="test")
            return (time.perf_counter() - begun) / SINGLE * 1e6

        async def bulk(table: str) -> float:
            begun = time.perf_counter()
            await app.runtime.invoke(f"{table}.bulk_create", {"data": rows}, LOCAL, channel="test")
            return (time.perf_counter() - begun) / BULK * 1e6

        found = {"single": await _shares(each), "bulk": await _shares(bulk)}
        connection = await db.database.pools.writer.take()
        for table in ("benchmark_on", "benchmark_off"):
            await connection.run(f"DROP TABLE {table}")
        await connection.run("DELETE FROM dataflow_changes")
        db.database.pools.writer.give(connection)
    return found


async def _shares(work: Callable[[str], Awaitable[float]]) -> tuple[float, float, float]:
    off: list[float] = []
    on: list[float] = []
    for _ in range(ROUNDS + 1):
        off.append(await work("benchmark_off"))
        on.append(await work("benchmark_on"))
    off, on = off[1:], on[1:]  # the first makes tables and plans
    share = statistics.median(a / b for a, b in zip(off, on, strict=True))
    return statistics.median(off), statistics.median(on), share


async def serve_many(url: str) -> None:
    """A server that says, when asked by a line, what it has used: CPU seconds and memory in KiB."""
    from nexus_channels.server import running_server

    _, app = application(url)
    async with running_server(app) as base:
        print(base, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.startswith("write"):
                for _ in range(int(line.split()[1])):
                    await app.runtime.invoke("benchmark_on.create", {"name": "x"}, LOCAL, channel="test")
            print(time.process_time(), _memory(), flush=True)


def _memory() -> str:
    status = Path("/proc/self/status").read_text()
    return next(part for part in status.splitlines() if part.startswith("VmRSS")).split()[1]


async def fan_out(url: str, subscribers: int) -> tuple[float, float]:
    """µs of server CPU for each delivered change, and KiB of memory for each idle connection."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdin is not None

    async def ask(text: str) -> tuple[float, float]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(text.encode() + b"\n")
        cpu, memory = (await server.stdout.readline()).split()
        return float(cpu), float(memory)

    events = max(5, (2_000 if QUICK else 20_000) // subscribers)
    async with contextlib.AsyncExitStack() as stack:
        try:
            base = (await server.stdout.readline()).decode().strip()
            await ask("write 1")
            _, before = await ask("look")
            place = base.replace("http", "ws", 1) + "/ws"
            lines = []
            for _ in range(subscribers):
                line = await stack.enter_async_context(connect(place, proxy=None, compression=None))
                await line.send('{"type":"subscribe","id":"s","topic":"benchmark_on"}')
                await line.recv()
                lines.append(line)
            await asyncio.sleep(2.5)
            cpu, memory = await ask("look")

            async def take(line: Any) -> None:
                for _ in range(events):
                    await line.recv()

            taking = asyncio.gather(*map(take, lines))
            await ask(f"write {events}")
            await taking
            after, _ = await ask("look")
            return (after - cpu) / events / subscribers * 1e6, (memory - before) / subscribers
        finally:
            server.kill()
            await server.wait()


def _as_served(work: Coroutine[Any, Any, None]) -> None:
    """In an event loop as `nexus serve` has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def measure(name: str, url: str) -> None:
    taken = await latency(url)
    print(f"\n{name}")
    print(
        f"  commit to frame in another process  p50 {_percentile(taken, 0.5):6.2f} ms"
        f"  p99 {_percentile(taken, 0.99):6.2f} ms   (target 5, 25)",
        flush=True,
    )
    for kind, (off, on, share) in (await throughput(url)).items():
        costs = f"{off:8.1f} / {on:8.1f} µs   {share:5.2f}"
        print(f"  {kind:<7} inserts, without / with changes {costs}", flush=True)


async def main() -> None:
    urls = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    with tempfile.TemporaryDirectory() as folder:
        servers = (os.environ.get(f"NEXUS_TEST_{kind}_URL") for kind in ("POSTGRESQL", "MYSQL"))
        for url in urls or [f"sqlite:///{folder}/feed.db", *filter(None, servers)]:
            await measure(url.partition(":")[0], url)
        print("\nfan-out")
        for subscribers in (100, 1000):
            cost, memory = await fan_out(f"sqlite:///{folder}/many.db", subscribers)
            print(
                f"  {subscribers:>5} subscribers  {cost:6.1f} µs a delivered change (target 35)"
                f"  {memory:6.1f} KiB a connection (target 40)",
                flush=True,
            )


if __name__ == "__main__":
    if "--follow" in sys.argv:
        with contextlib.suppress(KeyboardInterrupt):
            _as_served(follow(sys.argv[-1]))
    elif "--serve" in sys.argv:
        _as_served(serve_many(sys.argv[-1]))
    else:
        asyncio.run(main())
