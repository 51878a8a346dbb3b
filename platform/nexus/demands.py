"""What a caller may ask of one invocation beside its arguments, alike on every channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from nexus.errors import InvalidInput, PreconditionRequired
from nexus.etag import Match, parse_match
from nexus.operation import Effect, Operation

if TYPE_CHECKING:
    from nexus.runs.runs import Runs


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """With an idempotency `key`, what was done before under it, by this session and with the same input, is
    not done again: the answer is that of the first time. What only reads has nothing to repeat, and ignores
    it. In the `background` the answer is Started, as soon as the run is recorded. With `if_match`, one or
    more entity tags or `*`, a record is changed or deleted only in the state that one of them says; that
    holds for what is invoked, and for nothing that runs inside.

    A `dry_run` does everything, constraints included, answers as if it were kept, and is rolled back: numbers
    that the database generates may be used up. Where more than `max_affected` records would be written, none
    is, and TooManyAffected is raised.

    `sent` is by what a repetition is known where the arguments were only made of it, with defaults that may
    differ each time.
    """

    key: str | None = None
    background: bool = False
    dry_run: bool = False
    max_affected: Annotated[int, msgspec.Meta(ge=0)] | None = None
    if_match: str | None = None
    sent: Mapping[str, object] | None = None

    @property
    def whole(self) -> bool:
        """Whether all that is done must be one transaction, since it may have to be undone."""
        return self.dry_run or self.max_affected is not None

    @property
    def match(self) -> Match | None:
        """Raises InvalidInput for what is no tag."""
        return None if self.if_match is None else parse_match(self.if_match)


NONE = Demands()


class Noted(msgspec.Struct):
    """What is told of an answer beside it, to a caller who gives one of these to be filled: `replayed` says
    that it is that of an earlier time, and nothing was done."""

    replayed: bool = False


def check_demands(operation: Operation, demands: Demands, runs: Runs | None) -> None:
    """Raises InvalidInput for what cannot be honoured."""
    if demands.whole:
        _check_whole(operation, demands)
    if demands.background and not (operation.recorded and runs is not None):
        raise InvalidInput(
            f"Runs of '{operation.name}' are not recorded: it cannot go on in the background.",
            remedy="Wait for its result.",
        )
    if demands.match is not None and not operation.matches:
        raise InvalidInput(
            f"'{operation.name}' cannot have 'if_match': it is not about one record that is there.",
            remedy="Leave it out.",
        )


def check_matched(operation: Operation, arguments: Any, demands: Demands | None) -> None:
    """Raises PreconditionRequired for a change that must say which state of the record it is meant for."""
    given = demands is not None and demands.if_match is not None
    if not given and operation.asks_match is not None and operation.asks_match(arguments):
        raise PreconditionRequired(
            f"'{operation.name}' must say which state of the record it is meant for.",
            remedy="Read the record, and give its tag as if_match (If-Match over HTTP)."
            if operation.matches
            else "It cannot: change or delete the records one by one, with if_match.",
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
