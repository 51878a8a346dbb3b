"""One call that lasts for a block of a program: `async with`."""

from __future__ import annotations

import contextvars
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from nexus.call import CURRENT, Call, joined, session_for
from nexus.deadline import deadline_in, timed_out, until
from nexus.errors import InvalidInput
from nexus.operation import Effect, Operation
from nexus.ports import Terms
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.runtime import Runtime

_WHAT = "The transaction"


async def _nothing(call: Call, arguments: object) -> None:
    """A block has no handler: its body is the program's."""


_WRITING = Operation("transaction", _nothing, effect=Effect.RUN, internal=True)
_READING = Operation("transaction", _nothing, effect=Effect.READ, internal=True)


class Transaction:
    """All that is done directly inside, also by tasks that are started inside, commits at the end together,
    or is rolled back when the block raises. Inside of another one, or of an atomic operation, it is a part
    that is rolled back alone.

    A session that is None is the one of the call around it, else `default`. After `timeout` seconds what is
    awaited is cancelled, and TimedOut raised. Raises InvalidInput for terms that a part cannot have.
    """

    def __init__(
        self,
        runtime: Runtime,
        session: Session | None,
        default: Session,
        *,
        channel: str,
        terms: Terms,
        timeout: float | None = None,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._default = default
        self._channel = channel
        self._terms = terms
        self._timeout = timeout
        self._around: Call | None = None
        self._call: Call | None = None
        self._limit = AsyncExitStack()
        self._before: contextvars.Token[Call | None] | None = None

    @property
    def inner(self) -> bool:
        """Whether it is a part of another transaction, and not one by itself."""
        return self._around is not None and self._around.atomic

    async def begin(self) -> Call:
        """Begin without making it the current one; `end` must follow. For blocks that are not entered in an
        event loop."""
        if self._call is not None:
            raise InvalidInput("A transaction is entered once.", remedy="Make a new one.")
        around = joined(self._session)
        if around is not None:
            self._call = await self._part(around)
        else:
            self._call = Call(
                self._runtime,
                session_for(self._session, self._default),
                _READING if self._terms.read_only else _WRITING,
                self._channel,
                terms=self._terms,
                deadline=deadline_in(self._timeout),
            )
        return self._call

    async def end(self, failure: BaseException | None) -> None:
        """Commit, or roll back when there was a failure."""
        call = self._call
        assert call is not None
        if failure is None and call.deadline is not None and call.loop.time() >= call.deadline:
            failure = timed_out(_WHAT)
            await call.rollback()
            raise failure
        if failure is not None:
            await call.rollback()
            return
        await call.commit()
        if not self.inner:
            call.runtime.wake(call)
            if self._around is not None and call.written:
                self._around.kept = True

    async def __aenter__(self) -> Call:
        call = await self.begin()
        if call.deadline is not None:
            await self._limit.enter_async_context(until(call.deadline, _WHAT))
        self._before = CURRENT.set(call)
        return call

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            CURRENT.reset(self._before)
        try:
            await self._limit.__aexit__(kind, failure, trace)
        except BaseException as late:  # the cancellation as what it means
            await self.end(late)
            raise
        await self.end(failure)

    async def _part(self, around: Call) -> Call:
        if around.atomic and self._terms != Terms() and self._terms != around.terms:
            raise InvalidInput(
                "An inner transaction cannot have an isolation level or a mode of its own.",
                remedy="Give them to the outermost one.",
            )
        self._around = around
        part = await around.inside(self._terms)
        limit = deadline_in(self._timeout)
        if limit is not None:
            part.deadline = limit if part.deadline is None else min(limit, part.deadline)
        return part
