"""A workflow: checked against the registry, it becomes one operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from nexus.call import Call
from nexus.errors import RegistrationError, did_you_mean
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus_workflows.graph import ORDER, Graph, Node
from nexus_workflows.runner import Plan, Step
from nexus_workflows.values import Template, placeholders, templates
from nexus_workflows.version import version_of


class WorkflowRun(msgspec.Struct):
    """What running a workflow gives: each node's result, by its id."""

    run_id: str
    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Input:
    """A run input that is declared; `default` holds one value or none."""

    name: str
    annotation: Any = Any
    description: str = ""
    default: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Workflow:
    graph: Graph
    inputs: tuple[Input, ...]
    description: str

    def __post_init__(self) -> None:
        self.graph.order()

    def as_operation(self, name: str, registry: Registry) -> Operation:
        """The workflow as an operation. Raises UnknownOperation for a node that nothing defines and
        RegistrationError for parameters or connections that do not fit."""
        steps = [self._step(node, registry) for node in self.graph.order()]
        plan = Plan(tuple(steps), self.graph)

        async def run(call: Call, arguments: msgspec.Struct) -> WorkflowRun:
            return WorkflowRun(call.run_id or "", await plan.run(call, msgspec.structs.asdict(arguments)))

        return Operation(
            name=name,
            handler=run,
            input=self._struct(name, steps),
            output=WorkflowRun,
            effect=Effect.RUN,
            summary=self.description or f"Run {', '.join(node.id for node in self.graph.nodes.values())}.",
            atomic=plan.needs_transaction(),
            recorded=True,
            version=version_of(self.graph, self.inputs),
        )

    def _step(self, node: Node, registry: Registry) -> Step:
        operation = registry[node.kind]
        accepted = operation.arguments.fields
        connected = {connection.input for connection in self.graph.into(node.id)}
        ordering = {ORDER} - set(accepted)
        wanted = set(placeholders(dict(node.parameters)))
        if missing := wanted - connected:
            raise RegistrationError(f"Node '{node.id}': no connection brings ':{min(missing)}'.")
        given = set(node.parameters) | (connected - ordering - wanted)
        for argument in sorted(given - set(accepted) - operation.managed):
            if argument in operation.later:
                raise RegistrationError(
                    f"Node '{node.id}': the parameter '{argument}' of {node.kind} is not available yet."
                )
            raise RegistrationError(
                f"Node '{node.id}': {node.kind} has no parameter '{argument}'.",
                remedy=did_you_mean(argument, accepted),
            )
        for argument, field in accepted.items():
            if field.required and argument not in given:
                raise RegistrationError(f"Node '{node.id}': {node.kind} needs the parameter '{argument}'.")
        return Step(node, operation)

    def _struct(self, name: str, steps: list[Step]) -> type[msgspec.Struct]:
        declared = {given.name: given for given in self.inputs}
        used = {
            template.path[0]
            for node in self.graph.nodes.values()
            for template in templates(dict(node.parameters))
            if template.path[0] not in self.graph.nodes
        }
        if unused := [given for given in declared if given not in used]:
            raise RegistrationError(f"{name}: the input '{unused[0]}' is declared and not used.")
        for undeclared in sorted(used - set(declared)):
            declared[undeclared] = Input(undeclared, _inferred(undeclared, steps))
        fields: list[Any] = [
            (
                i.name,
                Annotated[i.annotation, msgspec.Meta(description=i.description or None)],
                *i.default,
            )
            if i.description
            else (i.name, i.annotation, *i.default)
            for i in declared.values()
        ]
        return msgspec.defstruct(
            f"{name}Input",
            fields,
            forbid_unknown_fields=True,
            kw_only=True,
            module="nexus_workflows.inputs",
        )


def _inferred(name: str, steps: list[Step]) -> Any:
    """The type of the argument that the input is given to, where that is one type."""
    types = list(_uses(name, steps))
    return types[0] if types and all(wanted == types[0] for wanted in types) else Any


def _uses(name: str, steps: list[Step]) -> Iterator[Any]:
    for step in steps:
        for argument, value in step.node.parameters.items():
            if value == Template((name,)) and argument in step.operation.arguments.fields:
                wanted = step.operation.arguments.fields[argument].type
                yield Any if _may_be_unset(wanted) else wanted
            elif any(template.path[0] == name for template in templates(value)):
                yield Any


def _may_be_unset(wanted: Any) -> bool:
    return msgspec.UnsetType in getattr(wanted, "__args__", ())
