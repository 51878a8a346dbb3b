"""Where a run may keep a transaction open, and which of its nodes belong together.

Nodes that wait for the world cut a run into segments. A node belongs to the last segment that it can be in:
so as much as possible is kept or undone together, and a read is together with the write that it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nexus_workflows.nodes.loop import LoopStep
from nexus_workflows.nodes.stream import StreamStep
from nexus_workflows.steps import OperationStep, Reach, Step

_NO_MODELS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Phase:
    """Nodes that run as soon as those of them that they come after have ended: how many these are, by node,
    and those that come after none."""

    needs: dict[int, int]
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """First the nodes that wait, outside of any transaction; then `before`, what reads and does not belong
    to a transaction; then `inside`, in one. `alone` says that there is but one statement to be kept."""

    waits: Phase
    before: Phase
    inside: Phase
    alone: bool


def segments(
    steps: Sequence[Step],
    before: Sequence[Sequence[int]],
    beside: Mapping[int, frozenset[str] | None] = MappingProxyType({}),
) -> tuple[Segment, ...]:
    """`before` are the nodes that each comes after, by numbers in an order in which they can run. `beside`
    are the models that a node looks at besides its own; None where only a run can tell."""
    ranks = _ranks(steps, before)
    levels = _levels(steps, before, ranks)
    written = written_by(steps)
    count = max(ranks, default=0) + 1
    members: list[tuple[list[int], list[int], list[int]]] = [([], [], []) for _ in range(count)]
    early: list[bool] = []
    for number, step in enumerate(steps):
        waits = step.reach is Reach.WAITS
        level = ranks[number] if waits else levels[number]
        free = _is_free(step, beside.get(number, _NO_MODELS), written) and all(
            early[other] or levels[other] < level or steps[other].reach is Reach.WAITS
            for other in before[number]
        )
        early.append(free)
        members[level][0 if waits else 1 if free else 2].append(number)
    return tuple(
        Segment(_phase(waits, before), _phase(free, before), _phase(inside, before), _alone(steps, inside))
        for waits, free, inside in members
    )


def _ranks(steps: Sequence[Step], before: Sequence[Sequence[int]]) -> list[int]:
    """How many times a run has waited when each node's turn has come, its own waiting included."""
    ranks: list[int] = []
    for number, step in enumerate(steps):
        rank = max((ranks[other] for other in before[number]), default=0)
        ranks.append(rank + (step.reach is Reach.WAITS))
    return ranks


def _levels(steps: Sequence[Step], before: Sequence[Sequence[int]], ranks: list[int]) -> list[int]:
    """The last segment that each node can be in: before the first waiting that comes after it."""
    levels = [max(ranks, default=0)] * len(steps)
    for number in range(len(steps) - 1, -1, -1):
        latest = ranks[number] - 1 if steps[number].reach is Reach.WAITS else levels[number]
        for other in before[number]:
            levels[other] = min(levels[other], latest)
    return levels


def written_by(steps: Sequence[Step]) -> Callable[[Step, frozenset[str] | None], bool]:
    """Whether what a step reads, also besides its own model, is written in the same run, by these steps."""
    parts = [part for step in steps for part in _parts(step)]
    models = {about(part) for part in parts if part.reach is Reach.WRITES}
    anything = any(part.reach is Reach.ANYTHING for part in parts)

    def written(step: Step, also: frozenset[str] | None) -> bool:
        if anything:
            return True
        if also is None:
            return bool(models)
        read = {about(part) for part in _parts(step)}
        return bool(read & models) or any((one[0], name) in models for one in read if one for name in also)

    return written


def _parts(step: Step) -> tuple[Step, ...]:
    """What a stream runs for each page; else the step itself."""
    return step.parts if isinstance(step, StreamStep) else (step,)


def about(step: Step) -> tuple[str, str] | None:
    """The instance and the model that an operation, or the one that a loop repeats, is about."""
    if isinstance(step, LoopStep):
        return about(step.inner)
    if not isinstance(step, OperationStep):
        return None
    return step.operation.source, step.operation.model or step.operation.resource


def _is_free(
    step: Step, also: frozenset[str] | None, written: Callable[[Step, frozenset[str] | None], bool]
) -> bool:
    if step.reach is Reach.NOTHING:
        return True
    return step.reach is Reach.READS and not written(step, also)


def _phase(members: list[int], before: Sequence[Sequence[int]]) -> Phase:
    inside = set(members)
    needs = {number: sum(other in inside for other in before[number]) for number in members}
    return Phase(needs, tuple(number for number in members if not needs[number]))


def _alone(steps: Sequence[Step], inside: list[int]) -> bool:
    """One write that commits by itself, or one operation that takes care of its own transactions."""
    if len(inside) != 1:
        return False
    step = steps[inside[0]]
    if step.reach is Reach.WRITES:
        return True
    return isinstance(step, OperationStep) and not step.operation.atomic
