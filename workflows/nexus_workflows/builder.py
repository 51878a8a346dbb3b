"""WorkflowBuilder: declares a workflow node by node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from nexus.errors import RegistrationError, did_you_mean
from nexus.operation import Operation
from nexus.registry import Registry
from nexus_workflows.errors import InvalidConnection
from nexus_workflows.graph import Connection, Graph, Node
from nexus_workflows.nodes.catalogue import prepare
from nexus_workflows.values import parse
from nexus_workflows.workflow import Input, Workflow

_NAME = re.compile(r"[A-Za-z_][\w-]*")


class WorkflowBuilder:
    """Collects nodes and connections; `build` makes the workflow of them.

        restock = WorkflowBuilder("Add to a product's stock.")
        restock.add_input("quantity", int)
        restock.add_node("ProductUpdateNode", "add", {"id": "{{product_id}}", "fields": {…}})

    Everything that can be known to be wrong raises RegistrationError where it is declared, or at
    registration. `registry` is a DataFlow or an application whose nodes alone are to be used.
    """

    def __init__(self, description: str = "", *, registry: Any = None) -> None:
        self._description = description
        self._registry = registry
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

    def add_node(self, node_type: Any, node_id: str, config: object = None) -> str:
        """Add a node that runs the operation `node_type`, such as `ProductUpdateNode`, or one of the runner's
        or own nodes, with these parameters. Returns the id."""
        if not isinstance(config, Mapping | None):
            raise RegistrationError(
                "A node is added with its type, its id and its parameters.",
                remedy='As in add_node("ProductReadNode", "find", {"id": 1}).',
            )
        _check_name(node_id, "a node")
        if node_id in self._nodes:
            raise RegistrationError(f"There is a node '{node_id}' already.")
        kind = node_type if isinstance(node_type, str) else getattr(node_type, "__nexus_node__", None)
        if kind is None:
            raise RegistrationError(
                f"Node '{node_id}': {node_type!r:.80} is not a node.", remedy="Make one of it with @node."
            )
        try:
            self._nodes[node_id] = Node(node_id, kind, prepare(kind, node_id, config or {}))
        except RecursionError:
            raise RegistrationError(f"Node '{node_id}': its parameters are nested without end.") from None
        return node_id

    def add_connection(self, source: str, output: str, target: str = "", input: str = "") -> None:
        """Bring an output of `source`, dots for depth, to an input of `target`. Both must be there."""
        if not input:
            raise InvalidConnection(
                "A connection takes four names.", remedy=f"Write {self._four(source, output, target)}."
            )
        if target not in self._nodes and output in self._nodes:
            raise InvalidConnection(
                "A connection takes the source's output second and the target third.",
                remedy=f'Write add_connection("{source}", "{target}", "{output}", "{input}").',
            )
        for name in (source, target):
            if name not in self._nodes:
                raise InvalidConnection(
                    f"There is no node '{name}' to connect.", remedy=did_you_mean(name, self._nodes)
                )
        self._connections.append(Connection(source, tuple(output.split(".")), target, input))

    def build(
        self,
        name: str = "workflow",
        *,
        inputs: Mapping[str, Any] | None = None,
        output: Any = None,
        output_type: Any = None,
        transaction: Literal["auto", "none"] = "auto",
        max_concurrent_nodes: int = 10,
    ) -> Workflow:
        """The workflow as declared so far.

        `inputs` are types of run inputs by name, or `(type, default)`. `output` is what a run gives, with
        templates, instead of every node's result; `output_type` is its type, for those who call. With
        `transaction="none"` each write is kept as it is made. At most `max_concurrent_nodes` run at once
        where an application runs it; a runtime has a limit of its own. Raises RegistrationError for a
        workflow that is empty or goes in a circle."""
        if not self._nodes:
            raise RegistrationError("A workflow needs at least one node.", remedy="Add one with add_node().")
        _check_name(name, "a workflow")
        if transaction not in ("auto", "none"):
            raise RegistrationError(
                f"transaction={transaction!r:.40} cannot be honoured.", remedy="Known: auto, none."
            )
        if max_concurrent_nodes < 1:
            raise RegistrationError("max_concurrent_nodes is 1 or more.")
        declared = dict(self._inputs)
        for key, given in (inputs or {}).items():
            _check_name(key, "an input")
            declared[key] = (
                Input(key, given[0], "", tuple(given[1:])) if isinstance(given, tuple) else Input(key, given)
            )
        return Workflow(
            Graph(dict(self._nodes), tuple(self._connections), self._handlers()),
            tuple(declared.values()),
            self._description,
            name=name,
            output=None if output is None else parse(output),
            output_type=Any if output_type is None else output_type,
            atomic=transaction == "auto",
            registry=self._registry,
            limit=max_concurrent_nodes,
        )

    def as_operation(self, name: str, registry: Registry) -> Operation:
        return self.build().as_operation(name, registry)

    def _handlers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in self._nodes.values():
            said = node.parameters.get("on_error")
            if isinstance(said, Mapping) and isinstance(handler := said.get("goto", said.get("node")), str):
                found[node.id] = handler
        return found

    def _four(self, source: str, output: str, target: str) -> str:
        """The call that was probably meant by three names."""
        if output in self._nodes:
            return f'add_connection("{source}", "{target}", "{output}", "{target}")'
        return f'add_connection("{source}", "{output}", "{target}", "{output}")'


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{name!r} cannot be the name of {what}.", remedy="Use letters, digits, '_' and '-'."
        )
