"""The only dictionary of operations. Channels look here at each request and keep no copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from nexus.errors import RegistrationError, UnknownOperation, did_you_mean, nearest
from nexus.operation import Operation

_NO_VERBS: Mapping[str, Operation] = MappingProxyType({})


class Registry:
    """Operations by name, by node name, by tool name, and by resource and verb.

    `version` grows with every change, and those who `watch` are told after it. Safe to change from any
    thread; a watcher is called in the thread of the change.
    """

    def __init__(self) -> None:
        self.version = 0
        self._operations: dict[str, Operation] = {}
        self._spellings: dict[str, Operation] = {}
        self._resources: dict[str, dict[str, Operation]] = {}
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def add(self, *operations: Operation) -> None:
        """Add all of them or, when a name is taken, none."""
        with self._lock:
            taken = dict(self._spellings)
            for operation in operations:
                for spelling in _spellings(operation):
                    if spelling in taken:
                        raise _taken(operation, spelling, taken[spelling])
                    taken[spelling] = operation
            resources = dict(self._resources)
            for operation in operations:
                if _is_placed(operation):
                    verbs = resources.get(operation.resource, _NO_VERBS)
                    resources[operation.resource] = {**verbs, operation.verb: operation}
            self._put({**self._operations, **{o.name: o for o in operations}}, taken, resources)
        self._announce()

    def replace(self, operation: Operation) -> None:
        """Put an operation in the place of the one of its name, if there is one. Raises RegistrationError
        where one of its spellings is another's."""
        with self._lock:
            for spelling in _spellings(operation):
                other = self._spellings.get(spelling)
                if other is not None and other.name != operation.name:
                    raise _taken(operation, spelling, other)
            self._rebuild({**self._operations, operation.name: operation})
        self._announce()

    def remove(self, *names: str) -> None:
        with self._lock:
            remaining = dict(self._operations)
            for name in names:
                del remaining[self[name].name]
            self._rebuild(remaining)
        self._announce()

    def __getitem__(self, name: str) -> Operation:
        """By any of its spellings; raises UnknownOperation with the nearest name."""
        found = self._spellings.get(name)
        if found is None:
            raise self.unknown(name)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._spellings

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def __len__(self) -> int:
        return len(self._operations)

    def public(self) -> list[Operation]:
        """What channels may offer."""
        return [operation for operation in self._operations.values() if not operation.internal]

    def standing(self) -> list[Operation]:
        """Those that belong to no resource, as workflows do."""
        return [operation for operation in self.public() if not (operation.resource or operation.platform)]

    def outside(self, name: str) -> Operation:
        """Like [name], for a caller from outside: an internal operation does not exist."""
        found = self[name]
        if found.internal:
            raise self.unknown(name)
        return found

    def verbs(self, resource: str) -> Mapping[str, Operation]:
        """The operations of one resource by verb; empty when there is no such resource."""
        return self._resources.get(resource, _NO_VERBS)

    def resources(self) -> list[str]:
        return list(self._resources)

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after each change; returns what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def unknown(self, name: str) -> UnknownOperation:
        """The error for a name that nothing here answers to."""
        near = nearest(name, [s for s, operation in self._spellings.items() if not operation.internal])
        remedy = f"Did you mean '{near}'?" if near else did_you_mean(name, [o.name for o in self.public()])
        shown = name if len(name) <= 80 else name[:80] + "…"
        return UnknownOperation(f"There is no operation '{shown}'.", remedy=remedy)

    def _rebuild(self, operations: dict[str, Operation]) -> None:
        resources: dict[str, dict[str, Operation]] = {}
        for operation in operations.values():
            if _is_placed(operation):
                resources.setdefault(operation.resource, {})[operation.verb] = operation
        spellings = {s: operation for operation in operations.values() for s in _spellings(operation)}
        self._put(operations, spellings, resources)

    def _put(
        self,
        operations: dict[str, Operation],
        spellings: dict[str, Operation],
        resources: dict[str, dict[str, Operation]],
    ) -> None:
        """New dictionaries in place of the old: a reader in another thread sees one or the other."""
        self._operations, self._spellings, self._resources = operations, spellings, resources
        self.version += 1

    def _announce(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()


def _is_placed(operation: Operation) -> bool:
    """Whether it is an operation of a resource that channels show."""
    return bool(operation.resource) and not operation.internal


def _taken(operation: Operation, spelling: str, other: Operation) -> RegistrationError:
    return RegistrationError(
        f"'{operation.name}' cannot be registered: '{spelling}' is the name of '{other.name}' already.",
        remedy="Remove that one first, or choose another name.",
    )


def _spellings(operation: Operation) -> set[str]:
    return {operation.name, operation.tool} | ({operation.node} if operation.node else set())
