"""Where nodes are found: steps of the runner, own nodes, operations of a registry or of the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nexus import instances
from nexus.errors import RegistrationError, UnknownOperation, did_you_mean, nearest
from nexus.operation import Operation
from nexus.registry import Registry
from nexus_workflows.expression import Expression
from nexus_workflows.nodes import delay, loop, merge, switch
from nexus_workflows.nodes.code import CodeStep, compile_code
from nexus_workflows.nodes.own import OwnStep, own_kind, own_names
from nexus_workflows.steps import OperationStep, Step
from nexus_workflows.values import parse

GENERIC = frozenset(
    f"{verb}Node"
    for verb in (
        "Aggregate",
        "BulkCreate",
        "BulkDelete",
        "BulkUpdate",
        "BulkUpsert",
        "Count",
        "Create",
        "Delete",
        "List",
        "Read",
        "Update",
        "Upsert",
    )
)
"""Nodes whose parameter `model` says which model they are about."""

CODE = frozenset({"PythonCodeNode", "AsyncPythonCodeNode"})
LOOPS = frozenset({"LoopNode", "MapNode"})
STEPS: Mapping[str, frozenset[str]] = {
    "AsyncPythonCodeNode": frozenset({"code"}),
    "DelayNode": frozenset(),
    "LoopNode": loop.PARAMETERS - {"items"},
    "MapNode": loop.PARAMETERS - {"items"},
    "MergeNode": merge.PARAMETERS,
    "PythonCodeNode": frozenset({"code"}),
    "SwitchNode": switch.PARAMETERS,
}
"""The runner's own nodes, with the parameters that make them what they are."""


class Finder(Protocol):
    """Finds the operation that a name means; `wanted` is the instance that it is to be from, or empty."""

    def __call__(self, name: str, wanted: str) -> Operation: ...


def prepare(kind: str, node: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a node, read. Raises RegistrationError for what can be seen to be wrong."""
    own: dict[str, Any] = {}
    if kind in CODE:
        own["code"] = compile_code(node, config.get("code"), asynchronous=kind != "PythonCodeNode")
    elif kind == "SwitchNode":
        own = {name: config[name] for name in switch.PARAMETERS & config.keys()}
        for name in ("condition", "value"):
            if own.get(name) is not None:
                own[name] = Expression(own[name])
    elif kind in LOOPS:
        own["parameters"] = loop.Body(config.get("parameters", {}))
    return {name: own[name] if name in own else parse(value) for name, value in config.items()} | own


def make_step(kind: str, node: str, config: Mapping[str, Any], find: Callable[[str], Operation]) -> Step:
    """What does the work of a node. Raises UnknownOperation with the nearest name, RegistrationError."""
    match kind:
        case "PythonCodeNode" | "AsyncPythonCodeNode":
            return CodeStep(node, config["code"])
        case "SwitchNode":
            return switch.SwitchStep(node, config)
        case "MergeNode":
            return merge.MergeStep(node, config)
        case "DelayNode":
            return delay.DelayStep(node)
        case "LoopNode" | "MapNode":
            return _loop(node, config, find)
    own = own_kind(kind)
    if own is not None:
        return OwnStep(node, own)
    try:
        return OperationStep(find(kind))
    except UnknownOperation as failure:
        near = nearest(kind, [*STEPS, *own_names()])
        if near is None or "Did you mean" in failure.remedy:
            raise
        raise UnknownOperation(failure.detail, remedy=f"Did you mean '{near}'?") from None


def _loop(node: str, config: Mapping[str, Any], find: Callable[[str], Operation]) -> Step:
    kind = config.get("node")
    if not isinstance(kind, str) or kind in STEPS:
        raise RegistrationError(
            f"Node '{node}': a loop needs 'node', the name of an operation, a workflow or an own node."
        )
    body: loop.Body = config["parameters"]
    inner = make_step(kind, node, {}, find)
    accepted = inner.takes
    for name in body.parameters:
        if not accepted.open and name not in accepted.types and name not in accepted.managed:
            raise RegistrationError(
                f"Node '{node}': {kind} has no parameter '{name}'.", remedy=did_you_mean(name, accepted.types)
            )
    if missing := accepted.required - body.parameters.keys():
        raise RegistrationError(f"Node '{node}': {kind} needs the parameter '{min(missing)}'.")
    return loop.LoopStep(node, body, inner, config.get("concurrency", 1))


def in_registry(registry: Registry) -> Finder:
    """The operations of one application, or of one DataFlow."""

    def find(name: str, wanted: str) -> Operation:
        found = registry[name]
        if wanted and found.source != wanted:
            known = [each for each in instances.alive() if each.name == found.source]
            if not any(wanted in each.spellings for each in known):
                raise RegistrationError(
                    f"'{name}' belongs to the instance '{found.source}' here, and not to '{wanted}'."
                )
        return found

    return find


def in_application(registry: Registry) -> Finder:
    """The operations of an application, and where it has none of that name, those of every instance that is
    alive: a DataFlow need not be attached for a workflow to use it."""
    own = in_registry(registry)

    def find(name: str, wanted: str) -> Operation:
        try:
            return own(name, wanted)
        except UnknownOperation as failure:
            try:
                return in_process(name, wanted)
            except UnknownOperation:
                raise failure from None

    return find


def in_process(name: str, wanted: str) -> Operation:
    """The operations of every instance that is alive."""
    return instances.find(name, wanted)


def only_in(source: Any) -> Finder:
    """The nodes of one DataFlow, or of one application."""
    nodes = getattr(source, "nodes", None)
    if nodes is None:
        return in_registry(source.runtime.registry)

    def find(name: str, wanted: str) -> Operation:
        if wanted and wanted not in source.spellings:
            raise RegistrationError(
                f"The workflow uses the instance '{source.name}' only, and not '{wanted}'."
            )
        known: Mapping[str, Operation] = source.nodes
        if name not in known:
            raise UnknownOperation(
                f"There is no node '{name}' in '{source.name}'.", remedy=did_you_mean(name, known)
            )
        return known[name]

    return find
