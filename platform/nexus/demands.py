"""What a caller may ask of one invocation beside its arguments, alike on every channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from nexus.errors import InvalidInput
from nexus.operation import Effect, Operation

if TYPE_CHECKING:
    from nexus.runs.runs import Runs


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """With an idempotency `key`, what was done before under it, by this session and with the same input, is
    not done again: the answer is that of the first time. In the `background` the answer is Started, as soon
    as the run is recorded.

    A `dry_run` does everything, constraints included, answers as if it were kept, and is rolled back: numbers
    that the database generates may be used up. Where more than `max_affected` records would be written, none
    is, and TooManyAffected is raised.
    """

    key: str | None = None
    background: bool = False
    dry_run: bool = False
    max_affected: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def whole(self) -> bool:
        """Whether all that is done must be one transaction, since it may have to be undone."""
        return self.dry_run or self.max_affected is not None


NONE = Demands()


def check_demands(operation: Operation, demands: Demands, runs: Runs | None) -> None:
    """Raises InvalidInput for what cannot be honoured."""
    recorded = operation.recorded and runs is not None
    if demands.whole:
        _check_whole(operation, demands)
    if demands.background and not recorded:
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot go on in the background.",
            remedy="Wait for its result.",
        )
    if demands.key is not None and not recorded and operation.effect is Effect.RUN:
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot have an idempotency key.",
        )


def _check_whole(operation: Operation, demands: Demands) -> None:
    what = "a dry run" if demands.dry_run else "a limit to the records that it writes"
    if demands.max_affected is not None and demands.max_affected < 0:
        raise InvalidInput("The limit to the records that are written is negative.")
    if operation.effect is not Effect.READ and not operation.undoable:
        raise InvalidInput(
            f"'{operation.name}' cannot have {what}: not all that it does can be rolled back together.",
            remedy="Run it without, or what it consists of one by one.",
        )
    if demands.dry_run and (demands.background or demands.key is not None):
        other = "go on in the background" if demands.background else "have an idempotency key"
        raise InvalidInput(f"A dry run keeps nothing: it cannot {other}.")
