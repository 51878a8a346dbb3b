"""One run of a workflow while it goes on, in the process that runs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from nexus.arguments import Given
from nexus.block import finish
from nexus.call import NESTED, Call, is_unheard
from nexus.demands import Demands
from nexus.errors import NexusError
from nexus.keys import Once
from nexus.operation import Operation
from nexus.ports import Row
from nexus.runs.record import (
    OUTPUT_LIMIT,
    State,
    bounded_json,
    clipped,
    error_json,
    inputs_json,
    new_id,
    nodes_json,
    now,
)
from nexus.session import Session


class Work(msgspec.Struct, frozen=True):
    """What is to be run, for whom: what the runtime has checked; `given` is what came. With `once` it is done
    once."""

    operation: Operation
    given: Given
    arguments: msgspec.Struct
    session: Session
    channel: str
    deadline: float | None = None
    demands: Demands | None = None
    once: Once | None = None


class Running:
    """A Progress of the kernel, and the row that becomes of it. `committed` says that what it wrote is kept;
    after `ending` nothing cancels it any more."""

    def __init__(self, work: Work, owner: str) -> None:
        self.id = new_id()
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[Any] | None = None
        self.cancelled_by: str | None = None
        self.delivered = False  # whether `cancelled_by` has cancelled the task
        self.ending = False
        self.committed = False
        self.state: State = "running"
        self.result: Any = None
        self.nodes: dict[str, dict[str, Any]] = {}
        self.told: Row | None = None  # what the feed has told of it last
        self.unattended = False  # in the background
        self.telling = False  # whether the feed is told of it soon
        self.writing: asyncio.Task[None] | None = None  # its first row
        self.changed: Callable[[Running], None] | None = None
        self.row: dict[str, Any] = {
            "id": self.id,
            "workflow": work.operation.name,
            "version": work.operation.version,
            "state": "running",
            "session": clipped(work.session.id),
            "actor": clipped(work.session.user),
            "tenant": None if work.session.tenant is None else clipped(work.session.tenant),
            "channel": clipped(work.channel),
            "repeat": None,
            "input_digest": None,
            "owner": owner,
            "lease": "",
            "cancelled_by": None,
            "started": (started := now()),
            "finished": None,
            "changed": started,
            "inputs": inputs_json(work.operation, work.arguments),
            "nodes": None,
            "output": None,
            "error": None,
            "kept": 0,
        }
        self._call: Call | None = None
        self._begun = time.perf_counter()

    def begin(self, call: Call) -> None:
        """An attempt begins; what an earlier one did is undone."""
        call._run_id = self.id
        call.progress = self
        self._call = call
        self.ending = False
        if self.nodes:
            self.nodes = {}
            self._tell()

    async def keep(self, call: Call, result: object) -> None:
        """Commit. From here on it is not cancelled, and whether it was kept is known whatever happens."""
        self.ending = True
        self.result = result
        await finish(self._commit(call))

    def cancel(self, by: str) -> bool:
        """Cancel its task, from any thread; False when it is about to end by itself."""
        if self.ending or self.state != "running":
            return False
        self.cancelled_by = self.cancelled_by or by
        self.loop.call_soon_threadsafe(self._deliver)
        return True

    def node_started(self, node: str) -> None:
        if NESTED.get():
            return
        known = self.nodes.get(node)
        times = 1 if known is None else known["times"] + 1
        started = round(time.perf_counter() - self._begun, 6)
        self.nodes[node] = {"status": "running", "started": started, "seconds": None, "times": times}
        self._tell()

    def node_ended(self, node: str, status: str, seconds: float, error: NexusError | None = None) -> None:
        if NESTED.get():
            return
        known = self.nodes.get(node)
        started = round(time.perf_counter() - self._begun - seconds, 6) if known is None else known["started"]
        shown: dict[str, Any] = {
            "status": status,
            "started": started,
            "seconds": round(seconds, 6),
            "times": (1 if known is None else known["times"]) + (status == "retrying"),
        }
        if error is not None:
            shown["error"] = {"code": error.code, "detail": error.detail}
        self.nodes[node] = shown
        self._tell()

    def ended(self, state: State, failure: NexusError | None) -> Row:
        """What the row becomes."""
        moment = now()
        for node in self.nodes.values():
            if node["status"] in ("running", "retrying"):
                node["status"] = "cancelled"
        changes = {
            "state": state,
            "finished": moment,
            "changed": moment,
            "nodes": nodes_json(self.nodes) if self.nodes else None,
            "output": bounded_json(self.result, OUTPUT_LIMIT) if state == "done" else None,
            "error": None if failure is None else error_json(failure),
            "kept": self._kept(failure),
            "cancelled_by": None if self.cancelled_by is None else clipped(self.cancelled_by),
        }
        self.state, self.result = state, None
        self.row |= changes
        return changes

    def current(self) -> dict[str, Any]:
        """The row as it would be written now."""
        if self.state == "running" and self.nodes:
            return {**self.row, "nodes": nodes_json(self.nodes), "cancelled_by": self.cancelled_by}
        return {**self.row, "cancelled_by": self.cancelled_by}

    def _kept(self, failure: NexusError | None) -> int | None:
        """Whether something was kept of what it wrote; None where that is not known: the last that was
        heard of a statement that commits, or of the commit, is that it was sent."""
        call = self._call
        if call is None:
            return 0
        if call.kept or (self.committed and call.written):
            return 1
        sent = call.unsure or (bool(call.written) and (self.ending or not call.atomic))
        return None if sent and is_unheard(failure) else 0

    def _deliver(self) -> None:
        if self.task is not None and not (self.delivered or self.ending or self.state != "running"):
            self.delivered = True
            self.task.cancel()

    async def _commit(self, call: Call) -> None:
        await call.commit()
        self.committed = True

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed(self)
