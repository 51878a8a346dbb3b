"""Nodes and connections as declared, and the order in which they can run."""

from __future__ import annotations

import functools
import graphlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.errors import RegistrationError
from nexus_workflows.values import Path, Template, templates

ORDER = "input"
"""A connection into this, where the target declares no such input, only says what runs first."""

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is the name of an operation or a step; `parameters` are parsed."""

    id: str
    kind: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Connection:
    source: str
    output: Path
    target: str
    input: str


@dataclass(frozen=True)
class Graph:
    """`handlers` are the nodes that run when another has failed, by that one's id."""

    nodes: Mapping[str, Node]
    connections: tuple[Connection, ...]
    handlers: Mapping[str, str]

    @functools.cached_property
    def templates(self) -> Mapping[str, tuple[Template, ...]]:
        """Those in each node's parameters."""
        return {
            name: tuple(templates(node.parameters)) if node.parameters else ()
            for name, node in self.nodes.items()
        }

    @functools.cached_property
    def needs(self) -> Mapping[str, Mapping[str, None]]:
        """The nodes that each node comes after. Raises RegistrationError for a handler that is not there."""
        needs: dict[str, dict[str, None]] = {name: {} for name in self.nodes}
        for connection in self.connections:
            needs[connection.target][connection.source] = None
        for name, found in self.templates.items():
            for template in found:
                if template.source in needs:
                    needs[name][template.source] = None
        for failing, handler in self.handlers.items():
            if handler not in needs:
                raise RegistrationError(f"Node '{failing}': there is no node '{handler}' to go to.")
            needs[handler][failing] = None
        return needs

    @functools.cached_property
    def order(self) -> list[Node]:
        """Every node after those that it needs, else in the order of declaration. Raises RegistrationError
        for a cycle, naming it."""
        after: dict[str, list[str]] = {}
        open_: dict[str, int] = {}
        for name, needed in self.needs.items():
            open_[name] = len(needed)
            for other in needed:
                after.setdefault(other, []).append(name)
        order = [name for name, count in open_.items() if not count]
        for name in order:  # which grows meanwhile
            for other in after.get(name, ()):
                open_[other] -= 1
                if not open_[other]:
                    order.append(other)
        if len(order) < len(self.nodes):
            raise self._cycle()
        return [self.nodes[name] for name in order]

    @functools.cached_property
    def into(self) -> Mapping[str, list[Connection]]:
        """The connections into each node that has some."""
        found: dict[str, list[Connection]] = {}
        for connection in self.connections:
            found.setdefault(connection.target, []).append(connection)
        return found

    def _cycle(self) -> RegistrationError:
        cycle: list[str] = []
        try:
            graphlib.TopologicalSorter(self.needs).prepare()
        except graphlib.CycleError as failure:
            cycle = list(reversed(failure.args[1]))
        if len(cycle) > _SHOWN:
            cycle = [*cycle[: _SHOWN // 2], "…", *cycle[-_SHOWN // 2 :]]
        return RegistrationError(f"The workflow goes in a circle: {' → '.join(cycle)}.")
