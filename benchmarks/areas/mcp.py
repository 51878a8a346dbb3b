"""MCP over HTTP: tools listed, and one called that reads a record by its id. On SQLite only, since what is
compared stands before the database."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.kit.databases import clear
from benchmarks.kit.load import Answer, Line, drive, request
from benchmarks.kit.peers import check_installed
from benchmarks.kit.processes import Child, serving
from benchmarks.kit.profile import profiled
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns, reason_of
from benchmarks.kit.settings import Settings
from benchmarks.ours import TABLES

CONNECTIONS = 8
TOOLS = 25
_TABLES = (*TABLES, "benchmark_floor")
_CLIENT = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}
_ACCEPT = b"accept: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Candidate:
    label: str
    module: str
    tool: str
    packages: tuple[str, ...] = ()


_CANDIDATES = (
    Candidate("bare SDK", "benchmarks.floor.mcp", "get_item"),
    Candidate("ours", "benchmarks.ours", "benchmark_items_get"),
    Candidate("FastMCP", "benchmarks.peers.fastmcp_items", "get_item", ("fastmcp",)),
)


class Dialogue:
    """A session with one server, as its requests."""

    def __init__(self, candidate: Candidate, port: int) -> None:
        self.candidate = candidate
        self.port = port
        self._session = b""
        self._numbers = itertools.count(1)
        line = Line(port)
        try:
            line.ask(self._message("initialize", _CLIENT))
            session = line.header(b"mcp-session-id")
            self._session = b"mcp-session-id: %s\r\nmcp-protocol-version: 2025-06-18\r\n" % session
            line.ask(self._message("notifications/initialized"))
            self._check(line)
        finally:
            line.close()

    def call(self) -> bytes:
        return self._message("tools/call", {"name": self.candidate.tool, "arguments": {"id": 1}})

    def list(self) -> bytes:
        return self._message("tools/list", {})

    def _message(self, method: str, params: object = None) -> bytes:
        message: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if not method.startswith("notifications/"):
            message["id"] = next(self._numbers)
        if params is not None:
            message["params"] = params
        whole = request("POST", "/mcp", msgspec.json.encode(message))
        wanted = b"accept: application/json, text/event-stream\r\n" + self._session
        return whole.replace(_ACCEPT, wanted, 1)

    def _check(self, line: Line) -> None:
        """Raises AssertionError where it answers wrongly."""
        called = _result(line.ask(self.call()))
        if called["structuredContent"]["name"] != "item 1":
            raise AssertionError(f"the tool answers wrongly: {called}")
        listed = _result(line.ask(self.list()))["tools"]
        if len(listed) != TOOLS:
            raise AssertionError(f"{len(listed)} tools are listed")


def _result(answer: Answer) -> Any:
    found = msgspec.json.decode(answer.body)
    if "result" not in found:
        raise AssertionError(f"answered with {answer.body[:300]!r}")
    return found["result"]


async def measure(settings: Settings) -> list[Row]:
    url = settings.databases.get("sqlite")
    if url is None:
        return []
    await clear(url, _TABLES)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    servers: dict[str, tuple[Dialogue, Child]] = {}
    with ExitStack() as stack:
        for candidate in _CANDIDATES:
            try:
                check_installed(*candidate.packages)
                child, port = stack.enter_context(serving(candidate.module, url))
                if candidate.label == "ours":
                    _make_record(port)
                servers[candidate.label] = Dialogue(candidate, port), child
            except Exception as failure:
                failed[candidate.label] = reason_of(failure)
        targets = (Target("bare SDK", 0.85), Target("FastMCP", 4))
        for name, promised in (("call", targets), ("list", ())):
            measures = {
                label: _measured(settings, name, dialogue, child)
                for label, (dialogue, child) in servers.items()
            }
            by_unit = {"requests/s": promised, "µs CPU": promised}
            rows += await in_turns(
                "sqlite",
                f"{name} a tool" if name == "call" else f"list {TOOLS} tools",
                measures,
                settings.rounds,
                by_unit,
                failed,
            )
    return rows


def _make_record(port: int) -> None:
    line = Line(port)
    answer = line.ask(request("POST", "/api/benchmark_items", b'{"name": "item 1", "price": 0.25}'))
    line.close()
    if answer.status != 201:
        raise AssertionError(f"no record could be made: {answer}")


def _measured(settings: Settings, name: str, dialogue: Dialogue, child: Child) -> Measure:
    following = dialogue.call if name == "call" else dialogue.list

    def driven(seconds: float) -> tuple[int, float]:
        with ExitStack() as stack:
            lines = [Line(dialogue.port) for _ in range(CONNECTIONS)]
            for line in lines:
                stack.callback(line.close)
            return drive(lines, following, seconds)

    def once() -> Figures:
        child.check()
        before = child.cpu()
        answered, seconds = driven(settings.seconds)
        used = (child.cpu() - before) / answered
        return {"requests/s": answered / seconds, "µs CPU": used * 1e6}

    if settings.profile and dialogue.candidate.label != "FastMCP":
        profiled(f"MCP {name}: {dialogue.candidate.label}", child.pid, driven)
    return once
