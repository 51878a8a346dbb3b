"""Runs the nodes of one phase: at once where they can, and the only one that can directly."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from nexus.call import Call
from nexus_workflows.errors import NodeFailed
from nexus_workflows.segments import Phase

if TYPE_CHECKING:
    from nexus_workflows.runner import Run


class Flow:
    """At most `limit` nodes of the plan run at once. When one fails, the others are cancelled and awaited."""

    def __init__(self, run: Run, phase: Phase, call: Call) -> None:
        self._run = run
        self._call = call
        self._needs = dict(phase.needs)
        self._ready = deque(phase.first)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._ended: asyncio.Future[None] | None = None

    async def run(self) -> None:
        ready, nodes = self._ready, self._run.plan.nodes
        while ready:
            if len(ready) == 1 or nodes[ready[0]].immediate:
                await self._one(ready.popleft())
            else:
                await self._side_by_side()

    async def _one(self, number: int) -> None:
        await self._run.node(number, self._call)
        needs = self._needs
        for after in self._run.plan.after[number]:
            if after in needs:
                needs[after] -= 1
                if not needs[after]:
                    self._ready.append(after)

    async def _side_by_side(self) -> None:
        """Until nothing is ready and nothing runs."""
        self._ended = asyncio.get_running_loop().create_future()
        self._hire()
        try:
            await self._ended
        finally:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await _all_ended(tasks)
        if self._failure is not None:
            raise self._failure

    def _hire(self) -> None:
        """One task for each node that is ready, up to the limit; it goes on with what is ready then."""
        wanted = min(self._run.plan.limit - len(self._tasks), len(self._ready))
        for _ in range(wanted):
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._left)

    async def _work(self) -> None:
        ready = self._ready
        while ready and self._failure is None:
            await self._one(ready.popleft())
            if len(ready) > 1:
                self._hire()

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        ended = self._ended
        if ended is None or ended.done():
            if not task.cancelled():
                task.exception()  # of several failures the first is told
            return
        if task.cancelled():
            self._failure = NodeFailed("A node was cancelled from inside of the run.")
        elif (failure := task.exception()) is not None:
            self._failure = failure
        if self._failure is not None or not self._tasks:
            ended.set_result(None)


async def _all_ended(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for the end of tasks that have been cancelled, also when the one who waits is cancelled again."""
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as request:
            cancelled = request
    if cancelled is not None:
        raise cancelled
