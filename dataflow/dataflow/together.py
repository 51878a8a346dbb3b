"""Records that are asked for by their ids while others are being read, read by one statement.

On a server a statement of its own for each record costs more than everything else of a request. So who asks
for one while another is being read waits until all have asked that do so in this turn of the event loop, and
the first of them reads for all. Who asks alone waits for nobody. Each record is read after it was asked for:
nobody sees less than by a statement of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeAlias

import msgspec

from nexus.call import Call

MOST = 32
"""Records that one statement reads."""

Read: TypeAlias = Callable[[Sequence[Any]], Awaitable[list[msgspec.Struct]]]
_Waiting: TypeAlias = "list[tuple[Any, asyncio.Future[msgspec.Struct | None]]]"


class _Kind:
    """How many statements for records of one kind are on their way, and who waits for one that is to come."""

    __slots__ = ("reading", "waiting")

    def __init__(self) -> None:
        self.reading = 0
        self.waiting: _Waiting | None = None


class Together:
    """Of one Store."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    async def get(self, call: Call, kind: Hashable, key: Any, read: Read) -> msgspec.Struct | None:
        """The record with the id `key`. Those of one `kind` are in one table, and the same of them are
        visible to all who ask. `read` gives the records with some ids."""
        place = (call.loop, kind)
        found = self._kinds.get(place)
        if found is None:
            found = self._kinds[place] = _Kind()
        elif found.waiting is not None and len(found.waiting) < MOST - 1:
            mine: asyncio.Future[msgspec.Struct | None] = call.loop.create_future()
            found.waiting.append((key, mine))
            record = await mine
            if record is not None:
                return record
            # There is none, or who read for all has failed, or was cancelled: that is to be found out alone.
            found = self._kinds.setdefault(place, found)
        leads = found.reading > 0 and found.waiting is None
        found.reading += 1
        try:
            if leads:
                return await _for_all(found, key, read)
            records = await read((key,))
            return records[0] if records else None
        finally:
            found.reading -= 1
            if not found.reading and found.waiting is None:
                self._kinds.pop(place, None)


async def _for_all(kind: _Kind, key: Any, read: Read) -> msgspec.Struct | None:
    others: _Waiting = []
    kind.waiting = others
    records: dict[Any, msgspec.Struct] = {}
    try:
        try:
            await asyncio.sleep(0)
        finally:
            kind.waiting = None
        keys = [key, *(other for other, future in others if not future.done())]
        records = {record.id: record for record in await read(keys)}  # type: ignore[attr-defined]
        if len(keys) == 1:
            return next(iter(records.values()), None)
        record = records.pop(key, None)
    finally:
        for other, future in others:
            if not future.done():
                future.set_result(records.pop(other, None))
    if record is None:  # a database may take for the same id what Python does not
        record = next(iter(await read((key,))), None)
    return record
