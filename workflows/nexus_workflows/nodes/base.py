"""Node: own nodes as classes that describe their parameters in a dictionary."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nexus.errors import RegistrationError
from nexus_workflows.nodes.own import node

T = TypeVar("T", bound="type[Node]")


@dataclass(frozen=True, slots=True)
class NodeParameter:
    """One parameter. It is required unless there is a default."""

    name: str
    type: Any = Any
    required: bool = True
    default: Any = None
    description: str = ""


class Node(ABC):
    """A subclass says its parameters in `get_parameters` and does its work in `run(**parameters)`; with
    `@register_node()` workflows know it by its class's name."""

    @abstractmethod
    def get_parameters(self) -> Mapping[str, NodeParameter]: ...

    @abstractmethod
    def run(self, **parameters: Any) -> Any: ...


def register_node(alias: str | None = None) -> Callable[[T], T]:
    """Let workflows know a subclass of Node, by `alias` or its own name; a decorator."""

    def register(kind: T) -> T:
        if not (isinstance(kind, type) and issubclass(kind, Node)):
            raise RegistrationError(f"'{kind!r:.80}' is not a subclass of Node.")
        parameters = kind().get_parameters()

        class _Described:
            """What the node decorator reads: a method with the described parameters as its signature."""

            def __init__(self) -> None:
                self._node = kind()

            def run(self, **given: Any) -> Any:
                return self._node.run(**given)

        _describe(_Described.run, parameters)
        _Described.__module__, _Described.__qualname__ = kind.__module__, kind.__qualname__
        node(_Described, name=alias or kind.__name__)
        kind.__nexus_node__ = alias or kind.__name__  # type: ignore[attr-defined]
        return kind

    return register


def _describe(method: Any, parameters: Mapping[str, NodeParameter]) -> None:
    described = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, each in parameters.items():
        required = each.required and each.default is None
        described.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else each.default,
            )
        )
    method.__signature__ = inspect.Signature(described)
    method.__annotations__ = {
        name: each.type if each.required and each.default is None else each.type | None
        for name, each in parameters.items()
    }
