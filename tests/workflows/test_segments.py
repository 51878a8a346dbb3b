"""Where a run is cut: held against what must be true of every graph."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus import LOCAL, Nexus
from nexus_workflows import WorkflowBuilder, node
from nexus_workflows.segments import Segment, segments
from nexus_workflows.steps import Given, Gives, Reach, Takes

_REACHES = [Reach.NOTHING, Reach.READS, Reach.WRITES, Reach.ANYTHING, Reach.WAITS]


class _Step:
    takes = Takes()
    gives = Gives()
    stoppable = True

    def __init__(self, reach: Reach) -> None:
        self.reach = reach

    async def run(self, call: object, given: Given) -> Any:
        return None


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Reach], list[list[int]]]:
    """Reaches, and for each node those before it."""
    count = draw(st.integers(1, 12))
    reaches = draw(st.lists(st.sampled_from(_REACHES), min_size=count, max_size=count))
    before = [
        sorted(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else []
        for number in range(count)
    ]
    return reaches, before


def _places(found: tuple[Segment, ...]) -> dict[int, tuple[int, int]]:
    """The segment of each node, and its place in it: waiting, before, inside."""
    places: dict[int, tuple[int, int]] = {}
    for number, segment in enumerate(found):
        for place, phase in enumerate((segment.waits, segment.before, segment.inside)):
            for member in phase.needs:
                assert member not in places
                places[member] = (number, place)
    return places


def _after(before: list[list[int]], start: int) -> set[int]:
    found = {start}
    for number in range(start + 1, len(before)):
        if found & set(before[number]):
            found.add(number)
    return found - {start}


@given(graphs())
def test_every_node_has_its_place(graph: tuple[list[Reach], list[list[int]]]) -> None:
    reaches, before = graph
    found = segments([_Step(reach) for reach in reaches], before)
    places = _places(found)
    assert sorted(places) == list(range(len(reaches)))
    for number, reach in enumerate(reaches):
        assert (places[number][1] == 0) == (reach is Reach.WAITS)
        for other in before[number]:
            assert places[other] <= places[number], "what comes before is not placed after"
            if places[other] == places[number] and reach is Reach.WAITS:
                assert other != number
        if reach in (Reach.WRITES, Reach.ANYTHING):
            assert places[number][1] == 2
            cut_by = [n for n in _after(before, number) if reaches[n] is Reach.WAITS]
            last = len(found) - 1
            assert places[number][0] == last or cut_by, "only what must be waited after is kept early"
    for segment in found:
        for phase in (segment.waits, segment.before, segment.inside):
            assert bool(phase.first) == bool(phase.needs)
            for member, needed in phase.needs.items():
                assert needed == sum(other in phase.needs for other in before[member])


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_every_node_runs_once_after_those_before_it(limit: int) -> None:
    ran: list[int] = []
    running = [0, 0]

    @node(name="segments_recorded")
    async def recorded(number: int) -> int:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0)
        running[0] -= 1
        ran.append(number)
        return number

    @node(name="segments_waiting", waits=True)
    async def waiting(number: int) -> int:
        return await recorded(number)

    @node(name="segments_pure", pure=True)
    def pure(number: int) -> int:
        ran.append(number)
        return number

    kinds = {Reach.NOTHING: "segments_pure", Reach.WAITS: "segments_waiting"}

    @given(graphs())
    def check(graph: tuple[list[Reach], list[list[int]]]) -> None:
        reaches, before = graph
        workflow = WorkflowBuilder()
        for number, reach in enumerate(reaches):
            workflow.add_node(kinds.get(reach, "segments_recorded"), f"n{number}", {"number": number})
            for other in before[number]:
                workflow.add_connection(f"n{other}", "result", f"n{number}", "input")
        ran.clear()
        running[1] = 0
        app = Nexus(channels=[])
        operation = workflow.build().operation("x", _no_operations, limit=limit)
        run = asyncio.run(app.runtime.invoke(operation, {}, LOCAL, channel="test"))
        assert {name: result["result"] for name, result in run.results.items()} == {
            f"n{number}": number for number in range(len(reaches))
        }
        assert sorted(ran) == list(range(len(reaches)))
        for number, others in enumerate(before):
            assert all(ran.index(other) < ran.index(number) for other in others)
        assert running[1] <= limit

    check()


def _no_operations(name: str, wanted: str) -> Any:
    raise AssertionError(name)
