"""Node: own nodes as classes that describe their parameters in a dictionary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from nexus.arguments import Arguments
from nexus_workflows.nodes.own import OwnKind, know
from nexus_workflows.steps import Reach

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
    """Let workflows know a subclass of Node, by `alias` or its own name; a decorator. Raises
    RegistrationError where the name is taken."""

    def register(kind: T) -> T:
        name = alias or kind.__name__
        know(
            OwnKind(
                name=name,
                origin=f"{kind.__module__}.{kind.__qualname__}",
                make=lambda: kind().run,
                arguments=Arguments(name, _struct(name, kind().get_parameters())),
                output=Any,
                reach=Reach.ANYTHING,
                wants_call=False,
            )
        )
        kind.__nexus_node__ = name  # type: ignore[attr-defined]
        return kind

    return register


def _struct(name: str, parameters: Mapping[str, NodeParameter]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for key, each in parameters.items():
        if each.default is not None:
            fields.append((key, each.type, each.default))
        elif each.required:
            fields.append((key, each.type))
        else:
            fields.append((key, each.type | None, None))
    return msgspec.defstruct(
        f"{name}Parameters", fields, forbid_unknown_fields=True, kw_only=True, module="nexus_workflows.own"
    )
