"""Own nodes: a function, or a class with a method, that workflows know by its name."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nexus.arguments import Arguments
from nexus.call import Call
from nexus.errors import RegistrationError
from nexus.results import Result, plain
from nexus_workflows.errors import NodeFailed, told
from nexus_workflows.nodes.awaiting import BLOCKED, Watched, blocked
from nexus_workflows.steps import Given, Gives, Reach, Takes

logger = logging.getLogger("nexus.workflows")

_METHODS = ("run", "execute", "async_run")


@dataclass(frozen=True, slots=True)
class OwnKind:
    """`make` gives what is called for one node: a function, or a method of an object of its own."""

    name: str
    origin: str
    make: Callable[[], Callable[..., Any]]
    arguments: Arguments
    output: Any
    reach: Reach
    wants_call: bool


_kinds: dict[str, OwnKind] = {}


def own_kind(name: str) -> OwnKind | None:
    return _kinds.get(name)


def own_names() -> list[str]:
    return list(_kinds)


def node(target: Any = None, *, name: str = "", pure: bool = False, waits: bool = False) -> Any:
    """Make a node of a function, or of a class with a method `run`: a decorator. Its annotations are the
    parameters, its name is that of the node.

        @node
        def slug(title: str, limit: int = 40) -> str: ...

    `pure` promises that it uses nothing but its arguments: it may then run beside and before what writes.
    `waits` says that it waits for the world outside: no transaction is kept open meanwhile. A parameter
    `call` is given the Call. Raises RegistrationError for what cannot be a node, or where the name is
    taken."""
    if target is None:
        return functools.partial(node, name=name, pure=pure, waits=waits)
    if pure and waits:
        raise RegistrationError("A node that waits for the world outside is not pure.")
    reach = Reach.NOTHING if pure else Reach.WAITS if waits else Reach.ANYTHING
    kind = _kind_of(target, name or target.__name__, reach)
    know(kind)
    target.__nexus_node__ = kind.name
    return target


def know(kind: OwnKind) -> None:
    """Let workflows find it; from the same place it takes the place of the one before. Raises
    RegistrationError where the name is taken."""
    known = _kinds.get(kind.name)
    if known is not None and known.origin != kind.origin:
        raise RegistrationError(f"There is a node '{kind.name}' already, from {known.origin}.")
    _kinds[kind.name] = kind


def _kind_of(target: Any, name: str, reach: Reach) -> OwnKind:
    origin = f"{target.__module__}.{target.__qualname__}"
    function, make = target, lambda: target
    if isinstance(target, type):
        method = next((each for each in _METHODS if callable(getattr(target, each, None))), None)
        if method is None:
            raise RegistrationError(f"'{name}' needs a method 'run', with the parameters of the node.")
        function = getattr(target, method)
        make = lambda: getattr(target(), method)  # noqa: E731
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if isinstance(target, type):
        parameters = parameters[1:]
    struct = _struct(name, [each for each in parameters if each.name != "call"], hints)
    return OwnKind(
        name=name,
        origin=origin,
        make=make,
        arguments=Arguments(name, struct),
        output=hints.get("return", Any),
        reach=reach,
        wants_call=any(each.name == "call" for each in parameters),
    )


def _struct(name: str, parameters: list[inspect.Parameter], hints: Mapping[str, Any]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
            raise RegistrationError(f"'{name}': the parameter '{each.name}' must have a name of its own.")
        default = () if each.default is each.empty else (_default(each.default),)
        fields.append((each.name, hints.get(each.name, Any), *default))
    return msgspec.defstruct(
        f"{name}Parameters", fields, forbid_unknown_fields=True, kw_only=True, module="nexus_workflows.own"
    )


def _default(value: Any) -> Any:
    if isinstance(value, (dict, list, set)):
        return msgspec.field(default_factory=functools.partial(type(value), value))
    return value


class OwnStep:
    """An own node in a workflow. A class has an object for each node."""

    def __init__(self, node_id: str, kind: OwnKind) -> None:
        self.node = node_id
        self.kind = kind
        self.reach = kind.reach
        self._function = kind.make()
        self.stoppable = inspect.iscoroutinefunction(self._function)
        fields = kind.arguments.fields
        self._names = tuple(fields)
        self.takes = Takes(
            types={name: field.type for name, field in fields.items()},
            required=frozenset(name for name, field in fields.items() if field.required),
        )
        self.gives = Gives(_outputs(kind.output))

    async def run(self, call: Call, given: Given) -> Any:
        accepted = self.kind.arguments.accept(given.arguments, in_process=call.in_process)
        arguments = {name: getattr(accepted, name) for name in self._names}
        if self.kind.wants_call:
            arguments["call"] = call
        try:
            clock = asyncio.get_running_loop().time
            begun = clock()
            made = self._function(**arguments)
            if inspect.iscoroutine(made):
                made = await Watched(made, self.node)
            elif (seconds := clock() - begun) > BLOCKED:
                blocked(self.node, seconds)
        except SystemExit as failure:
            raise NodeFailed(f"Node '{self.node}' tried to end the program.") from failure
        return self._result(made)

    def _result(self, made: Any) -> Any:
        try:
            value = plain(made)
        except (TypeError, ValueError, RecursionError, OverflowError) as failure:
            raise NodeFailed(
                f"Node '{self.node}': what it gives is not data: {told(failure)}.",
                remedy="Give numbers, texts, dates, lists and dictionaries.",
            ) from None
        return value if isinstance(value, dict) else Result(result=value)


def _outputs(output: Any) -> Mapping[str, Any] | None:
    if isinstance(output, type) and issubclass(output, msgspec.Struct):
        return {field.encode_name: field.type for field in msgspec.structs.fields(output)}
    if output in (str, int, float, bool):
        return {"result": output}
    return None
