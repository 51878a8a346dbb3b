"""MCP over HTTP: tools listed, and one called that reads a record by its id."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from benchmarks.kit.databases import on_each
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
_MODERN = "2026-07-28"
_BESIDE = {
    "io.modelcontextprotocol/protocolVersion": _MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": _CLIENT["clientInfo"],
}
_ACCEPT = b"accept: application/json\r\n"
_CALLED = (Target("bare SDK", 0.85), Target("FastMCP", 4))
# The name of a row, what was promised, whether it belongs to a session of the protocol.
_ROWS: list[tuple[str, tuple[Target, ...], bool]] = [
    ("call a tool", _CALLED, True),
    (f"call a tool, {_MODERN}", _CALLED, False),
    (f"list {TOOLS} tools", (), True),
]


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
    """A client of one server, as its requests: of a session, as most clients speak by now, or of the revision
    without sessions."""

    def __init__(self, candidate: Candidate, port: int, *, sessions: bool = True) -> None:
        self.candidate = candidate
        self.port = port
        self._headers = b""
        self._sessions = sessions
        self._numbers = itertools.count(1)
        line = Line(port)
        try:
            if sessions:
                line.ask(self._message("initialize", _CLIENT))
                session = line.header(b"mcp-session-id")
                self._headers = b"mcp-session-id: %s\r\nmcp-protocol-version: 2025-06-18\r\n" % session
                line.ask(self._message("notifications/initialized"))
            self._check(line)
        finally:
            line.close()

    def call(self) -> bytes:
        return self._message("tools/call", {"name": self.candidate.tool, "arguments": {"id": 1}})

    def list(self) -> bytes:
        return self._message("tools/list", {})

    def _message(self, method: str, params: dict[str, Any] | None = None) -> bytes:
        message: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if not method.startswith("notifications/"):
            message["id"] = next(self._numbers)
        headers = self._headers
        if params is not None and not self._sessions:
            params = {**params, "_meta": _BESIDE}
            about = (_MODERN, method, params.get("name", ""))
            headers = "mcp-protocol-version: {}\r\nmcp-method: {}\r\nmcp-name: {}\r\n".format(*about).encode()
        if params is not None:
            message["params"] = params
        whole = request("POST", "/mcp", msgspec.json.encode(message))
        wanted = b"accept: application/json, text/event-stream\r\n" + headers
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
    return await on_each(settings, _TABLES, _requests)


async def _requests(settings: Settings, kind: str, url: str) -> list[Row]:
    """Of what does not depend on the database, only on the first."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    servers: dict[str, tuple[Candidate, Child, int]] = {}
    with ExitStack() as stack:
        for candidate in _CANDIDATES:
            try:
                check_installed(*candidate.packages)
                server = serving(candidate.module, url, settle=not settings.quick)
                child, port = stack.enter_context(server)
                if candidate.label == "ours":
                    _make_record(port)
                servers[candidate.label] = candidate, child, port
            except Exception as failure:
                failed[candidate.label] = reason_of(failure)
        for name, promised, sessions in _ROWS if kind == next(iter(settings.databases)) else _ROWS[:1]:
            measures, reasons = {}, dict(failed)
            for label, server in servers.items():
                try:
                    measures[label] = _measured(settings, f"{kind}: {name}", *server, sessions=sessions)
                except Exception as failure:
                    reasons[label] = reason_of(failure)
            targets = {"requests/s": promised, "µs CPU": promised}
            rows += await in_turns(kind, name, measures, settings.rounds, targets, reasons)
    return rows


def _make_record(port: int) -> None:
    line = Line(port)
    answer = line.ask(request("POST", "/api/benchmark_items", b'{"name": "item 1", "price": 0.25}'))
    line.close()
    if answer.status != 201:
        raise AssertionError(f"no record could be made: {answer}")


def _measured(
    settings: Settings, name: str, candidate: Candidate, child: Child, port: int, *, sessions: bool
) -> Measure:
    dialogue = Dialogue(candidate, port, sessions=sessions)
    following = dialogue.list if "list" in name else dialogue.call

    def driven(seconds: float) -> tuple[int, float]:
        with ExitStack() as stack:
            lines = [Line(port) for _ in range(CONNECTIONS)]
            for line in lines:
                stack.callback(line.close)
            return drive(lines, following, seconds)

    def once() -> Figures:
        child.check()
        before = child.cpu()
        answered, seconds = driven(settings.seconds)
        used = (child.cpu() - before) / answered
        return {"requests/s": answered / seconds, "µs CPU": used * 1e6}

    if settings.profile and candidate.label != "FastMCP":
        profiled(f"{name}: {candidate.label}", child.pid, driven)
    return once
