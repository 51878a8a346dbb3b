"""Nodes and connections as declared, and the order in which they can run."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.errors import RegistrationError
from nexus_workflows.values import Path, templates

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


@dataclass(frozen=True, slots=True)
class Graph:
    """`handlers` are the nodes that run when another has failed, by that one's id."""

    nodes: Mapping[str, Node]
    connections: tuple[Connection, ...]
    handlers: Mapping[str, str]

    def needs(self) -> dict[str, dict[str, None]]:
        """The nodes that each node comes after."""
        needs: dict[str, dict[str, None]] = {name: {} for name in self.nodes}
        for connection in self.connections:
            needs[connection.target][connection.source] = None
        for node in self.nodes.values():
            for template in templates(node.parameters):
                if template.source in needs:
                    needs[node.id][template.source] = None
        for failing, handler in self.handlers.items():
            if handler not in needs:
                raise RegistrationError(f"Node '{failing}': there is no node '{handler}' to go to.")
            needs[handler][failing] = None
        return needs

    def order(self, needs: Mapping[str, Mapping[str, None]]) -> list[Node]:
        """Every node after those that it needs, else in the order of declaration. Raises RegistrationError
        for a cycle, naming it."""
        try:
            return [self.nodes[name] for name in graphlib.TopologicalSorter(needs).static_order()]
        except graphlib.CycleError as failure:
            cycle = list(reversed(failure.args[1]))
            if len(cycle) > _SHOWN:
                cycle = [*cycle[: _SHOWN // 2], "…", *cycle[-_SHOWN // 2 :]]
            raise RegistrationError(f"The workflow goes in a circle: {' → '.join(cycle)}.") from None

    def into(self) -> dict[str, list[Connection]]:
        """The connections into each node that has some."""
        found: dict[str, list[Connection]] = {}
        for connection in self.connections:
            found.setdefault(connection.target, []).append(connection)
        return found
