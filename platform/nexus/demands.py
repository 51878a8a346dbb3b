"""What a caller may ask of one invocation beside its arguments, alike on every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nexus.errors import InvalidInput
from nexus.operation import Effect, Operation

if TYPE_CHECKING:
    from nexus.runs.runs import Runs


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """With an idempotency `key`, what was done before under it, by this session and with the same input, is
    not done again: the answer is that of the first time. In the `background` the answer is Started, as soon
    as the run is recorded.
    """

    key: str | None = None
    background: bool = False


NONE = Demands()


def check_demands(operation: Operation, demands: Demands, runs: Runs | None) -> None:
    """Raises InvalidInput for what cannot be honoured."""
    recorded = operation.recorded and runs is not None
    if demands.background and not recorded:
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot go on in the background.",
            remedy="Wait for its result.",
        )
    if demands.key is not None and not recorded and operation.effect is Effect.RUN:
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot have an idempotency key.",
        )
