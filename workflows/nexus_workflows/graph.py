"""Nodes and connections as declared, and the order in which they run."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nexus.errors import RegistrationError
from nexus_workflows.values import Path, templates

ORDER = "input"
"""A connection into this, where the target declares no such input, only says what runs first."""


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is the name of an operation; `parameters` are parsed."""

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
    nodes: Mapping[str, Node]
    connections: tuple[Connection, ...]

    def order(self) -> list[Node]:
        """Every node after those that it needs, else in the order of declaration. Raises RegistrationError
        for a cycle, naming it."""
        needs: dict[str, list[str]] = {name: [] for name in self.nodes}
        for connection in self.connections:
            needs[connection.target].append(connection.source)
        for node in self.nodes.values():
            for template in templates(dict(node.parameters)):
                if template.path[0] in self.nodes:
                    needs[node.id].append(template.path[0])
        try:
            return [self.nodes[name] for name in graphlib.TopologicalSorter(needs).static_order()]
        except graphlib.CycleError as failure:
            cycle = " → ".join(reversed(failure.args[1]))
            raise RegistrationError(f"The workflow goes in a circle: {cycle}.") from None

    def into(self, target: str) -> list[Connection]:
        return [connection for connection in self.connections if connection.target == target]
