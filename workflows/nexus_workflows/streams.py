"""Which nodes run once for each page of a stream, and how they and the others are put in order.

What comes after a stream, by connections or templates, is inside of it, up to a MergeNode with `pages`, which
gathers what every page has brought and is outside again. Seen from outside a stream is one node, which comes
after all that anything in it comes after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nexus.errors import RegistrationError
from nexus.operation import Effect
from nexus_workflows.nodes.loop import LoopStep
from nexus_workflows.nodes.merge import MergeStep
from nexus_workflows.nodes.stream import StreamStep
from nexus_workflows.segments import Phase, Segment, about, segments, written_by
from nexus_workflows.steps import OperationStep, Reach, Step

Place: TypeAlias = tuple[int, ...]
"""The streams that a node is inside of, the outermost first."""

_NO_MODELS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Level:
    """The nodes of one place: their segments, and which come directly after each."""

    segments: tuple[Segment, ...]
    after: tuple[tuple[int, ...], ...]


class Streams:
    """The streams of a workflow, by numbers of nodes in an order in which they can run; `before` are the
    nodes that each comes after, `beside` the models that one looks at besides its own. Raises
    RegistrationError for nodes that belong nowhere."""

    def __init__(
        self,
        names: Sequence[str],
        steps: Sequence[Step],
        before: Sequence[Sequence[int]],
        beside: Mapping[int, frozenset[str] | None],
    ) -> None:
        self._names = names
        self._steps = steps
        self._before = before
        self._looks_at = beside
        self._beside = dict(beside)  # of a stream: of all that is inside
        self.numbers = [number for number, step in enumerate(steps) if isinstance(step, StreamStep)]
        self.places: list[Place] = []
        for number in range(len(steps)):
            self.places.append(self._place(number) if self.numbers or self.gathers(number) else ())
        for number in reversed(self.numbers):
            self._contain(number)

    def within(self, number: int) -> Place:
        """Where the node's results are known: for a stream, its pages."""
        place = self.places[number]
        return (*place, number) if isinstance(self._steps[number], StreamStep) else place

    def remains(self, number: int) -> tuple[str, ...]:
        """What there is of a node's results after the last page; nothing for a node that is outside."""
        if self.places[number]:
            return ("pages", "last")
        return ("pages", "count") if number in self.numbers else ()

    def members(self, stream: int) -> tuple[int, ...]:
        """The nodes inside of it, at any depth."""
        return tuple(number for number, place in enumerate(self.places) if stream in place)

    def gathers(self, number: int) -> bool:
        """Whether it is brought something of every page, once."""
        step = self._steps[number]
        return isinstance(step, MergeStep) and step.pages

    def locks(self, stream: int) -> bool:
        """Whether a page's records are to stay as they are until what was written is kept. By their ids only:
        in another order, a record that had to be waited for may stand elsewhere by then."""
        step = self._steps[stream]
        assert isinstance(step, StreamStep)
        written = written_by(self._steps)
        return step.by_id and written(step.source, self._looks_at.get(stream, _NO_MODELS))

    def level(self, place: Place) -> Level:
        """Raises RegistrationError where something in a stream needs what comes after its last page."""
        before: dict[int, Sequence[int]] = dict(
            self._needed(place) if self.numbers else enumerate(self._before)
        )
        order = self._order(before) if self.numbers else list(before)
        local = {number: index for index, number in enumerate(order)}
        found = segments(
            [self._steps[number] for number in order],
            [[local[other] for other in before[number]] for number in order],
            {local[number]: models for number, models in self._beside.items() if number in local},
        )
        after: list[list[int]] = [[] for _ in self._steps]
        for number in order:
            for other in before[number]:
                after[other].append(number)
        return Level(tuple(_numbered(segment, order) for segment in found), tuple(map(tuple, after)))

    def _place(self, number: int) -> Place:
        sources = [(other, self.within(other)) for other in self._before[number]]
        if self.gathers(number):
            return self._behind(number, sources)
        place = max((each for _, each in sources), key=len, default=())
        for _, each in sources:
            if place[: len(each)] != each:
                first, second = (self._names[one[-1]] for one in (place, each))
                raise RegistrationError(
                    f"Node '{self._names[number]}' comes after the pages of both '{first}' and '{second}'.",
                    remedy="Gather the pages of one, or of both, in a MergeNode with 'pages': True.",
                )
        return place

    def _behind(self, number: int, sources: list[tuple[int, Place]]) -> Place:
        """The place of what gathers pages."""
        name = self._names[number]
        for other, place in sources:
            if not place:
                raise RegistrationError(
                    f"Node '{name}' gathers pages, and '{self._names[other]}' is not in a stream.",
                    remedy="Bring that to a node behind it.",
                )
        outer = {place[:-1] for _, place in sources}
        if len(outer) != 1:
            raise RegistrationError(
                f"Node '{name}' gathers pages, and "
                + ("none are brought to it." if not outer else "those of a stream and of one inside of it."),
                remedy="Bring it outputs of a list that is 'streaming', or of what follows it.",
            )
        return outer.pop()

    def _contain(self, stream: int) -> None:
        """Make the step of a stream the step of all that is inside."""
        step = self._steps[stream]
        assert isinstance(step, StreamStep)
        inside = self.members(stream)
        if not any(stream in needed for needed in self._before):
            raise RegistrationError(
                f"Node '{self._names[stream]}' is 'streaming', and nothing follows to be given its pages.",
                remedy="Connect a node to it, or leave 'streaming' out.",
            )
        parts = [self._steps[number] for number in inside]
        step.contain(
            [part for each in parts for part in (each.parts if isinstance(each, StreamStep) else (each,))]
        )
        beside = [self._beside.get(number, _NO_MODELS) for number in (stream, *inside)]
        known = [models for models in beside if models is not None]
        self._beside[stream] = frozenset().union(*known) if len(known) == len(beside) else None
        if not step.by_id:
            self._check_moves(stream, inside)

    def _check_moves(self, stream: int, inside: Sequence[int]) -> None:
        """Refuse to change, for each page, what the order of the records may be made of."""
        source = self._steps[stream]
        assert isinstance(source, StreamStep)
        for number in inside:
            step = self._steps[number]
            inner = step.inner if isinstance(step, LoopStep) else step
            if not isinstance(inner, OperationStep) or inner.reach is not Reach.WRITES:
                continue
            if inner.operation.effect is not Effect.DELETE and about(inner) == about(source.source):
                raise RegistrationError(
                    f"Node '{self._names[number]}' writes records that '{self._names[stream]}' reads in"
                    " another order than that of their ids: one could come twice, or never.",
                    remedy="Leave the order out.",
                )

    def _needed(self, place: Place) -> Iterator[tuple[int, list[int]]]:
        """The nodes of a place, each with those of the same place that it comes after."""
        depth = len(place)
        found: dict[int, dict[int, None]] = {}
        for number, own in enumerate(self.places):
            if own[:depth] != place:
                continue
            at = own[depth] if len(own) > depth else number
            needed = found.setdefault(at, {})
            for other in self._before[number]:
                theirs = self.places[other]
                if theirs[:depth] == place:
                    source = theirs[depth] if len(theirs) > depth else other
                    if source != at:
                        needed[source] = None
        return ((number, list(needed)) for number, needed in found.items())

    def _order(self, before: Mapping[int, Sequence[int]]) -> list[int]:
        open_ = {number: len(needed) for number, needed in before.items()}
        after: dict[int, list[int]] = {}
        for number, needed in before.items():
            for other in needed:
                after.setdefault(other, []).append(number)
        order = [number for number, count in open_.items() if not count]
        for number in order:  # which grows meanwhile
            for other in after.get(number, ()):
                open_[other] -= 1
                if not open_[other]:
                    order.append(other)
        if len(order) < len(before):
            stuck = next(n for n in before if open_[n] and isinstance(self._steps[n], StreamStep))
            raise RegistrationError(
                f"What runs for each page of '{self._names[stuck]}' needs what comes after its last page.",
                remedy="Read the records again, by a second list, for what needs all of them.",
            )
        return order


def _numbered(segment: Segment, numbers: Sequence[int]) -> Segment:
    """With the numbers that nodes have in the workflow."""

    def phase(local: Phase) -> Phase:
        needs = {numbers[index]: count for index, count in local.needs.items()}
        return Phase(needs, tuple(numbers[index] for index in local.first))

    return Segment(phase(segment.waits), phase(segment.before), phase(segment.inside), segment.alone)
