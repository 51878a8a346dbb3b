"""Recorded runs: each run of a workflow through the platform, from its start to what became of it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nexus.block import finish
from nexus.demands import Noted
from nexus.errors import Conflict, KeyReused, NexusError, NotFound, RunCancelled, Unavailable
from nexus.feed import Feed
from nexus.ports import Condition, Records, Row
from nexus.runs.feed import RunSource
from nexus.runs.memory import MemoryRecords
from nexus.runs.others import LEASE, Others, Pulse
from nexus.runs.owner import new_owner
from nexus.runs.record import (
    RUNS,
    SUMMARY_COLUMNS,
    Run,
    RunList,
    Started,
    State,
    clipped,
    input_digest,
    may_see,
    now,
    run_from,
    summary_from,
)
from nexus.runs.repeat import repeat_of, repeated
from nexus.runs.running import Running, Work
from nexus.runs.writer import PATIENCE, RunWriter
from nexus.session import ALL, Session

if TYPE_CHECKING:
    from nexus.runtime import Runtime

logger = logging.getLogger("nexus")

_CLAIMS = 3  # the run that has a key may be deleted just then
_PRUNED_EACH = 64  # of so many runs one looks after old ones: a process may run but a single one
_PRUNED_AGAIN = 60.0
_TOLD_EACH = 0.1
_FEW_NODES = 50
_UNTIL_CANCELLED = 5.0
_LAST_WORDS = 2.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """How many ended runs are kept, and for how many days; how many go on in the background at once."""

    most: int = 10_000
    days: int = 30
    background: int = 100


class Runs:
    """The runs of one application. `records` is where their rows are."""

    def __init__(self, feed: Feed, keeping: Keeping) -> None:
        self.records: Records = MemoryRecords()
        self.source = RunSource(self._look, self._recent)
        self.background: set[asyncio.Task[Any]] = set()
        self._feed = feed
        self._keeping = keeping
        self._writer = RunWriter()
        self._closing = False
        self._complained = False
        self._prune_next = 0.0
        self._begin_process()
        _ALL.add(self)

    def _begin_process(self) -> None:
        """Nothing goes on in this process yet; after a fork, what the parent runs is another's."""
        self.owner = new_owner()
        self.background.clear()
        self._active: dict[str, Running] = {}
        self._others = Others(self.owner)
        self._pulses: dict[asyncio.AbstractEventLoop, Pulse] = {}

    async def run(self, runtime: Runtime, work: Work, noted: Noted) -> Any:
        """Run and record: the result; in the background, Started. With a key that was used before for the
        same input, what became of that run."""
        key, background = (
            (None, False) if work.demands is None else (work.demands.key, work.demands.background)
        )
        if background and (self._closing or len(self.background) >= self._keeping.background):
            raise Unavailable(
                "The server is closing."
                if self._closing
                else f"{self._keeping.background} runs go on in the background already.",
                remedy="Try again later.",
            )
        run = Running(work, self.owner)
        earlier = await self._begin(run, key, needed=background)
        if earlier is not None:
            noted.replayed = True
            return repeated(earlier, work.operation)
        if not background:
            return await self._perform(runtime, run)
        run.unattended = True
        task = asyncio.create_task(self._unattended(runtime, run), name=f"nexus-run-{run.id}")
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return Started(run.id, "running")

    async def get(self, identity: str, session: Session) -> Run:
        """Raises NotFound, also for a run that the session may not see."""
        return run_from(await self._row(identity, session))

    async def list(
        self, session: Session, *, workflow: str | None, state: State | None, limit: int, after: str | None
    ) -> RunList:
        """Summaries, newest first, from after the run `after`."""
        where: list[Condition] = []
        if session.tenant is not None:
            where.append(("tenant", "=", clipped(session.tenant)))
        if ALL not in session.scopes:
            where.append(("actor", "=", clipped(session.user)))
        if workflow is not None:
            where.append(("workflow", "=", workflow))
        if after is not None:
            where.append(("id", "<", after))
        if state in ("running", "abandoned"):
            await self._sweep()
        if state is not None:
            where.append(("state", "=", state))
        found = await self.records.find(RUNS, where, columns=SUMMARY_COLUMNS, limit=limit + 1)
        rows = [await self._now(row) for row in found[:limit]]
        if state is not None:
            rows = [row for row in rows if row["state"] == state]
        next_ = found[limit - 1]["id"] if len(found) > limit else None
        return RunList([summary_from(row) for row in rows], len(rows), limit, next_)

    async def cancel(self, identity: str, session: Session) -> Run:
        """Stop the work and roll back, and wait for that; in another process its owner is told, and does it
        soon. Raises Conflict for a run that has ended otherwise."""
        row = await self._row(identity, session)
        run = self._active.get(identity)
        if run is not None:
            run.cancel(session.user)
            if run.task is asyncio.current_task():
                return run_from(row)  # it cannot wait for its own end
        elif row["state"] == "running":
            flag: list[Condition] = [("id", "=", identity), ("state", "=", "running")]
            await self.records.change(RUNS, flag, {"cancelled_by": clipped(session.user), "changed": now()})
        until = time.monotonic() + _UNTIL_CANCELLED
        while row["state"] == "running" and time.monotonic() < until:
            await asyncio.sleep(0.02 if run is not None else 0.1)
            row = await self._row(identity, session)
        if row["state"] not in ("running", "cancelled"):
            raise Conflict(f"The run {identity} was not cancelled: it is {row['state']}.")
        return run_from(row)

    def open(self) -> None:
        self._closing = False

    def close_door(self) -> None:
        """Start nothing more in the background."""
        self._closing = True

    async def close(self) -> None:
        """Cancel what goes on in the background of the running event loop, and write what became of it."""
        self._closing = True
        loop = asyncio.get_running_loop()
        tasks = [task for task in self.background if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        for run in list(self._active.values()):
            if run.loop is loop and run.unattended and run.task is None and run.state == "running":
                await self._end(run, "cancelled")  # its task was cancelled before it began
        pulse = self._pulses.pop(loop, None)
        if pulse is not None:
            await pulse.stop()
        await self._writer.close()

    async def _begin(self, run: Running, key: str | None, *, needed: bool) -> Row | None:
        """Write that a run begins. With a key, the row of the earlier run that has it, if there is one.

        Only a run that must be found again fails when its beginning cannot be written."""
        run.row["lease"] = now(LEASE)
        if key is not None:
            run.row["repeat"] = repeat_of(run.work.session, run.work.operation, key)
            run.row["input_digest"] = input_digest(run.work.given)
            self._active[run.id] = run  # before others can meet its row
            try:
                earlier = await self._claim(run, key)
            except BaseException:
                del self._active[run.id]
                raise
            if earlier is None:
                self._take(run, None)
            else:
                del self._active[run.id]
            return earlier
        writing = self._writer.insert(self.records, dict(run.row))
        self._take(run, writing)
        try:
            await asyncio.wait({writing}, timeout=None if needed else PATIENCE)
        except asyncio.CancelledError:
            await self._end(run, "cancelled")
            raise
        if writing.done() and (failure := writing.exception()) is not None:
            if needed:
                await self._end(run, "failed", failure if isinstance(failure, NexusError) else None)
                raise failure
            if not self._complained:
                self._complained = True
                logger.warning("runs are not recorded: %s", failure)
        return None

    async def _claim(self, run: Running, key: str) -> Row | None:
        """Insert the row of a run with a key; else the row that has it. Raises KeyReused."""
        same: list[Condition] = [("repeat", "=", run.row["repeat"])]
        for _ in range(_CLAIMS):
            if await self.records.insert(RUNS, run.row):
                return None
            if found := await self.records.find(RUNS, same, limit=1):
                if found[0]["input_digest"] != run.row["input_digest"]:
                    raise KeyReused(key)
                return await self._now(found[0])
        raise Unavailable("The run cannot be recorded.", remedy="Try again.")

    def _take(self, run: Running, writing: asyncio.Task[None] | None) -> None:
        run.writing = writing
        run.changed = self._progress
        self._active[run.id] = run
        run.told = self.source.tell(run.row, None)
        self._feed.wake(self.source)
        if self.records.shared:
            self._beat(run.loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        pulse = self._pulses.get(loop)
        if pulse is not None and pulse.beats:
            return
        for other in [other for other in self._pulses if other.is_closed()]:
            del self._pulses[other]
        pulse = Pulse(
            self.records, self.owner, lambda: any(run.loop is loop for run in list(self._active.values()))
        )
        self._pulses[loop] = pulse
        pulse.start(self._flagged)

    def _flagged(self, identity: str, by: str) -> None:
        if (run := self._active.get(identity)) is not None:
            run.cancel(by)

    async def _perform(self, runtime: Runtime, run: Running) -> Any:
        work = run.work
        task = run.task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            if run.cancelled_by is not None:
                raise _cancelled(run)
            result = await runtime.perform(work, run)
        except asyncio.CancelledError:
            ours = run.delivered and task.uncancel() <= before
            failure = _cancelled(run) if run.delivered else None
            if run.committed:
                await self._end(run, "done")
            else:
                await self._end(run, "cancelled", failure)
            if ours and failure is not None:
                raise failure from None
            raise
        except NexusError as raised:
            if run.delivered:
                task.uncancel()
            await self._end(run, "cancelled" if isinstance(raised, RunCancelled) else "failed", raised)
            raise
        if run.delivered:
            task.uncancel()
        await self._end(run, "done")
        return result

    async def _unattended(self, runtime: Runtime, run: Running) -> None:
        """A run whose result nobody awaits: its record has it."""
        try:
            await self._perform(runtime, run)
        except NexusError as failure:
            logger.debug("the run %s in the background failed: %s", run.id, failure)

    async def _end(self, run: Running, state: State, failure: NexusError | None = None) -> None:
        """Record, after its commit or rollback, what became of a run. Carried to its end even when the task
        is cancelled meanwhile; a store that is slow is left to it."""
        if failure is None and state == "cancelled":
            failure = RunCancelled("The run was cancelled: its client or its server ended.")
        changes = run.ended(state, failure)
        run.told = self.source.tell(run.row, run.told)
        self._feed.wake(self.source)

        async def after() -> None:
            self._active.pop(run.id, None)
            moment = time.monotonic()
            if random.random() * _PRUNED_EACH < 1 and moment >= self._prune_next:
                self._prune_next = moment + _PRUNED_AGAIN
                await self._prune()

        written = self._writer.change(self.records, run.writing, dict(run.row), changes, after)
        await finish(asyncio.wait({written}, timeout=PATIENCE))

    def _progress(self, run: Running) -> None:
        """Tell of a node, if anybody listens; of many nodes, together."""
        if run.state != "running" or run.telling or not self._feed.is_followed(self.source):
            return
        if len(run.nodes) > _FEW_NODES:
            run.telling = True
            run.loop.call_later(_TOLD_EACH, self._tell_progress, run)
        else:
            self._tell_progress(run)

    def _tell_progress(self, run: Running) -> None:
        run.telling = False
        if run.state == "running":
            run.told = self.source.tell(run.current(), run.told)
            self._feed.wake(self.source)

    async def _row(self, identity: str, session: Session) -> Row:
        run = self._active.get(identity)
        if run is not None:
            row: Row | None = run.current()
        else:
            found = await self.records.find(RUNS, [("id", "=", identity)], limit=1)
            row = await self._now(found[0]) if found else None
        if row is None or not may_see(session, row):
            raise NotFound(f"There is no run '{identity[:80]}'.")
        return row

    async def _now(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as things are now: what is going on here is known better than by its row."""
        run = self._active.get(row["id"])
        if run is not None:
            current = run.current()
            return {name: current[name] for name in row}
        if self._others.is_abandoned(row, self._active):
            return await self._others.abandon(self.records, row)
        return row

    async def _sweep(self) -> None:
        for row in await self._others.running(self.records):
            await self._now(row)

    async def _recent(self, limit: int) -> Sequence[dict[str, Any]]:
        rows = {row["id"]: row for row in await self.records.find(RUNS, limit=limit)}
        rows |= {run.id: run.current() for run in list(self._active.values())}
        return [rows[identity] for identity in sorted(rows, reverse=True)]

    async def _look(self) -> None:
        """Tell of what other processes did."""
        if not self.records.shared:
            return
        await self._sweep()
        for row in await self._others.news(self.records):
            self.source.tell(row, self.source.last(row["id"]))

    async def _prune(self) -> None:
        """Delete what has ended and is older than is kept, or more."""
        ended: Condition = ("state", "!=", "running")
        try:
            old = now(-self._keeping.days * 86_400)
            await self.records.delete(RUNS, [("changed", "<", old), ended])
            beyond = await self.records.find(RUNS, columns=("id",), limit=1, offset=self._keeping.most)
            if beyond:
                await self.records.delete(RUNS, [("id", "<", beyond[0]["id"] + "0"), ended])
        except NexusError as failure:
            logger.warning("old runs are not deleted: %s", failure)


_ALL: weakref.WeakSet[Runs] = weakref.WeakSet()


def _after_fork() -> None:
    for runs in list(_ALL):
        runs._begin_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _cancelled(run: Running) -> RunCancelled:
    return RunCancelled(f"The run {run.id} was cancelled by '{run.cancelled_by}'.")
