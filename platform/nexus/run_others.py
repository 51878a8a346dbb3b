"""What processes tell each other about runs, through their rows: that they live, that one is to be cancelled,
that one was left behind."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable, Iterable
from typing import Any

from nexus import owner
from nexus.errors import NexusError
from nexus.ports import Condition, Records, Row
from nexus.run_record import RUNS, error_json, now

logger = logging.getLogger("nexus")

LEASE = 20.0
"""Seconds after which an owner that cannot be looked at, and has not renewed its lease, counts as dead."""
_RENEWED = 5.0
_LOOKED = 0.4
_OVERLAP = 10.0
"""Seconds by which the clocks of two hosts may differ."""
_MOST = 1000

_LEFT_BEHIND = NexusError(
    "The process that ran it ended without a word.",
    remedy="What it had not committed by then was rolled back by the database.",
)


class Pulse:
    """While runs go on in an event loop: keeps their leases, and looks for those that are to be cancelled."""

    def __init__(self, records: Records, me: str, going_on: Callable[[], bool]) -> None:
        self._records = records
        self._going_on = going_on
        self._mine: list[Condition] = [("owner", "=", me), ("state", "=", "running")]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def beats(self) -> bool:
        return any(not task.done() for task in self._tasks)

    def start(self, cancel: Callable[[str, str], object]) -> None:
        """`cancel(id, by)` is called for each that somebody wants cancelled."""
        self._tasks = [
            asyncio.create_task(self._look(cancel), name="nexus-run-flags"),
            asyncio.create_task(self._renew(), name="nexus-run-leases"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, cancel: Callable[[str, str], object]) -> None:
        wanted: list[Condition] = [*self._mine, ("cancelled_by", "!=", None)]
        while True:
            await asyncio.sleep(_LOOKED)
            if not self._going_on():
                return
            try:
                found = await self._records.find(RUNS, wanted, columns=("id", "cancelled_by"), limit=_MOST)
            except NexusError as failure:
                logger.warning("whether runs are to be cancelled is not known: %s", failure)
                continue
            except Exception:
                logger.exception("whether runs are to be cancelled is not known")
                continue
            for row in found:
                cancel(row["id"], row["cancelled_by"])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWED)
            if not self._going_on():
                return
            try:
                await self._records.change(RUNS, self._mine, {"lease": now(LEASE)})
            except NexusError as failure:
                logger.warning("the leases of runs are not renewed: %s", failure)
            except Exception:
                logger.exception("the leases of runs are not renewed")


class Others:
    """The runs of other processes."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[str, str] = {}  # of the last seconds: id and the moment of its last change
        self._since = now(-_OVERLAP)

    def is_abandoned(self, row: Row, mine: Iterable[str]) -> bool:
        """Whether a row says that it runs, and nobody runs it."""
        if row["state"] != "running":
            return False
        if row["owner"] == self._me:
            return row["id"] not in mine
        alive = owner.is_alive(row["owner"])
        return row["lease"] < now() if alive is None else not alive

    async def abandon(self, records: Records, row: dict[str, Any]) -> dict[str, Any]:
        """The row as abandoned, also in the store unless its owner gave a sign of life meanwhile."""
        same: list[Condition] = [(name, "=", row[name]) for name in ("id", "state", "owner", "lease")]
        changes = {"state": "abandoned", "changed": now(), "error": error_json(_LEFT_BEHIND)}
        try:
            await records.change(RUNS, same, changes)
        except NexusError as failure:
            logger.warning("that the run %s is abandoned is not recorded: %s", row["id"], failure)
        return {**row, **changes}

    async def news(self, records: Records) -> list[dict[str, Any]]:
        """The rows that other processes have changed since the last time, oldest first."""
        since = _earlier(self._since)
        where: list[Condition] = [("changed", ">", since), ("owner", "!=", self._me)]
        rows = await records.find(RUNS, where, limit=_MOST)
        fresh = [row for row in rows if self._seen.get(row["id"]) != row["changed"]]
        self._seen = {row["id"]: row["changed"] for row in rows}
        self._since = max([self._since, *(row["changed"] for row in rows)])
        return sorted(fresh, key=lambda row: str(row["changed"]))

    async def running(self, records: Records) -> list[dict[str, Any]]:
        return await records.find(RUNS, [("state", "=", "running")], limit=_MOST)


def _earlier(moment: str) -> str:
    before = datetime.datetime.fromisoformat(moment) - datetime.timedelta(seconds=_OVERLAP)
    return before.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
