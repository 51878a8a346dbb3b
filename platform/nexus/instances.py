"""The sources of operations that are alive in this process, for workflows that belong to no application."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Hashable, Iterable, Mapping
from typing import Protocol

from nexus.errors import RegistrationError, UnknownOperation, did_you_mean
from nexus.operation import Operation


class Instance(Protocol):
    """One of them: a DataFlow. Two with equal `identity` have the same data; `shapes` say for each model what
    its table is."""

    @property
    def name(self) -> str: ...

    @property
    def spellings(self) -> frozenset[str]:
        """What it may be called: its name, its database's, its URL."""

    @property
    def identity(self) -> Hashable: ...

    @property
    def shapes(self) -> Mapping[str, Hashable]: ...

    @property
    def nodes(self) -> Mapping[str, Operation]:
        """Its operations by the names of their nodes, and by their own."""


_generation = 0
_alive: weakref.WeakSet[Instance] = weakref.WeakSet()
_lock = threading.Lock()


def announce(instance: Instance) -> None:
    """Let its nodes be found, those that are new, too."""
    global _generation
    with _lock:
        _generation += 1
        _alive.add(instance)


def withdraw(instance: Instance) -> None:
    """It is closed: nothing of it is found any more, until it is announced again."""
    global _generation
    with _lock:
        _generation += 1
        _alive.discard(instance)


def generation() -> int:
    """Another number after every change of what can be found."""
    return _generation


def alive() -> list[Instance]:
    with _lock:
        return list(_alive)


def find(node: str, wanted: str = "") -> Operation:
    """The operation that `node` means, in the instance called `wanted` or, where that is empty, in the only
    one that has it. Raises UnknownOperation, and RegistrationError where several have it."""
    found = _having(node, wanted)
    if len(found) > 1:
        gc.collect()  # one that nobody can reach any more may still be waiting for its end
        found = _having(node, wanted)
    if not found:
        raise _unknown(node, wanted)
    if len(found) > 1:
        names = ", ".join(sorted(f"'{instance.name}'" for instance in found))
        raise RegistrationError(
            f"'{node}' is defined by several instances: {names}.",
            remedy='Say which, with the parameter "db_instance", or WorkflowBuilder(registry=db).',
        )
    return found[0].nodes[node]


def _having(node: str, wanted: str) -> list[Instance]:
    kept: dict[Hashable, Instance] = {}
    for instance in _called(wanted):
        operation = instance.nodes.get(node)
        if operation is not None:
            kept[instance.identity, instance.shapes.get(operation.model)] = instance
    return list(kept.values())


def _called(wanted: str) -> Iterable[Instance]:
    return [instance for instance in alive() if not wanted or wanted in instance.spellings]


def _unknown(node: str, wanted: str) -> UnknownOperation | RegistrationError:
    if wanted and not list(_called(wanted)):
        names = [instance.name for instance in alive()]
        return RegistrationError(f"There is no instance '{wanted}'.", remedy=did_you_mean(wanted, names))
    where = f" in '{wanted}'" if wanted else ""
    known = {name for instance in _called(wanted) for name in instance.nodes}
    return UnknownOperation(f"There is no node '{node}'{where}.", remedy=did_you_mean(node, known))
