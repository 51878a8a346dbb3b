"""Runs a plan inside a call."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from nexus.block import finish
from nexus.call import CURRENT, Call
from nexus.errors import InvalidInput, NexusError, Retryable
from nexus.operation import Effect, Operation
from nexus.runtime import ATTEMPTS, pause
from nexus_workflows.careful import run_carefully
from nexus_workflows.errors import NodeFailed, told
from nexus_workflows.flow import Flow
from nexus_workflows.plan import (
    DONE,
    HANDED,
    RECOVERED,
    SKIPPED,
    WAITING,
    Brought,
    Edge,
    Plan,
    Planned,
)
from nexus_workflows.segments import Phase, Segment
from nexus_workflows.steps import Given
from nexus_workflows.streaming import run_stream
from nexus_workflows.values import GIVEN, fill, look_up

logger = logging.getLogger("nexus.workflows")

DEEPEST = 30
"""How many workflows may be running inside of each other."""


async def _nothing(call: Call, arguments: object) -> None:
    """What is done on behalf of this operation is done by nodes."""


_READING = Operation("workflow_reading", _nothing, effect=Effect.READ, internal=True)
_inside: ContextVar[tuple[str, ...]] = ContextVar("nexus_workflows", default=())


async def run_plan(plan: Plan, call: Call, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Each node's result by its id, None for those that did not run. The first failure ends the run and is
    raised; nothing of the segment in which it happened is kept."""
    around = _inside.get()
    if len(around) >= DEEPEST:
        raise InvalidInput(
            f"Workflows run inside of each other without end: {' → '.join((*around[-4:], plan.name))}.",
            remedy="A workflow cannot be a node of itself.",
        )
    if plan.waits and call.atomic:
        raise InvalidInput(
            f"'{plan.name}' waits for the world outside, and cannot be a part of a transaction.",
            remedy="Run it outside, or where no transaction is open.",
        )
    token = _inside.set((*around, plan.name))
    try:
        return await Run(plan, call, inputs, alone=not around).results()
    finally:
        _inside.reset(token)


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, call: Call, inputs: Mapping[str, Any], *, alone: bool) -> None:
        self.plan = plan
        # The call then ends with the last segment, and commits it: it alone knows whether that was kept.
        self._ends_the_call = alone and call.operation.name == plan.name
        self.call = call
        self.inputs = inputs
        self.scope: dict[str, Any] = dict(inputs)
        self.state = [WAITING] * len(plan.nodes)
        self.progress, call.progress = call.progress, None  # a workflow inside reports to nobody
        self._reading: Call | None = None
        # What pages of streams have brought, by the node that gathers it, its input, and the stream.
        self.gathered: dict[tuple[int, str], dict[int, list[Any]]] = {}
        # A stream takes no place of its own, so that what is inside can always go on.
        self.slots = asyncio.Semaphore(plan.limit) if plan.streams else None

    def page(self, body: Plan, call: Call) -> Run:
        """The same run for one page of a stream: what it finds out is its own."""
        page = copy.copy(self)
        page.plan, page.call, page._ends_the_call = body, call, False
        page.scope, page.state, page.gathered = dict(self.scope), list(self.state), {}
        return page

    async def results(self) -> dict[str, Any]:
        await self.segments()
        scope, state = self.scope, self.state
        return {node.id: None if state[node.index] == SKIPPED else scope[node.id] for node in self.plan.nodes}

    async def segments(self) -> None:
        """One after the other."""
        number = 0
        while number < len(self.plan.segments):
            waits = self.plan.segments[number].waits
            if waits.needs:
                await self._phase(waits, self.call)
            number = await self._segment(number)

    async def _segment(self, first: int) -> int:
        """Run a segment, and the next ones while nothing waits between, as a whole; what the database gives
        up is begun anew. The number of the segment that follows."""
        if self.call.atomic or not self.plan.atomic:
            return await self._together(first, self.call)
        attempt = 1
        while True:
            parts: list[Call] = []
            kept = self.call.kept
            try:
                end = await self._together(first, None, parts)
                if self._ends_the_call and end == len(self.plan.segments):
                    for part in parts:
                        self.call.adopt(part)
                    return end
                await finish(self._keep(parts))
            except BaseException as failure:
                for part in parts:
                    await part.rollback()
                again = isinstance(failure, Retryable) and attempt < ATTEMPTS and self.call.kept == kept
                if not again or not await pause(attempt):
                    raise
                self._forget(first)
            else:
                return end
            attempt += 1

    async def _keep(self, parts: list[Call]) -> None:
        """Commit, and say so: also when the run is cancelled just then, what is kept is known to be."""
        for part in parts:
            await part.commit()
            self.call.took(part)
            self.call.runtime.wake(part)

    async def _together(self, first: int, call: Call | None, parts: list[Call] | None = None) -> int:
        """With `call` for everything, or with a transaction that begins where there is something to keep."""
        number = first
        while True:
            segment = self.plan.segments[number]
            if segment.before.needs:
                await self._phase(segment.before, call or self._reads())
            if segment.inside.needs:
                if call is None and not self._commits_alone(number, segment):
                    call = await self.call.inside()
                    assert parts is not None
                    parts.append(call)
                await self._phase(segment.inside, call or self.call)
            number += 1
            if number == len(self.plan.segments) or self._is_cut(self.plan.segments[number]):
                return number
            await self._phase(self.plan.segments[number].waits, self.call)  # none of them runs

    def _reads(self) -> Call:
        """The call for what is outside of the transaction, and so must not write."""
        if self._reading is None:
            outer = self.call
            self._reading = Call(
                outer.runtime, outer.session, _READING, outer.channel, deadline=outer.deadline
            )
        return self._reading

    def _commits_alone(self, number: int, segment: Segment) -> bool:
        last = number == len(self.plan.segments) - 1
        return segment.alone and (last or not self.plan.controlled)

    def _is_cut(self, segment: Segment) -> bool:
        return any(self._runs(self.plan.nodes[number]) for number in segment.waits.needs)

    def _forget(self, first: int) -> None:
        """Begin anew from a segment on."""
        for segment in self.plan.segments[first:]:
            for phase in (segment.before, segment.inside):
                for number in self._with_members(phase.needs):
                    if self.state[number] != WAITING:
                        self.state[number] = WAITING
                        node = self.plan.nodes[number].id
                        self.scope.pop(node, None)
                        if node in self.inputs:
                            self.scope[node] = self.inputs[node]
                        if self.progress is not None:
                            self.progress.node_ended(node, "retrying", 0.0)

    def _with_members(self, numbers: Iterable[int]) -> Iterator[int]:
        """And, of streams, what is inside."""
        for number in numbers:
            yield number
            if number in self.plan.streams:
                yield from self.plan.streams[number].members

    async def _phase(self, phase: Phase, call: Call) -> None:
        before = CURRENT.set(call)
        try:
            await Flow(self, phase, call).run()
        finally:
            CURRENT.reset(before)

    async def node(self, number: int, call: Call) -> None:
        """Run one node, or find that its way was not taken."""
        planned = self.plan.nodes[number]
        if self.plan.controlled and not self._runs(planned):
            for each in self._with_members((number,)):
                self.state[each] = SKIPPED
                if self.progress is not None:
                    self.progress.node_ended(self.plan.nodes[each].id, "skipped", 0.0)
        elif number in self.plan.streams:
            await run_stream(self, planned, call)
        elif self.slots is None or planned.immediate:
            await self._work(planned, call)
        else:
            async with self.slots:
                await self._work(planned, call)

    async def _work(self, planned: Planned, call: Call) -> None:
        if self.progress is None and planned.care is None:
            try:
                self.scope[planned.id] = await planned.step.run(call, self.given(planned))
            except Exception as failure:
                raise self.named(planned, failure) from failure
            self.state[planned.index] = DONE
            return
        await self.watched(planned, call)

    async def watched(self, planned: Planned, call: Call) -> None:
        progress, care = self.progress, planned.care
        if progress is not None:
            progress.node_started(planned.id)
        begun = time.perf_counter()
        try:
            given = self.given(planned)
            if care is None:
                value = await planned.step.run(call, given)
            else:
                value = await run_carefully(planned, care, call, given, progress)
        except Exception as failure:
            error = self.named(planned, failure)
            if progress is not None:
                progress.node_ended(planned.id, "failed", time.perf_counter() - begun, error)
            if care is None or care.action == "fail" or (isinstance(failure, Retryable) and call.atomic):
                raise error from failure
            self._recover(planned, error)
            return
        seconds = time.perf_counter() - begun
        if care is not None and care.monitoring is not None:
            care.monitoring.tell(planned.id, seconds)
        self.scope[planned.id] = value
        self.state[planned.index] = DONE
        if progress is not None:
            progress.node_ended(planned.id, "done", seconds)

    def _recover(self, planned: Planned, error: NexusError) -> None:
        """Go on after a failure, as the node's `on_error` says."""
        care = planned.care
        assert care is not None
        logger.warning("node '%s' failed, and the run goes on: %s", planned.id, error.detail)
        said = {"error": error.detail, "code": error.code, "node": planned.id}
        self.scope[planned.id] = fill(care.fallback, self.scope, {}) if care.has_fallback else said
        self.state[planned.index] = HANDED if care.action == "goto" else RECOVERED

    def named(self, planned: Planned, failure: Exception) -> NexusError:
        """The failure as one of ours that names the node."""
        if not isinstance(failure, NexusError):
            logger.error("node '%s' failed", planned.id, exc_info=failure)
            reason = told(failure) if self.call.in_process else type(failure).__name__
            remedy = "" if self.call.in_process else "The server's log says more."
            failure = NodeFailed(f"Node '{planned.id}' failed: {reason}.", remedy=remedy)
        inner = failure.node
        if not inner:
            failure.node = planned.id
        elif inner != planned.id and not inner.startswith((f"{planned.id}/", f"{planned.id}[")):
            failure.node = f"{planned.id}/{inner}"
        return failure

    def _runs(self, planned: Planned) -> bool:
        conditions = planned.conditions
        if conditions.handles >= 0 and self.state[conditions.handles] != HANDED:
            return False
        if not conditions.groups:
            return True
        taken = (any(map(self.taken, group)) for group in conditions.groups)
        if planned.gathers:
            edges = (edge for group in conditions.groups for edge in group)
            return any(self.state[edge.source] != SKIPPED for edge in edges)
        if conditions.joins:
            return any(taken)
        return all(taken)

    def taken(self, edge: Edge) -> bool:
        state = self.state[edge.source]
        if state in (SKIPPED, HANDED):
            return False
        switch = self.plan.switches.get(edge.source)
        if switch is None or not edge.output or edge.output[0] not in switch.gives.routes:
            return True
        return edge.output[0] == switch.taken(self.scope[self.plan.nodes[edge.source].id])

    def given(self, planned: Planned) -> Given:
        if planned.simple:
            arguments, sources = dict(planned.constants), dict[str, Any]()
        else:
            arguments, sources = self._filled(planned)
        if planned.shows_given:
            open_ = planned.step.takes.open
            self.scope[planned.id + GIVEN] = {**self.inputs, **arguments} if open_ else arguments
        return Given(arguments, sources, self.inputs, self.scope)

    def _filled(self, planned: Planned) -> tuple[dict[str, Any], dict[str, Any]]:
        scope = self.scope
        brought: dict[str, Any] = {}
        for each in planned.brought:
            if planned.gathers:
                parts = self.gathered.get((planned.index, each.input), {})
                brought[each.input] = [value for number in sorted(parts) for value in parts[number]]
            else:
                for value in self.brought_by(each):
                    brought[each.input] = value
        arguments = dict(planned.constants)
        for name, tree in planned.dynamic:
            arguments[name] = fill(tree, scope, brought)
        for name, value in brought.items():
            if name in planned.direct:
                arguments[name] = value
        return arguments, {name: scope.get(name) for name, _ in planned.sources}

    def brought_by(self, each: Brought) -> Iterator[Any]:
        """The value that is brought to an input, if any way to it was taken."""
        for edge in each.edges:
            if self.plan.controlled and not self.taken(edge):
                continue
            source = self.plan.nodes[edge.source].id
            try:
                value = look_up(self.scope[source], edge.output)
            except NexusError as failure:
                failure.detail = f"Node '{source}' has given no '{'.'.join(edge.output)}'."
                raise
            yield value if each.convert is None else each.convert(value)
            return
