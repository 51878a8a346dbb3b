"""HTTP: a server on one core, asked over kept connections from the other."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from benchmarks.areas import http_candidates
from benchmarks.areas.http_candidates import CANDIDATES, Candidate
from benchmarks.kit.databases import on_each
from benchmarks.kit.load import Line, drive
from benchmarks.kit.peers import INCUMBENT
from benchmarks.kit.processes import Child, serving
from benchmarks.kit.profile import profiled
from benchmarks.kit.rounds import Figures, Measure, Row, Target, in_turns, reason_of
from benchmarks.kit.settings import Settings

RECORDS = 500
CONNECTIONS = 16
_BODIES = 200
_THROUGHPUT, _CPU = "requests/s", "µs CPU"

Requests = Callable[[Candidate], Callable[[], bytes]]


def _by_id(candidate: Candidate) -> Callable[[], bytes]:
    keys = random.Random(7).sample(range(1, RECORDS + 1), RECORDS)
    return itertools.cycle([candidate.get(key) for key in keys]).__next__


def _list(limit: int, candidate: Candidate) -> Callable[[], bytes]:
    return itertools.repeat(candidate.list(limit)).__next__


def _insert(candidate: Candidate) -> Callable[[], bytes]:
    bodies = [candidate.create(f"new {number}", number / 4) for number in range(_BODIES)]
    return itertools.cycle(bodies).__next__


def _update(candidate: Candidate) -> Callable[[], bytes]:
    keys = random.Random(8).sample(range(1, RECORDS + 1), RECORDS)
    # Two rounds of different values: a database may see that an update changes nothing, and write nothing.
    return itertools.cycle([candidate.update(key, stock) for stock in (1, 2) for key in keys]).__next__


def _mixed(candidate: Candidate) -> Callable[[], bytes]:
    reads, writes = _by_id(candidate), _update(candidate)
    mixed = itertools.cycle([reads] * 9 + [writes])
    return lambda: next(mixed)()


def _ours(at_least: float, *peers: float) -> tuple[Target, ...]:
    frameworks = [name for name in CANDIDATES if "+" in name]
    wanted = [Target("floor", at_least), Target(INCUMBENT, 20)]
    return (*wanted, *[Target(name, peer) for peer in peers for name in frameworks])


# The name of a row, its requests, the connections, what was promised, whether ours logs changes.
_ROWS: list[tuple[str, Requests, int, tuple[Target, ...], bool]] = [
    ("read by id", _by_id, CONNECTIONS, _ours(0.80, 5), True),
    ("list 20", functools.partial(_list, 20), CONNECTIONS, _ours(0.75), True),
    ("list 100", functools.partial(_list, 100), CONNECTIONS, _ours(0.75), True),
    ("insert, changes not logged", _insert, CONNECTIONS, _ours(0.80, 5), False),
    ("insert, changes logged", _insert, CONNECTIONS, _ours(0.70, 5), True),
    ("update", _update, CONNECTIONS, (), True),
    *[(f"90 reads, 10 updates; {n} connections", _mixed, n, (), True) for n in (1, 16, 64)],
]


async def measure(settings: Settings) -> list[Row]:
    return await on_each(settings, http_candidates.TABLES, _requests)


async def _requests(settings: Settings, kind: str, url: str) -> list[Row]:
    rows: list[Row] = []
    with _servers(settings, url) as (servers, failed):
        for row in _ROWS:
            rows += await _compared(settings, kind, servers, failed, row)
    return rows


@contextmanager
def _servers(
    settings: Settings, url: str
) -> Iterator[tuple[dict[str, tuple[Candidate, Child, int]], dict[str, str]]]:
    """Every candidate that starts and answers rightly, with records; and why the others do not."""
    servers: dict[str, tuple[Candidate, Child, int]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        for name, candidate in CANDIDATES.items():
            try:
                command = candidate.command()
                server = serving(candidate.module, url, python=command, settle=not settings.quick)
                child, port = stack.enter_context(server)
                candidate.prepare(port, RECORDS)
                servers[name] = candidate, child, port
            except Exception as failure:
                failed[name] = reason_of(failure)
        yield servers, failed


async def _compared(
    settings: Settings,
    kind: str,
    servers: Mapping[str, tuple[Candidate, Child, int]],
    failed: Mapping[str, str],
    row: tuple[str, Requests, int, tuple[Target, ...], bool],
) -> list[Row]:
    name, requests, connections, targets, logged = row

    def measured(candidate: Candidate, child: Child, port: int) -> Measure:
        following = requests(candidate if logged else candidate.without_log())

        def driven(seconds: float) -> tuple[int, float]:
            # New connections for each round: a server closes those on which it is asked nothing for long.
            with ExitStack() as stack:
                lines = [Line(port) for _ in range(connections)]
                for line in lines:
                    stack.callback(line.close)
                return drive(lines, following, seconds)

        def once() -> Figures:
            child.check()
            before = child.cpu()
            answered, seconds = driven(settings.seconds)
            used = (child.cpu() - before) / answered
            return {_THROUGHPUT: answered / seconds, _CPU: used * 1e6}

        if settings.profile and candidate.label in ("floor", "ours"):
            profiled(f"{kind}: {name}: {candidate.label}", child.pid, driven)
        return once

    measures: dict[str, Measure] = {}
    failed = dict(failed)
    for label, server in servers.items():
        try:
            measures[label] = measured(*server)
        except Exception as failure:
            failed[label] = reason_of(failure)
    promised = {_THROUGHPUT: targets, _CPU: targets}
    return await in_turns(kind, name, measures, min(settings.rounds, 5), promised, failed)
