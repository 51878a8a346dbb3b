"""What the ground costs: help, start-up, memory and the way through the runtime.

    python benchmarks/ground.py

Each figure is the median of several runs on this machine, at this moment: compare them with each other and
with those of another commit measured beside it, not with those of another machine. Where the machine has
other work (its load is shown first), the lowest and the figures in CPU time say more than the medians.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from nexus import LOCAL, Call, Effect, Nexus, operation

ROOT = Path(__file__).parent.parent
NEXUS = Path(sys.executable).with_name("nexus")
SHOP = ROOT / "examples" / "shop" / "app.py"
RUNS = 7
MCP_HANDSHAKE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"benchmark","version":"1"}}}'
)


def help_cpu() -> float:
    """Milliseconds of CPU, user and system, of `nexus --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([NEXUS, "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def start_up(folder: str) -> dict[str, float]:
    """Seconds from the start of Python to the first answers, and the memory after them."""
    port = 18000 + os.getpid() % 1000
    base = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{folder}/shop.db"}
    begun = time.perf_counter()
    server = subprocess.Popen(
        [NEXUS, "--app", SHOP, "serve", "--port", str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        found: dict[str, float] = {}
        for name, path, body in (
            ("/livez", "/livez", None),
            ("/api/products", "/api/products", None),
            ("/mcp", "/mcp", MCP_HANDSHAKE),
        ):
            _wait_for(base + path, body)
            found[name] = time.perf_counter() - begun
            found[f"{name}, CPU"] = _cpu(server.pid)
        time.sleep(1)
        found["RSS"] = _memory(server.pid)
        ending = time.perf_counter()
        server.terminate()
        found["end"] = -1.0 if server.wait(20) else time.perf_counter() - ending
        return found
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, body: bytes | None) -> None:
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    deadline = time.perf_counter() + 30
    while time.perf_counter() < deadline:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
    raise SystemExit(f"{url} did not answer")


def _cpu(pid: int) -> float:
    """Seconds of CPU, user and system, that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
    return int(kilobytes) / 1024


def invoke() -> float:
    """Microseconds of CPU of Runtime.invoke of an operation that does nothing."""
    app = Nexus(channels=[])

    @operation(effect=Effect.READ)
    async def nothing(call: Call) -> None:
        return None

    app.operation(nothing)

    async def measure(times: int = 50_000) -> float:
        begun = time.process_time()
        for _ in range(times):
            await app.runtime.invoke("nothing", {}, LOCAL, channel="benchmark")
        return (time.process_time() - begun) / times * 1e6

    return asyncio.run(measure())


def main() -> None:
    def show(name: str, values: list[float], unit: str, target: str) -> None:
        middle = statistics.median(values)
        print(f"{name:<38} {middle:8.2f} {unit:<3} ({min(values):.2f} to {max(values):.2f}; target {target})")

    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    show("nexus --help, CPU", [help_cpu() for _ in range(RUNS)], "ms", "≤ 120")
    with tempfile.TemporaryDirectory() as folder:
        starts = [start_up(folder) for _ in range(RUNS)]
    show("serve: first 200 of /livez", [s["/livez"] for s in starts], "s", "≤ 1.5")
    show("serve: first 200 of /api/products", [s["/api/products"] for s in starts], "s", "≤ 1.5")
    show("serve: CPU up to /api/products", [s["/api/products, CPU"] for s in starts], "s", "none")
    show("serve: first 200 of /mcp", [s["/mcp"] for s in starts], "s", "≤ 4")
    show("serve: RSS with all channels", [s["RSS"] for s in starts], "MiB", "≤ 130")
    show("serve: SIGTERM to exit 0", [s["end"] for s in starts], "s", "≤ 5")
    show("Runtime.invoke, empty operation, CPU", [invoke() for _ in range(RUNS)], "µs", "≤ 8")


if __name__ == "__main__":
    main()
