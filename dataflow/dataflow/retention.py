"""How long the change log keeps what it holds."""

from __future__ import annotations

import time
from typing import Any

from dataflow.dialects.log import Log

BATCH = 5_000
_PAUSE = 60.0  # seconds between two looks of one process
_SLACK = 1.1  # so far beyond its bounds the log may be before it is cut back to them


class Retention:
    """Cuts the log back to `rows` changes and `age` seconds; None bounds nothing.

    The floor is raised first, so that a reader below it is told before anything is gone. Afterwards the
    changes are deleted in batches, so that nobody waits long."""

    def __init__(self, log: Log, rows: int | None, age: float | None) -> None:
        self._log = log
        self._rows = rows
        self._age = age
        self._looked = float("-inf")

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        bounded = self._rows is not None or self._age is not None
        return bounded and time.monotonic() - self._looked >= _PAUSE

    async def look_after(self, connection: Any) -> None:
        """Cut the log back when it is time to look, and more than a little is too much."""
        if not self.due:
            return
        self._looked = time.monotonic()
        ((rows, age),) = await connection.fetch(self._log.extent_sql())
        too_many = self._rows is not None and rows > self._rows * _SLACK
        if too_many or (self._age is not None and float(age) > self._age * _SLACK):
            await self.cut(connection)

    async def cut(self, connection: Any) -> None:
        """Cut the log back now."""
        await self._log.seal(connection)
        rows = _EVERY if self._rows is None else self._rows
        age = float(_EVERY if self._age is None else self._age)
        await connection.fetch(self._log.floor_sql(), (rows, age))
        while (await connection.execute(self._log.clean_sql(), (BATCH,))).found == BATCH:
            pass


_EVERY = 3_000_000_000  # a bound that none reaches: changes, or seconds
