"""Starting: the CLI's help, imports, a server's first answers, and the memory after them."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.kit.peers import INCUMBENT, check_installed, python_of
from benchmarks.kit.processes import ROOT, free_port, running
from benchmarks.kit.profile import profiled_imports
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns, reason_of
from benchmarks.kit.settings import Settings

_NEXUS = Path(sys.executable).with_name("nexus")
_SHOP = ROOT / "examples" / "shop" / "app.py"
_HANDSHAKE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"benchmark","version":"1"}}}'
)
_MEMORY = "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
# What a program imports to begin with, ours and others'.
_IMPORTS = {
    "by hand": ("asyncio, asyncpg, msgspec, uvicorn", ()),
    "ours": ("nexus, dataflow, nexus_workflows", ()),
    "FastAPI + SQLModel": ("fastapi, sqlmodel", ("fastapi", "sqlmodel")),
    "Litestar + advanced-alchemy": (
        "litestar, advanced_alchemy.extensions.litestar",
        ("litestar", "advanced_alchemy"),
    ),
    INCUMBENT: ("nexus, dataflow, kailash.workflow.builder", ()),
}


async def measure(settings: Settings) -> list[Row]:
    rounds = min(settings.rounds, 3)
    if settings.profile:
        profiled_imports("nexus --help", [_NEXUS, "--help"])
        for label in ("by hand", "ours"):
            profiled_imports(f"imports: {label}", ["-c", f"import {_IMPORTS[label][0]}"])
    helped = {"python": _program([sys.executable, "-c", "pass"]), "ours": _program([_NEXUS, "--help"])}
    rows = await in_turns("-", "nexus --help", helped, rounds, {"ms CPU": (Target(at_most=120),)})
    measures: dict[str, Measure] = {}
    failed: dict[str, str] = {}
    for label, (modules, packages) in _IMPORTS.items():
        try:
            check_installed(*packages)
            measures[label] = _imported(python_of(label), modules)
        except Exception as failure:
            failed[label] = reason_of(failure)
    rows += await in_turns("-", "imports", measures, rounds, failed=failed)
    targets = {
        "s to /livez": (Target(at_most=1.5),),
        "s to /api": (Target(at_most=1.5),),
        "s to /mcp": (Target(at_most=4),),
        "MiB": (Target(at_most=130),),
        "s to end": (Target(at_most=5),),
    }
    served = {"ours": _served(settings.folder)}
    return rows + await in_turns("sqlite", "nexus serve, the shop", served, min(rounds, 3), targets)


def _program(command: list[str | Path]) -> Measure:
    def once() -> Figures:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return {"ms CPU": used * 1e3, "ms": (ended - begun) * 1e3}

    return once


def _imported(python: str | Path, modules: str) -> Measure:
    def once() -> Figures:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [python, "-c", f"import {modules}; {_MEMORY}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return {"ms CPU": used * 1e3, "MiB": int(done.stdout.split()[-1]) / 1024}

    return once


def _served(folder: Path) -> Measure:
    def once() -> Figures:
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        begun = time.perf_counter()
        command = [_NEXUS, "--app", _SHOP, "serve", "--port", str(port)]
        found: dict[str, float] = {}
        with running(command, {"DATABASE_URL": f"sqlite:///{folder}/shop.db"}) as child:
            for path, body in (("/livez", None), ("/api", None), ("/mcp", _HANDSHAKE)):
                _wait_for(base + path if path != "/api" else f"{base}/api/products", body)
                found[f"s to {path}"] = time.perf_counter() - begun
            time.sleep(0.5)
            found["MiB"] = child.memory()
            ending = time.perf_counter()
            child.process.terminate()
            if child.process.wait(20) != 0:
                raise AssertionError(f"it ended with {child.process.returncode}")
            found["s to end"] = time.perf_counter() - ending
        return found

    return once


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
    raise TimeoutError(f"{url} did not answer")
