"""Short reads, in the thread of the event loop.

Handing a statement to another thread, and its rows back, takes several times as long as to read a record by
its key. So what reads is begun where it was asked for. What is not done after a millisecond, or would have
to wait for a lock, is given up and read on the connection's own thread; nothing is lost, since it only reads.
What was long is read there for a while.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_LONGEST = 0.001
_LOOKED_AT_EACH = 1000
"""Steps of SQLite's machine, of which a millisecond has tens of thousands."""
_KEPT = 1000
_TRIED_AGAIN = 100
"""How often a statement that was long is read on the thread before it is tried again."""
_QUICK = 0
_SUSPECT = -1
_GIVEN_UP = frozenset({"SQLITE_INTERRUPT", "SQLITE_BUSY", "SQLITE_LOCKED"})


class LongReads:
    """The statements of one database that took long, more than once: another may have had the processor."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}  # how many times each is still read on the thread

    def is_long(self, sql: str) -> bool:
        left = self._left.get(sql)
        if left is None:
            # All rows of a table are counted in one step, which nothing can end.
            left = self._keep(sql, math.inf if "count(" in sql.lower() else _QUICK)
        if left <= _QUICK:
            return False
        self._left[sql] = left - 1
        return True

    def was_long(self, sql: str) -> None:
        self._keep(sql, _TRIED_AGAIN if self._left.get(sql) == _SUSPECT else _SUSPECT)

    def was_quick(self, sql: str) -> None:
        if self._left.get(sql) == _SUSPECT:
            self._keep(sql, _QUICK)

    def _keep(self, sql: str, times: float) -> float:
        if len(self._left) >= _KEPT and sql not in self._left:
            self._left.pop(next(iter(self._left)))
        self._left[sql] = times
        return times


class ShortReads:
    """What one connection that only reads is asked in the thread of the event loop."""

    __slots__ = ("_busy_ms", "_connection", "_long", "_until")

    def __init__(self, connection: sqlite3.Connection, long: LongReads, busy_ms: int) -> None:
        self._connection = connection
        self._long = long
        self._busy_ms = busy_ms
        self._until = math.inf
        self._hurry()

    def fetch(self, sql: str, parameters: Sequence[Any]) -> list[Any] | None:
        """The rows; None where they are to be read on the connection's thread."""
        if self._long.is_long(sql):
            return None
        self._until = until = time.perf_counter() + _LONGEST
        try:
            rows = self._connection.execute(sql, parameters).fetchall()
        except sqlite3.OperationalError as failure:
            if failure.sqlite_errorname not in _GIVEN_UP:
                raise
            if failure.sqlite_errorname == "SQLITE_INTERRUPT":
                self._long.was_long(sql)
            return None
        finally:
            self._until = math.inf
        if time.perf_counter() > until:
            self._long.was_long(sql)
        else:
            self._long.was_quick(sql)
        return rows

    @contextmanager
    def patient(self) -> Iterator[None]:
        """On the connection's thread there is as much time as it takes."""
        self._connection.set_progress_handler(None, 0)
        self._connection.execute(f"PRAGMA busy_timeout = {self._busy_ms}").close()
        try:
            yield
        finally:
            self._hurry()

    def _hurry(self) -> None:
        self._connection.execute("PRAGMA busy_timeout = 0").close()
        self._connection.set_progress_handler(self._is_over, _LOOKED_AT_EACH)

    def _is_over(self) -> bool:
        return time.perf_counter() > self._until
