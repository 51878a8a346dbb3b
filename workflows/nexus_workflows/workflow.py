"""A workflow: checked against the registry, it becomes one operation."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from nexus import instances
from nexus.call import Call
from nexus.errors import RegistrationError
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus_workflows.graph import Graph, Node
from nexus_workflows.nodes.catalogue import CODE, Finder, in_application, only_in
from nexus_workflows.nodes.code import Code
from nexus_workflows.planner import Planner, Settings, uses
from nexus_workflows.progress import report_to_log
from nexus_workflows.runner import run_plan
from nexus_workflows.values import Template, fill, templates
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


@dataclass(frozen=True, slots=True, eq=False)
class Workflow:
    """What a builder has built. `output` is a parsed value that is filled at the end of a run."""

    graph: Graph
    inputs: tuple[Input, ...]
    description: str
    name: str = "workflow"
    output: Any = None
    output_type: Any = Any
    atomic: bool = True
    registry: Any = None
    limit: int = 10
    plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.graph.order  # noqa: B018 - a cycle is an error here

    def as_operation(self, name: str, registry: Registry) -> Operation:
        """The workflow as an operation. Raises UnknownOperation for a node that nothing defines and
        RegistrationError for parameters or connections that do not fit."""
        if self.registry is not None:
            return self.operation(name, only_in(self.registry), version=instances.generation)
        return self.operation(
            name, in_application(registry), version=lambda: (registry.version, instances.generation())
        )

    def operation(
        self,
        name: str,
        find: Finder,
        *,
        version: Any = None,
        limit: int | None = None,
        whole: bool = False,
        debug: bool = False,
        extra: Iterable[str] = (),
    ) -> Operation:
        """The same with nodes from wherever `find` finds them. When `version` gives another value than at
        planning, they are looked for anew. `whole` asks for every result, whatever the output is, `debug` for
        each node's time in the log; `extra` are inputs beside those that are known."""
        settings = Settings(name, self.atomic, limit or self.limit)
        planner = Planner(self.graph, find, settings)
        plan = planner.plan()
        planned: list[Any] = [plan, version() if version is not None else None]
        struct = self._struct(name, planner, extra)

        async def run(call: Call, arguments: msgspec.Struct) -> Any:
            now = version() if version is not None else None
            if now != planned[1]:
                planned[:] = [Planner(self.graph, find, settings).plan(), now]
            if debug:
                report_to_log(call)
            inputs = {
                key: value
                for key in arguments.__struct_fields__
                if (value := getattr(arguments, key)) is not UNSET
            }
            results = await run_plan(planned[0], call, inputs)
            run_id = call.run_id or ""
            if whole or self.output is None:
                return WorkflowRun(run_id, results)
            return output(run_id, fill(self.output, {**inputs, **results}, {}))

        output = self._output(name, planner)
        return Operation(
            name=name,
            handler=run,
            input=struct,
            output=output,
            effect=Effect.RUN,
            summary=self.description or f"Run {_named(self.graph.nodes)}.",
            atomic=False,
            waits=plan.waits,
            whole=self.atomic,
            recorded=True,
            digest=functools.partial(version_of, self.graph, self.inputs, self.output),
        )

    def _output(self, name: str, planner: Planner) -> Any:
        if self.output is None:
            return WorkflowRun
        self._check_output(planner)
        return msgspec.defstruct(
            f"{name}Output", [("run_id", str), ("output", self.output_type)], module="nexus_workflows.outputs"
        )

    def _check_output(self, planner: Planner) -> None:
        known = {given.name for given in self.inputs} | set(self.graph.nodes)
        for template in templates(self.output):
            if template.source not in known:
                raise RegistrationError(
                    f"The output asks for '{template.source}', which is no node and no input."
                )
            planner.check_end(template)

    def _struct(self, name: str, planner: Planner, extra: Iterable[str]) -> type[msgspec.Struct]:
        declared = {given.name: given for given in self.inputs}
        used = {
            template.source for found in self.graph.templates.values() for template in found
        } - self.graph.nodes.keys()
        fields = {given.name: _field(given) for given in declared.values()}
        for undeclared in sorted(used - set(declared)):
            types = list(uses(planner.found, undeclared))
            same = types and all(wanted == types[0] for wanted in types)
            fields[undeclared] = (undeclared, types[0] if same else Any)
        read, dynamic = self._read_by_code(planner)
        for undeclared, required in sorted(read.items()):
            if undeclared not in fields:
                fields[undeclared] = (undeclared, Any) if required else (undeclared, Any | UnsetType, UNSET)
        asked = used | read.keys() | {template.source for template in templates(self.output)}
        for node in self.graph.nodes.values():
            if node.kind in CODE:
                asked |= node.parameters["code"].reading.mentioned
        if not dynamic and (unused := [given for given in declared if given not in asked]):
            raise RegistrationError(f"{name}: the input '{unused[0]}' is declared and not used.")
        if dynamic:
            for undeclared in extra:
                fields.setdefault(undeclared, (undeclared, Any))
        return msgspec.defstruct(
            f"{name}Input",
            list(fields.values()),
            forbid_unknown_fields=True,
            kw_only=True,
            module="nexus_workflows.inputs",
        )

    def _read_by_code(self, planner: Planner) -> tuple[Mapping[str, bool], bool]:
        """The inputs that code reads, and whether they are required; and whether there may be others."""
        read: dict[str, bool] = {}
        dynamic = False
        into = self.graph.into
        for node in self.graph.nodes.values():
            if node.kind not in CODE:
                if node.kind == "SwitchNode":
                    read |= dict.fromkeys(_conditions(node, into.get(node.id, ())), True)
                continue
            code: Code = node.parameters["code"]
            brought = {connection.input for connection in into.get(node.id, ())}
            merges = bool(brought & {"input", "input_data"})
            dynamic = dynamic or code.reading.dynamic or merges
            for name in (code.reading.needed | code.reading.wanted) - brought - node.parameters.keys():
                required = name in code.reading.needed and not merges
                read[name] = read.get(name, False) or required
        return read, dynamic


def _conditions(node: Node, connections: Iterable[Any]) -> set[str]:
    asked = node.parameters.get("condition") or node.parameters.get("value")
    known = {connection.input for connection in connections} | node.parameters.keys()
    return set(getattr(asked, "names", ())) - known


def _field(given: Input) -> Any:
    annotation = given.annotation
    if given.description:
        annotation = Annotated[annotation, msgspec.Meta(description=given.description)]
    if given.default and isinstance(given.default[0], (dict, list)):
        made = given.default[0]
        return (given.name, annotation, msgspec.field(default_factory=lambda: type(made)(made)))
    return (given.name, annotation, *given.default)


def _named(nodes: Mapping[str, Node]) -> str:
    names = list(nodes)
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def inferred_output(value: Any) -> Any:
    """The JSON form of an output: an object where several values are named."""
    if isinstance(value, dict):
        return dict[str, Any]
    return Any if isinstance(value, Template) else type(value)
