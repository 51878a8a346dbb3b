"""What a node does when its turn comes: an operation, or a step that belongs to the runner."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from nexus.call import Call
from nexus.operation import Effect, Operation
from nexus.results import plain


class Reach(enum.Enum):
    """What running a step may touch. NOTHING: only its inputs. WAITS: the world outside, for long, which no
    transaction must wait for."""

    NOTHING = "nothing"
    READS = "reads"
    WRITES = "writes"
    ANYTHING = "anything"
    WAITS = "waits"


@dataclass(slots=True)
class Given:
    """What a step is given: its arguments, the result of each node that is connected to it, the inputs of the
    run, and all that templates may speak of."""

    arguments: dict[str, Any]
    sources: Mapping[str, Any]
    inputs: Mapping[str, Any]
    scope: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Takes:
    """The arguments of a step by name, with their types. An `open` step takes others, too. `refused` says why
    one that is documented cannot be given."""

    types: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    managed: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True, slots=True)
class Gives:
    """The outputs of a step by name, with their types; None where only a run can tell. `routes` are those of
    which a run takes some, and the nodes behind the others do not run."""

    types: Mapping[str, Any] | None = None
    routes: frozenset[str] = frozenset()


class Step(Protocol):
    """One node's work, made when the workflow is checked."""

    @property
    def reach(self) -> Reach: ...

    @property
    def takes(self) -> Takes: ...

    @property
    def gives(self) -> Gives: ...

    @property
    def stoppable(self) -> bool:
        """Whether it awaits, and so can be cancelled."""

    async def run(self, call: Call, given: Given) -> Any: ...


class OperationStep:
    """An operation, run through the call's inner door."""

    stoppable = True

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        if operation.effect is Effect.RUN:
            self.reach = Reach.WAITS if operation.waits else Reach.ANYTHING
        else:
            self.reach = Reach.READS if operation.effect is Effect.READ else Reach.WRITES
        fields = operation.arguments.fields
        self.takes = Takes(
            types={name: given.type for name, given in fields.items()},
            required=frozenset(name for name, given in fields.items() if given.required),
            managed=operation.managed,
            refused=operation.refused,
            members=operation.types,
        )
        self.gives = Gives(_outputs(operation.output))

    async def run(self, call: Call, given: Given) -> Any:
        return plain(await call.run(self.operation, given.arguments))


def _outputs(output: Any) -> Mapping[str, Any] | None:
    if not (isinstance(output, type) and issubclass(output, msgspec.Struct)):
        return None
    return {given.encode_name: given.type for given in msgspec.structs.fields(output)}
