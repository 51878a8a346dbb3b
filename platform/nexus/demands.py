"""What a caller may ask of one invocation beside its arguments, alike on every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nexus.errors import InvalidInput
from nexus.operation import Operation

if TYPE_CHECKING:
    from nexus.runs.runs import Runs


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """With an idempotency `key`, what was done before under it, by this session and with the same input, is
    not done again: the answer is that of the first time. What only reads has nothing to repeat, and ignores
    it. In the `background` the answer is Started, as soon
    as the run is recorded.
    """

    key: str | None = None
    background: bool = False


NONE = Demands()


class Noted(msgspec.Struct):
    """What is told of an answer beside it, to a caller who gives one of these to be filled: `replayed` says
    that it is that of an earlier time, and nothing was done."""

    replayed: bool = False


def check_demands(operation: Operation, demands: Demands, runs: Runs | None) -> None:
    """Raises InvalidInput for what cannot be honoured."""
    if demands.background and not (operation.recorded and runs is not None):
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot go on in the background.",
            remedy="Wait for its result.",
        )
