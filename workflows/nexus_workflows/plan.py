"""A workflow, checked and put in order: everything that need not be found out at each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus_workflows.care import Care
from nexus_workflows.nodes.switch import SwitchStep
from nexus_workflows.segments import Segment
from nexus_workflows.steps import Step
from nexus_workflows.values import Convert, Path

WAITING, DONE, SKIPPED, RECOVERED, HANDED = range(5)
"""The state of a node. RECOVERED has failed and the run goes on; HANDED has failed, and its handler runs."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection, by the number of its source."""

    source: int
    output: Path


@dataclass(frozen=True, slots=True)
class Brought:
    """What one input is brought: by one of the edges, where several ways lead to it."""

    input: str
    edges: tuple[Edge, ...]
    convert: Convert | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a node runs, in a plan with ways that may not be taken: one of each group of edges must have been
    taken, or, of a joining node, any. `handles` is the node whose failure it is for, or -1."""

    groups: tuple[tuple[Edge, ...], ...]
    joins: bool
    handles: int


ALWAYS = Conditions(groups=(), joins=False, handles=-1)


@dataclass(slots=True)
class Planned:
    """One node. `constants` are arguments that are known, `dynamic` those to be filled, `brought` what
    connections bring, `direct` which of that are arguments. `gathers` says that this is one of each page of a
    stream, together."""

    index: int
    id: str
    step: Step
    care: Care | None
    constants: dict[str, Any]
    dynamic: tuple[tuple[str, Any], ...]
    brought: tuple[Brought, ...]
    direct: frozenset[str]
    conditions: Conditions
    sources: tuple[tuple[str, int], ...] = ()
    shows_given: bool = False
    gathers: bool = False

    @property
    def immediate(self) -> bool:
        """Whether it runs to its end without awaiting anything."""
        return not self.step.stoppable and self.care is None

    @property
    def simple(self) -> bool:
        return not self.dynamic and not self.brought and not self.sources


@dataclass(frozen=True, slots=True)
class Stream:
    """What runs for each page: `body`, whose nodes, at any depth, are `members`. `gathered` is what those
    nodes are brought that gather the pages; `locked` says that the records of a page are to stay as they
    are."""

    body: Plan
    members: tuple[int, ...]
    gathered: tuple[tuple[int, Brought], ...]
    locked: bool


@dataclass(slots=True)
class Plan:
    """The nodes in an order in which they can run, in segments that are kept or undone as a whole. Those that
    are inside of `streams` are in the segments of a stream's own plan, which has the same nodes."""

    name: str
    nodes: tuple[Planned, ...]
    after: tuple[tuple[int, ...], ...]
    segments: tuple[Segment, ...]
    atomic: bool
    limit: int
    switches: Mapping[int, SwitchStep] = field(default_factory=dict)
    controlled: bool = False
    streams: Mapping[int, Stream] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether it waits for the world outside."""
        return any(segment.waits.needs for segment in self.segments)
