"""Records that are asked for by their ids while others are being read, read by one statement.

On a server a statement of its own for each record costs more than everything else of a request. So there are
two at a time for records of one kind. Who asks for another meanwhile waits with all others that do so until
one has its answer, or for two milliseconds, and the first of them reads for all; where less is asked for,
nobody waits. Each record is read after it was asked for: nobody sees less than by a statement of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any, TypeAlias

from nexus.call import Call

MOST = 32
"""Records that one statement reads."""
_AT_A_TIME = 2
_LONGEST = 0.002
"""Seconds that a statement is waited for: that one may be stuck."""

Rows: TypeAlias = list[Any]
Read: TypeAlias = Callable[[Sequence[Any]], Awaitable[Rows]]
Make: TypeAlias = Callable[[Iterable[Any]], list[Any]]
Place: TypeAlias = tuple[asyncio.AbstractEventLoop, Hashable]
_Waiting: TypeAlias = "list[tuple[Any, asyncio.Future[Any]]]"


class _Kind:
    """How many statements for records of one kind are on their way; who waits for the next, and for what."""

    __slots__ = ("reading", "turn", "waiting")

    def __init__(self) -> None:
        self.reading = 0
        self.turn: asyncio.Future[None] | None = None
        self.waiting: _Waiting = []


class _Answers:
    """What was read for several. A record that more than one asked for is made for each of them."""

    def __init__(self, rows: Rows, make: Make) -> None:
        records = make(rows)
        self._make = make
        self._records = {record.id: record for record in records}
        self._rows = {record.id: row for record, row in zip(records, rows, strict=True)}

    def to(self, key: Any) -> Any:
        record = self._records.pop(key, None)
        if record is None and (row := self._rows.get(key)) is not None:
            record = self._make((row,))[0]
        return record


class Together:
    """Of one Store."""

    def __init__(self) -> None:
        self._kinds: dict[Place, _Kind] = {}

    async def get(self, call: Call, kind: Hashable, key: Any, read: Read, make: Make) -> Any:
        """The record with the id `key`, or None. Those of one `kind` are in one table, and the same of them
        are visible to all who ask. `read` gives the rows with some ids, `make` records of rows."""
        place = (call.loop, kind)
        known = self._kinds.get(place)
        if known is None:
            known = self._kinds[place] = _Kind()
        elif known.turn is not None and len(known.waiting) < MOST - 1:
            mine: asyncio.Future[Any] = call.loop.create_future()
            known.waiting.append((key, mine))
            record = await mine
            if record is not None:
                return record
            # There is none, or who read for all has failed, or was cancelled: that is to be found out alone.
            known = self._kinds.setdefault(place, known)
        elif known.turn is None and known.reading >= _AT_A_TIME:
            return await self._for_all(place, known, key, read, make)
        known.reading += 1
        try:
            rows = await read((key,))
        finally:
            self._end(place, known)
        return make(rows)[0] if rows else None

    async def _for_all(self, place: Place, kind: _Kind, key: Any, read: Read, make: Make) -> Any:
        others: _Waiting = []
        answers = _Answers([], make)
        kind.waiting, kind.turn = others, place[0].create_future()
        late = place[0].call_later(_LONGEST, _go_on, kind.turn)
        try:
            try:
                await kind.turn
            finally:
                late.cancel()
                kind.turn = None
                kind.reading += 1
            keys = [key, *(other for other, future in others if not future.done())]
            answers = _Answers(await read(keys), make)
        finally:
            self._end(place, kind)
            for other, future in others:
                if not future.done():
                    future.set_result(answers.to(other))
        record = answers.to(key)
        if record is None:  # a database may take for the same id what Python does not
            rows = await read((key,))
            record = make(rows)[0] if rows else None
        return record

    def _end(self, place: Place, kind: _Kind) -> None:
        kind.reading -= 1
        if kind.turn is not None:
            _go_on(kind.turn)
        elif not kind.reading:
            self._kinds.pop(place, None)


def _go_on(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
