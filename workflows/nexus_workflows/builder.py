"""WorkflowBuilder: declares a workflow node by node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nexus.errors import RegistrationError, did_you_mean
from nexus.operation import Operation
from nexus.registry import Registry
from nexus_workflows.graph import Connection, Graph, Node
from nexus_workflows.values import parse
from nexus_workflows.workflow import Input, Workflow

_NAME = re.compile(r"[A-Za-z_][\w-]*")


class WorkflowBuilder:
    """Collects nodes and connections; `build` makes the workflow of them.

        restock = WorkflowBuilder("Add to a product's stock.")
        restock.add_input("quantity", int)
        restock.add_node("ProductUpdateNode", "add", {"id": "{{product_id}}", "fields": {…}})

    Everything that can be known to be wrong raises RegistrationError where it is declared, or at
    registration.
    """

    def __init__(self, description: str = "") -> None:
        self._description = description
        self._inputs: dict[str, Input] = {}
        self._nodes: dict[str, Node] = {}
        self._connections: list[Connection] = []

    def add_input(self, name: str, annotation: Any = Any, description: str = "", **default: Any) -> None:
        """Declare the type of a run input; `default=` makes it optional. Inputs that are used and not
        declared are required, and have the type of the argument that they are given to."""
        _check_name(name, "an input")
        if name in self._inputs:
            raise RegistrationError(f"The input '{name}' is declared twice.")
        if unknown := set(default) - {"default"}:
            raise TypeError(f"add_input() has no parameter '{min(unknown)}'")
        self._inputs[name] = Input(name, annotation, description, tuple(default.values()))

    def add_node(self, node_type: str, node_id: str, config: object = None) -> str:
        """Add a node that runs the operation `node_type`, such as `ProductUpdateNode`, with these
        parameters. Returns the id."""
        if not isinstance(config, Mapping | None):
            raise RegistrationError(
                "A node is added with its type, its id and its parameters.",
                remedy='As in add_node("ProductReadNode", "find", {"id": 1}).',
            )
        _check_name(node_id, "a node")
        if node_id in self._nodes:
            raise RegistrationError(f"There is a node '{node_id}' already.")
        self._nodes[node_id] = Node(node_id, node_type, parse(config or {}))
        return node_id

    def add_connection(self, source: str, output: str, target: str = "", input: str = "") -> None:
        """Bring an output of `source`, dots for depth, to an input of `target`. Both must be there."""
        if not input:
            raise RegistrationError(
                "A connection takes four names.",
                remedy=f'As in add_connection("{source}", "output", "{target or output}", "input").',
            )
        if target not in self._nodes and output in self._nodes:
            raise RegistrationError(
                "A connection takes the source's output second and the target third.",
                remedy=f'Write add_connection("{source}", "{target}", "{output}", "{input}").',
            )
        for name in (source, target):
            if name not in self._nodes:
                raise RegistrationError(
                    f"There is no node '{name}' to connect.", remedy=did_you_mean(name, self._nodes)
                )
        self._connections.append(Connection(source, tuple(output.split(".")), target, input))

    def build(self) -> Workflow:
        """The workflow as declared so far. Raises RegistrationError when it is empty or goes in a circle."""
        if not self._nodes:
            raise RegistrationError("A workflow needs at least one node.", remedy="Add one with add_node().")
        graph = Graph(dict(self._nodes), tuple(self._connections))
        return Workflow(graph, tuple(self._inputs.values()), self._description)

    def as_operation(self, name: str, registry: Registry) -> Operation:
        return self.build().as_operation(name, registry)


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot be the name of {what}.", remedy="Use letters, digits, '_' and '-'."
        )
