"""From what was declared to a plan: every node found, every parameter and connection checked."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from nexus.errors import RegistrationError, UnknownOperation, did_you_mean
from nexus.operation import Operation
from nexus_workflows import care as cares
from nexus_workflows.checks import check_reachable, check_single
from nexus_workflows.conversion import converter, converts
from nexus_workflows.errors import InvalidConnection, InvalidParameter
from nexus_workflows.graph import ORDER, Connection, Graph, Node
from nexus_workflows.nodes.catalogue import CODE, GENERIC, STEPS, Finder, make_step
from nexus_workflows.nodes.code import CodeStep
from nexus_workflows.nodes.loop import LoopStep
from nexus_workflows.nodes.merge import MergeStep
from nexus_workflows.nodes.stream import STREAMING, StreamStep, can_stream, pages_of
from nexus_workflows.nodes.switch import SwitchStep
from nexus_workflows.plan import ALWAYS, Brought, Conditions, Edge, Plan, Planned, Stream
from nexus_workflows.steps import OperationStep, Step, Takes
from nexus_workflows.streams import Level, Streams
from nexus_workflows.values import GIVEN, Placeholder, Template, Typed, is_constant, placeholders, templates

_ANY_OUTPUT = ("data", "result")
_DECIDING = frozenset({"filter", "conditions", "include"})
"""Inputs that decide which models a read looks at."""
_AROUND = cares.PARAMETERS | cares.PLACE | {"model"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a workflow is to be run."""

    name: str
    atomic: bool = True
    limit: int = 10


@dataclass(slots=True)
class _Found:
    """A node, what does its work, and its parameters: the step's own, and those about the node."""

    node: Node
    step: Step
    parameters: dict[str, Any]
    about: dict[str, Any]


class Planner:
    """Makes one plan. Raises UnknownOperation for a node that nothing defines, RegistrationError for what
    does not fit."""

    def __init__(self, graph: Graph, find: Finder, settings: Settings) -> None:
        self._graph = graph
        self._find = find
        self._settings = settings
        self._into = graph.into
        self._needs = graph.needs
        self._order = graph.order
        self._steps: dict[tuple[str, str], OperationStep] = {}
        self._numbers = {node.id: number for number, node in enumerate(self._order)}
        self._found: list[_Found] = []
        self._controlled = False
        self._handled: dict[str, list[str]] = {}
        for failing, handler in graph.handlers.items():
            self._handled.setdefault(handler, []).append(failing)

    @property
    def found(self) -> list[_Found]:
        return self._found

    def plan(self) -> Plan:
        self._found = [self._look(node) for node in self._order]
        self._tell_demanded()
        self._controlled = bool(self._graph.handlers) or any(
            isinstance(found.step, SwitchStep) for found in self._found
        )
        nodes = tuple(self._planned(number, found) for number, found in enumerate(self._found))
        switches = {node.index: node.step for node in nodes if isinstance(node.step, SwitchStep)}
        outside, streams = self._laid_out(), dict[int, Stream]()
        plan = Plan(
            name=self._settings.name,
            nodes=nodes,
            after=outside.after,
            segments=outside.segments,
            atomic=self._settings.atomic,
            limit=self._settings.limit,
            switches=switches,
            controlled=self._controlled,
            streams=streams,
        )
        streams.update(self._in_pages(plan))
        if plan.controlled:
            check_reachable(plan)
        else:
            check_single(nodes)
        return plan

    def check_end(self, template: Template) -> None:
        """Refuse to ask at the end of a run for what was only there with a page."""
        number = self._numbers.get(template.source, -1)
        remains = self.streams.remains(number) if number >= 0 else ()
        if remains and len(template.path) > 1 and template.path[1] not in (*remains, *_ANY_OUTPUT):
            raise RegistrationError(
                f"The output asks for '{'.'.join(template.path)}', of which each page has its own.",
                remedy=f"Gather it in a MergeNode with 'pages': True; there remain {' and '.join(remains)}.",
            )

    def _laid_out(self) -> Level:
        """The nodes of the workflow but for those inside of streams."""
        before = [[self._numbers[name] for name in self._needs[node.id]] for node in self._order]
        steps = [found.step for found in self._found]
        self.streams = Streams([node.id for node in self._order], steps, before, self._beside())
        return self.streams.level(())

    def _in_pages(self, plan: Plan) -> Iterator[tuple[int, Stream]]:
        """What runs for each page of each stream."""
        streams = self.streams
        for number in streams.numbers:
            inside = streams.level((*streams.places[number], number))
            gathered = []
            for node in plan.nodes:
                for each in node.brought if node.gathers else ():
                    own = (edge for edge in each.edges if streams.within(edge.source)[-1] == number)
                    if edges := tuple(own):
                        gathered.append((node.index, replace(each, edges=edges)))
            body = replace(plan, segments=inside.segments, after=inside.after)
            yield number, Stream(body, streams.members(number), tuple(gathered), streams.locks(number))

    def _beside(self) -> dict[int, frozenset[str] | None]:
        """The models that nodes look at besides their own: through relations in filters, by `include`."""
        beside: dict[int, frozenset[str] | None] = {}
        for number, found in enumerate(self._found):
            step = _operation_of(found.step)
            if not isinstance(step, OperationStep) or step.operation.also_reads is None:
                continue
            brought = any(each.input in _DECIDING for each in self._into.get(found.node.id, ()))
            unknown = brought or isinstance(found.step, LoopStep)
            beside[number] = None if unknown else step.operation.also_reads(found.parameters)
        return {number: models for number, models in beside.items() if models is None or models}

    def _look(self, node: Node) -> _Found:
        given = node.parameters
        kind = _kind(node)
        step = pages_of(node.id, self._with_brought(node), self._step_of(kind, node))
        if not given:
            return _Found(node, step, {}, {})
        accepted = step.takes.types
        config = STREAMING if can_stream(step) else STEPS.get(kind, frozenset())
        about = {name: given[name] for name in _AROUND & given.keys() if name not in accepted}
        if isinstance(step, CodeStep):
            about.pop("model", None)
        elif node.kind in GENERIC and "model" in given:
            about["model"] = given["model"]
        own = {name: value for name, value in given.items() if name not in about and name not in config}
        self._check_place(node, step, about)
        return _Found(node, step, own, about)

    def _with_brought(self, node: Node) -> Mapping[str, Any]:
        """The parameters of a node, and what connections will bring as what is not known."""
        brought = {each.input: Placeholder(each.input) for each in self._into.get(node.id, ())}
        return {**node.parameters, **brought} if "streaming" in node.parameters else node.parameters

    def _step_of(self, kind: str, node: Node) -> Step:
        place = next((name for name in ("db_instance", "database") if name in node.parameters), "")
        wanted = node.parameters[place] if place else ""
        try:
            if isinstance(wanted, str):
                return self._step(kind, node, wanted)
            raise RegistrationError(f"Node '{node.id}': the instance is said by its name.")
        except UnknownOperation:
            if node.kind in GENERIC and kind == node.kind:
                raise RegistrationError(
                    f"Node '{node.id}': {node.kind} needs the parameter 'model'."
                ) from None
            raise
        except RegistrationError:
            field = self._with_field(kind, node, place) if place else None
            if field is None:
                raise
            return field

    def _with_field(self, kind: str, node: Node, name: str) -> Step | None:
        """Where the model has a field of that name, it is the field that is meant."""
        try:
            step = self._step(kind, node, "")
        except (RegistrationError, UnknownOperation):
            return None
        return step if name in step.takes.types else None

    def _step(self, kind: str, node: Node, wanted: str) -> Step:
        known = self._steps.get((kind, wanted))  # operations keep nothing between nodes: one does for all
        if known is not None:
            return known

        def find(name: str) -> Operation:
            return self._find(name, wanted)

        step = make_step(kind, node.id, node.parameters, find)
        if isinstance(step, OperationStep):
            self._steps[kind, wanted] = step
        return step

    def _check_place(self, node: Node, step: Step, about: Mapping[str, Any]) -> None:
        operation = getattr(step, "operation", None)
        for name in ("db_instance", "database", "model_name", "model"):
            if name not in about:
                continue
            if operation is None or not operation.model:
                raise RegistrationError(f"Node '{node.id}': {node.kind} has no parameter '{name}'.")
            if name in ("model_name", "model") and about[name] != operation.model:
                raise RegistrationError(
                    f"Node '{node.id}': {node.kind} is about the model '{operation.model}',"
                    f" and not about '{about[name]}'."
                )

    def _tell_demanded(self) -> None:
        """Which variables of code are asked for by others."""
        demanded: dict[str, set[str]] = {}
        for connection in self._graph.connections:
            demanded.setdefault(connection.source, set()).add(connection.output[0])
        for found in self._found:
            for template in self._graph.templates[found.node.id]:
                if len(template.path) > 1:
                    demanded.setdefault(template.source, set()).add(template.path[1])
        for found in self._found:
            if isinstance(found.step, CodeStep):
                found.step.demand(frozenset(demanded.get(found.node.id, ())))

    def _planned(self, number: int, found: _Found) -> Planned:
        node, step, takes = found.node, found.step, found.step.takes
        care = cares.care_from(node.id, {k: v for k, v in found.about.items() if k in cares.PARAMETERS})
        if care is not None and care.timeout is not None and not step.stoppable:
            raise RegistrationError(
                f"Node '{node.id}': 'timeout' cannot be honoured, what does not await cannot be stopped.",
                remedy="Use an AsyncPythonCodeNode, or an async function.",
            )
        if care is not None and care.action != "fail" and isinstance(step, StreamStep):
            raise RegistrationError(
                f"Node '{node.id}': 'on_error' cannot be honoured: its pages have been handed on.",
                remedy="Use 'retry', or 'on_error' of the nodes that follow.",
            )
        connections = self._into.get(node.id, [])
        wanted = set(placeholders(found.parameters)) if found.parameters else set[str]()
        self._check_parameters(found, connections, wanted)
        constants, dynamic = self._split(found)
        brought = tuple(self._brought(found, connections, wanted))
        return Planned(
            index=number,
            id=node.id,
            step=step,
            care=care,
            constants=constants,
            dynamic=dynamic,
            brought=brought,
            direct=frozenset(each.input for each in brought if takes.open or each.input in takes.types)
            - (wanted - takes.types.keys() if takes.open else frozenset()),
            conditions=self._conditions(found, connections),
            sources=self._sources(found, connections),
            shows_given=self._is_asked(node.id),
            gathers=isinstance(step, MergeStep) and step.pages,
        )

    def _check_parameters(self, found: _Found, connections: list[Connection], wanted: set[str]) -> None:
        node, takes = found.node, found.step.takes
        connected = {connection.input for connection in connections}
        if missing := wanted - connected:
            raise InvalidConnection(f"Node '{node.id}': no connection brings ':{min(missing)}'.")
        given = set(found.parameters) | (connected - ({ORDER} - takes.types.keys()) - wanted)
        if not takes.open:
            for name in sorted(given - takes.types.keys() - takes.managed):
                if name in takes.refused:
                    raise RegistrationError(
                        f"Node '{node.id}': the parameter '{name}' of {node.kind} {takes.refused[name]}."
                    )
                raise InvalidParameter(
                    InvalidParameter.UNKNOWN,
                    f"Node '{node.id}': {node.kind} has no parameter '{name}'.",
                    remedy=did_you_mean(name, takes.types),
                )
        for name in takes.types:
            if name in takes.required and name not in given:
                detail = f"Node '{node.id}': {node.kind} needs the parameter '{name}'."
                raise InvalidParameter(InvalidParameter.MISSING, detail)
        for template in self._graph.templates[node.id]:
            if template.source in self._numbers:
                self._check_output(node, template.source, template.path)

    def _split(self, found: _Found) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
        constants: dict[str, Any] = {}
        dynamic: list[tuple[str, Any]] = []
        for name, value in found.parameters.items():
            if not is_constant(value):
                dynamic.append((name, _typed(value, found.step.takes, found.step.takes.types.get(name))))
            elif found.node.kind in CODE and isinstance(value, (dict, list)):
                dynamic.append((name, value))  # made anew for each run: code may change it
            else:
                constants[name] = value
                _check_constant(found, name, value)
        return constants, tuple(dynamic)

    def _brought(self, found: _Found, connections: list[Connection], wanted: set[str]) -> Iterator[Brought]:
        takes = found.step.takes
        several = sum(connection.input == ORDER for connection in connections) > 1
        edges: dict[str, list[Edge]] = {}
        for connection in connections:
            self._check_output(found.node, connection.source, (connection.source, *connection.output))
            orders = connection.input == ORDER and ORDER not in takes.types and ORDER not in wanted
            if orders and (not takes.open or several):
                continue
            edges.setdefault(connection.input, []).append(
                Edge(self._numbers[connection.source], connection.output)
            )
            self._check_types(found.node, connection, takes)
        for name, ways in edges.items():
            yield Brought(name, tuple(ways), converter(takes.types[name]) if name in takes.types else None)

    def _check_output(self, node: Node, source: str, path: tuple[str, ...]) -> None:
        """That an output which is asked for can be there."""
        found = self._found[self._numbers[source]]
        gives = found.step.gives.types
        if gives is None or len(path) < 2 or path[0].endswith(GIVEN) or "on_error" in found.about:
            return
        if path[1] not in gives and path[1] not in _ANY_OUTPUT:
            raise InvalidConnection(
                f"Node '{node.id}': '{source}' has no output '{path[1]}'.",
                remedy=did_you_mean(path[1], gives),
            )

    def _check_types(self, node: Node, connection: Connection, takes: Takes) -> None:
        gives = self._found[self._numbers[connection.source]].step.gives.types
        if gives is None or len(connection.output) > 1 or connection.input not in takes.types:
            return
        given = gives.get(connection.output[0], Any)
        if not converts(given, takes.types[connection.input]):
            raise InvalidConnection(
                f"Node '{node.id}': the output '{connection.output[0]}' of '{connection.source}' is of"
                f" another type than '{connection.input}'."
            )

    def _conditions(self, found: _Found, connections: list[Connection]) -> Conditions:
        """See the runner: of the ways from one switch, of those to one input, and of those that only order,
        one must have been taken."""
        if not self._controlled:
            return ALWAYS
        groups: dict[object, list[Edge]] = {}
        for connection in connections:
            source = self._numbers[connection.source]
            step = self._found[source].step
            edge = Edge(source, connection.output)
            if isinstance(step, SwitchStep) and connection.output[0] in step.gives.routes:
                groups.setdefault(("switch", source), []).append(edge)
            else:
                groups.setdefault(connection.input, []).append(edge)
        for template in self._graph.templates[found.node.id]:
            if template.source in self._numbers:
                edge = Edge(self._numbers[template.source], ())
                groups.setdefault(("template", template.source), []).append(edge)
        handled = self._handled.get(found.node.id, [])
        if len(handled) > 1:
            raise RegistrationError(f"Node '{found.node.id}' handles the failures of several nodes.")
        if handled:  # what it is told of the failure comes from the node that has failed
            own = self._numbers[handled[0]]
            groups = {
                key: edges for key, edges in groups.items() if all(edge.source != own for edge in edges)
            }
        return Conditions(
            groups=tuple(map(tuple, groups.values())),
            joins=isinstance(found.step, MergeStep),
            handles=self._numbers[handled[0]] if handled else -1,
        )

    def _sources(self, found: _Found, connections: list[Connection]) -> tuple[tuple[str, int], ...]:
        if not isinstance(found.step, CodeStep):
            return ()
        names = {connection.source for connection in connections}
        names.update(self._handled.get(found.node.id, ()))
        return tuple((name, self._numbers[name]) for name in sorted(names))

    def _is_asked(self, node: str) -> bool:
        if self._asked is None:
            self._asked = {
                template.source
                for found in self._graph.templates.values()
                for template in found
                if template.path[0].endswith(GIVEN)
            }
        return node in self._asked

    _asked: set[str] | None = None


def _operation_of(step: Step) -> Step:
    """What a loop repeats, or a stream reads; else the step itself."""
    if isinstance(step, LoopStep):
        return step.inner
    return step.source if isinstance(step, StreamStep) else step


def _kind(node: Node) -> str:
    model = node.parameters.get("model")
    if node.kind in GENERIC and isinstance(model, str):
        return f"{model}{node.kind}"
    return node.kind


def _typed(value: Any, takes: Takes, wanted: Any) -> Any:
    """A parsed value whose templates are converted to the type of the argument or the field they are for."""
    if isinstance(value, dict):
        return {key: _typed(item, takes, takes.members.get(key, wanted)) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, takes, wanted) for item in value]
    if is_constant(value) or wanted is None:
        return value
    convert = converter(wanted)
    return value if convert is None else Typed(value, convert)


def _check_constant(found: _Found, name: str, value: Any) -> None:
    wanted = found.step.takes.types.get(name)
    if wanted is None or wanted is Any:
        return
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as failure:
        reason = str(failure).replace("`", "")
        detail = f"Node '{found.node.id}': '{name}': {reason[:1].lower()}{reason[1:]}."
        raise InvalidParameter(InvalidParameter.TYPE, detail) from None


def _given(wanted: Any) -> Any:
    """The type of an argument that is given."""
    kinds = getattr(wanted, "__args__", ())
    if msgspec.UnsetType not in kinds:
        return wanted
    return functools.reduce(operator.or_, (kind for kind in kinds if kind is not msgspec.UnsetType))


def uses(found: list[_Found], name: str) -> Iterator[Any]:
    """The types of the arguments that an input of the run is given to."""
    for each in found:
        for argument, value in each.parameters.items():
            wanted = each.step.takes.types.get(argument, Any)
            if value == Template((name,)):
                yield _given(wanted)
            elif not isinstance(value, Placeholder) and any(t.source == name for t in templates(value)):
                yield Any
