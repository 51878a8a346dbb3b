"""@workflow: a workflow declared as a function, whose calls become nodes.

    @workflow
    def restock(flow: Flow, product_id: int, quantity: int = 1) -> Reference:
        found = flow.add("ProductReadNode", "find", id=product_id)
        return flow.add("ProductUpdateNode", "add", id=found.id, fields={"stock": {"$inc": quantity}})

The function is run once, when it is declared. Its parameters are the inputs of the workflow, what it returns
is the output, and what stands for a value is a Reference: it can be handed on and looked into, no more.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from nexus.errors import RegistrationError
from nexus_workflows.builder import WorkflowBuilder
from nexus_workflows.workflow import Workflow


class Reference:
    """What a node will give, or an input of the run; `found.records[0].id` is a part of it."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return Reference(f"{self._path}.{name}")

    def __getitem__(self, key: str | int) -> Reference:
        return Reference(f"{self._path}.{key}")

    def __repr__(self) -> str:
        return f"{{{{{self._path}}}}}"

    def __bool__(self) -> NoReturn:
        raise _unknown(self)

    def __eq__(self, other: object) -> NoReturn:
        raise _unknown(self)

    def __lt__(self, other: object) -> NoReturn:
        raise _unknown(self)

    def __gt__(self, other: object) -> NoReturn:
        raise _unknown(self)

    def __iter__(self) -> NoReturn:
        raise RegistrationError(
            f"The items of {self!r} are not known before the workflow runs.",
            remedy='Repeat with a node: flow.add("LoopNode", …, items=…).',
        )

    __hash__ = object.__hash__


class Flow:
    """Takes the nodes of a function."""

    def __init__(self, builder: WorkflowBuilder) -> None:
        self._builder = builder

    def add(self, node_type: Any, node_id: str, *, after: Any = (), **parameters: Any) -> Reference:
        """Add a node, as WorkflowBuilder.add_node; references in its parameters are what they stand for. It
        runs `after` other nodes, or after an output of a switch: `after=which.true_output`."""
        self._builder.add_node(node_type, node_id, _spelt(parameters))
        for other in after if isinstance(after, (list, tuple)) else [after]:
            source, _, output = repr(other).strip("{}").partition(".")
            self._builder.add_connection(source, output or "result", node_id, "input")
        return Reference(node_id)


def workflow(
    function: Callable[..., Any] | None = None, *, transaction: typing.Literal["auto", "none"] = "auto"
) -> Any:
    """Make a Workflow of a function `(flow, **inputs)`; a decorator. Its docstring is the description. Raises
    RegistrationError for what is no workflow."""
    if function is None:
        return lambda wanted: _traced(wanted, transaction)
    return _traced(function, transaction)


def _traced(function: Callable[..., Any], transaction: typing.Literal["auto", "none"]) -> Workflow:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if inspect.iscoroutinefunction(function) or not parameters:
        raise RegistrationError(f"'{function.__name__}' must be 'def {function.__name__}(flow, …)'.")
    builder = WorkflowBuilder(" ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()))
    inputs: dict[str, Any] = {}
    for each in parameters[1:]:
        known = hints.get(each.name, Any)
        inputs[each.name] = known if each.default is each.empty else (known, each.default)
    output = function(Flow(builder), **{name: Reference(name) for name in inputs})
    return builder.build(
        function.__name__,
        inputs=inputs,
        output=None if output is None else _spelt(output),
        transaction=transaction,
    )


def _spelt(value: Any) -> Any:
    """The value with each reference as a template."""
    if isinstance(value, Reference):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spelt(item) for item in value]
    return value


def _unknown(reference: Reference) -> RegistrationError:
    return RegistrationError(
        f"The value of {reference!r} is not known before the workflow runs.",
        remedy='Decide with a node: flow.add("SwitchNode", …, condition="…").',
    )
