"""Runs what is inside of a stream, page after page."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nexus.call import Call
from nexus.errors import NexusError
from nexus.results import Result
from nexus_workflows.nodes.stream import Pages
from nexus_workflows.plan import DONE, SKIPPED, Brought, Planned, Stream

if TYPE_CHECKING:
    from nexus_workflows.runner import Run


async def run_stream(run: Run, planned: Planned, call: Call) -> None:
    """Read a page, run the nodes inside with it, forget it, and so on; then say what became of them all. What
    the node says about itself, such as `retry`, is about the reading of each page."""
    stream = run.plan.streams[planned.index]
    pages = await _begun(run, planned, call)
    reading = replace(
        planned,
        step=pages,
        constants={},
        dynamic=(),
        brought=(),
        direct=frozenset(),
        sources=(),
        shows_given=False,
    )
    read_by = call if stream.locked else call.without_locks()
    outcome = _Outcome(run, planned, stream)
    while pages.more:
        page = run.page(stream.body, call)
        async with run.slots or nullcontext():
            await page.watched(reading, read_by)
        if not page.scope[planned.id]["count"]:
            break
        try:
            await page.segments()
        except NexusError as failure:
            failure.node = f"{planned.id}[{pages.page}]" + (f"/{failure.node}" if failure.node else "")
            raise
        outcome.add(page)
    outcome.tell(pages)


async def _begun(run: Run, planned: Planned, call: Call) -> Pages:
    try:
        pages = await planned.step.run(call, run.given(planned))
    except Exception as failure:
        error = run.named(planned, failure)
        if run.progress is not None:
            run.progress.node_ended(planned.id, "failed", 0.0, error)
        raise error from failure
    assert isinstance(pages, Pages)
    return pages


class _Outcome:
    """What remains of the pages: how often each node ran and what it gave last, and what is gathered."""

    def __init__(self, run: Run, planned: Planned, stream: Stream) -> None:
        self._run = run
        self._planned = planned
        self._stream = stream
        self._times = dict.fromkeys(stream.members, 0)
        self._last: dict[int, Any] = dict.fromkeys(stream.members)
        self._gathered: list[tuple[int, Brought, list[Any]]] = [
            (number, each, []) for number, each in stream.gathered
        ]

    def add(self, page: Run) -> None:
        for number in self._stream.members:
            if page.state[number] != SKIPPED:
                self._times[number] += 1
                self._last[number] = page.scope[page.plan.nodes[number].id]
        for _, each, values in self._gathered:
            values.extend(page.brought_by(each))

    def tell(self, pages: Pages) -> None:
        run, nodes = self._run, self._run.plan.nodes
        for number in self._stream.members:
            times = self._times[number]
            run.scope[nodes[number].id] = Result(pages=times, last=self._last[number])
            run.state[number] = DONE if times or not pages.page else SKIPPED
        for number, each, values in self._gathered:
            run.gathered.setdefault((number, each.input), {})[self._planned.index] = values
        run.scope[self._planned.id] = Result(pages=pages.page, count=pages.count)
        run.state[self._planned.index] = DONE
