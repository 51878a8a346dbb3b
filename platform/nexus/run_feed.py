"""The topic `runs` of the feed.

Runs of this process are told of as they happen, each node included. Those of other processes are read from
their rows, once in a while: that they began, and how they ended. This log is in memory: a cursor is good for
as long as the process lives, and in it only.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from nexus.errors import CursorExpired, TooLarge
from nexus.filters import All, Fields, Filter, matches, parse
from nexus.ports import LoggedChange, LogHead, Record, Row, Snapshot
from nexus.run_record import SUMMARY_COLUMNS, RunSummary, clipped, run_from
from nexus.session import ALL, Session

TOPIC = "runs"
_KEPT = 1000
_INTERVAL = 0.5
_FIELDS = (
    *RunSummary.__struct_fields__,
    "nodes",
)
_TOLD = (*SUMMARY_COLUMNS, "nodes")
_GRAMMAR = Fields(
    TOPIC,
    frozenset(_FIELDS),
    lambda name, value: value,
    texts=frozenset({"id", "workflow", "user", "channel", "state", "started", "finished"}),
    json=frozenset({"error", "nodes"}),
)

Look: TypeAlias = Callable[[], Awaitable[None]]
Recent: TypeAlias = Callable[[int], Awaitable[Sequence[dict[str, Any]]]]


class RunSource:
    """A ChangeSource of the kernel. `look` is called twice a second while somebody follows, to find out what
    other processes did; `recent` gives the newest rows."""

    def __init__(self, look: Look, recent: Recent) -> None:
        self.open = False
        self._look = look
        self._recent = recent
        self._epoch = os.urandom(16)
        self._log: deque[_Told] = deque(maxlen=_KEPT)
        self._numbers = itertools.count(1)
        self._pos = 0
        self._lock = threading.Lock()

    def tell(self, row: Row, old: Row | None) -> Row:
        """Append what became of a run, which was told of as `old` before; gives what was told. It is made a
        record of when somebody reads it."""
        told = {name: row[name] for name in _TOLD}
        with self._lock:
            self._pos = next(self._numbers)
            self._log.append(_Told(self._pos, told, old))
        return told

    def has(self, topic: str) -> bool:
        return self.open and topic == TOPIC

    def topics(self) -> list[str]:
        return [TOPIC] if self.open else []

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        narrowed = [parse(where, _GRAMMAR)]
        if session.tenant is not None:
            narrowed.append(_equal("tenant", clipped(session.tenant)))
        if ALL not in session.scopes:
            narrowed.append(_equal("user", clipped(session.user)))
        return narrowed[0] if len(narrowed) == 1 else All(tuple(narrowed))

    def fields(self, topic: str) -> tuple[str, ...]:
        return _FIELDS

    def last(self, key: str) -> Row | None:
        """What was told last of a run, if it is still kept."""
        with self._lock:
            return next((told.row for told in reversed(self._log) if told.row["id"] == key), None)

    async def head(self, topic: str) -> LogHead:
        await self._look()
        return self._head()

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        """Raises CursorExpired when changes after `after` are no longer kept."""
        with self._lock:
            if after < self._head().floor:
                raise CursorExpired("The changes that come next are no longer kept.")
            told = [each for each in self._log if each.pos > after][:limit]
        return [each.change() for each in told]

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        """What the rows say, corrected by what was told since they began to be read."""
        await self._look()
        before = self._pos
        found = {row["id"]: _record(row) for row in reversed(await self._recent(limit + 1))}
        with self._lock:
            for told in self._log:
                if told.pos > before:
                    found[told.row["id"]] = _record(told.row)
            head = self._head()
        records = [record for record in found.values() if matches(where, record)]
        if len(records) > limit:
            raise TooLarge(f"There are more than {limit} runs.", remedy="Narrow the filter.")
        return Snapshot(head, records)

    def written(self, *, read_here: bool) -> None:
        """What is told has its position at once."""

    async def changed(self) -> None:
        await asyncio.sleep(_INTERVAL)
        await self._look()

    def _head(self) -> LogHead:
        floor = self._log[0].pos - 1 if self._log else 0
        return LogHead(self._epoch, self._pos, floor)


class _Told:
    """What became of a run, and what it was before."""

    __slots__ = ("_change", "old", "pos", "row")

    def __init__(self, pos: int, row: Row, old: Row | None) -> None:
        self.pos = pos
        self.row = row
        self.old = old
        self._change: LoggedChange | None = None

    def change(self) -> LoggedChange:
        if self._change is None:
            row = self.row
            self._change = LoggedChange(
                pos=self.pos,
                topic=TOPIC,
                key=row["id"],
                record=_record(row),
                old=None if self.old is None else _record(self.old),
                actor=row["actor"],
                session=row["session"],
                run=row["id"],
                tenant=row["tenant"],
                at=row["changed"],
            )
        return self._change


def _equal(field: str, value: str) -> Filter:
    return parse({field: value}, _GRAMMAR)


def _record(row: Row) -> Record:
    told = msgspec.structs.asdict(run_from({**row, "inputs": None, "output": None}))
    return {name: told[name] for name in _FIELDS}
