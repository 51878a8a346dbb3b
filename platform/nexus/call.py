"""One invocation, from the outer door to the commit."""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from nexus.block import Block
from nexus.deadline import until
from nexus.demands import NONE, Demands, check_demands
from nexus.errors import (
    InvalidInput,
    NexusError,
    Retryable,
    RunCancelled,
    TimedOut,
    TooManyAffected,
    Unavailable,
    WriteInRead,
)
from nexus.etag import Match
from nexus.operation import Effect, Operation
from nexus.ports import Progress, Resource, Terms, Unit
from nexus.request import REQUEST
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.arguments import Given
    from nexus.runtime import Runtime

USUAL = Terms()
_UNLOCKED = Terms(read_only=True)

CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("nexus_call", default=None)
"""The call that the running task works for; what a program does directly joins it."""

NESTED: contextvars.ContextVar[bool] = contextvars.ContextVar("nexus_nested_workflow", default=False)
"""Whether the running task works inside a workflow that is itself a node of another: of that one, only the
node is to be seen."""


IN_PROCESS = "python"
"""The channel of a program that uses its own models."""


class Call:
    """Who asked for which operation on which channel, and what is open on their behalf.

    Everything that runs inside shares it, and so commits or rolls back together. `atomic` says that the
    call may do more than one thing: its statements then go through one transaction per resource, begun at
    the first of them, by its `terms`. Otherwise its one statement commits by itself; `kept` says that this
    has happened, `unsure` that a part may have been committed and nobody heard. After `deadline` statements
    are cancelled. `progress` is told of a workflow's nodes. `match` says in which state the record must be
    that the operation is about. `request` is the id of what it is done for. By its `demands` it may be a
    `dry` one, which is rolled back whatever happens; `affected` counts the records that it has written.
    """

    # What most calls never have is not set on each, as there is one for every request.
    affected = 0
    kept = False
    match: Match | None = None
    over = False
    progress: Progress | None = None
    unsure = False
    _around: Call | None = None
    _whole: Call | None = None  # what it is a part of
    _block: Block | None = None
    _run_id: str | None = None

    def __init__(
        self,
        runtime: Runtime,
        session: Session,
        operation: Operation,
        channel: str,
        *,
        terms: Terms | None = None,
        deadline: float | None = None,
        demands: Demands = NONE,
    ) -> None:
        self.runtime = runtime
        self.session = session
        self.operation = operation
        self.channel = channel
        self.terms = terms or USUAL
        self.deadline = deadline
        self.demands = demands
        self.atomic = (
            terms is not None
            or (operation.atomic and operation.effect is Effect.RUN)
            or (demands.whole and operation.effect is not Effect.READ)
        )
        self.request = REQUEST.get()
        self.written: set[Resource] = set()
        self.loop = asyncio.get_running_loop()

    @property
    def in_process(self) -> bool:
        """Whether who asked is a part of this program, and so sees its warnings."""
        return is_in_process(self.channel)

    @property
    def opened(self) -> bool:
        """Whether there is a transaction, which is to be ended."""
        return self._block is not None

    @property
    def freely(self) -> bool:
        """Whether one statement of it that reads may use any connection, and there is nothing to tell of it
        afterwards."""
        return not (self.over or self.atomic or self._block is not None)

    @property
    def dry(self) -> bool:
        """Whether it will be rolled back, whatever it does."""
        return self.demands.dry_run

    @property
    def run_id(self) -> str | None:
        """Names this invocation in the change log; None for a plain model operation."""
        if self._run_id is None and self.operation.effect is Effect.RUN:
            self._run_id = uuid.uuid4().hex
        return self._run_id

    @property
    def repeatable(self) -> bool:
        """Whether it can begin anew after a rollback: nothing of it was kept."""
        undone = self.atomic or self._block is not None or self.operation.effect is not Effect.RUN
        return undone and not self.kept

    async def run(self, name: str | Operation, arguments: Given) -> Any:
        """The inner door: run another operation inside this call, with the same session, the same checks
        and the same transaction."""
        operation = self.runtime.registry[name] if isinstance(name, str) else name
        self.runtime.policy.check(self.session, operation)
        if self.demands.whole and not operation.undoable:
            check_demands(operation, Demands(dry_run=self.dry, max_affected=self.demands.max_affected), None)
        accepted = operation.arguments.accept(arguments, in_process=self.in_process)
        if self.progress is None or operation.digest is None:
            return await operation.handler(self, accepted)
        before = NESTED.set(True)
        try:
            return await operation.handler(self, accepted)
        finally:
            NESTED.reset(before)

    async def inside(self, terms: Terms = USUAL) -> Call:
        """Begin a part that ends with its own commit or rollback. Of an atomic call it is undone alone and
        kept with the rest, whose statements wait until it ends; else it is a transaction of its own."""
        self.check()
        part = Call(
            self.runtime,
            self.session,
            self.operation,
            self.channel,
            terms=self.terms if self.atomic else terms,
            deadline=self.deadline,
            demands=self.demands,
        )
        part._run_id = self.run_id
        part.progress = self.progress
        if not self.atomic:
            part._around = self
        else:
            part.written = self.written
            part._whole = self
            part._block = await self._opened().inside()
        return part

    @asynccontextmanager
    async def together(self) -> AsyncIterator[Call]:
        """This call, where all that it does is one transaction anyway; else a part of it that is."""
        if self.atomic:
            yield self
            return
        part = await self.inside()
        try:
            yield part
        except BaseException:
            await part.rollback()
            raise
        await part.commit()
        self.took(part)

    def without_locks(self) -> Call:
        """The same work, for reading what it does not write: such records may change meanwhile."""
        if not self.atomic:
            return self
        reading = Call(
            self.runtime, self.session, self.operation, self.channel, terms=_UNLOCKED, deadline=self.deadline
        )
        reading._run_id, reading.written, reading._block = self.run_id, self.written, self._opened()
        return reading

    def adopt(self, part: Call) -> None:
        """Let a part that was a transaction of its own end with this call, which does nothing after it."""
        part.over = True
        self.written |= part.written
        self._block = part._block

    def took(self, part: Call) -> None:
        """Count what a part that was a transaction of its own has committed as this call's."""
        if part.written:
            self.written |= part.written
            self.kept = True

    def wrote(self, records: int) -> None:
        """Count records that were created, changed or deleted, while that can still be undone. Raises
        TooManyAffected beyond what is allowed."""
        if self.demands.max_affected is None:
            return
        self.affected += records
        self.check_affected()

    def check_affected(self) -> None:
        """Raises TooManyAffected beyond what is allowed."""
        most = self.demands.max_affected
        if most is None:
            return
        count, around = self.affected, self._whole
        while around is not None:
            count, around = count + around.affected, around._whole
        if count > most:
            raise TooManyAffected(
                f"{count} records would be written, and at most {most} may be. Nothing was kept.",
                remedy="Narrow what is asked for, or allow more.",
            )

    def check(self) -> None:
        """Raises NexusError when the call cannot be used, or not from here."""
        if self.over:
            raise NexusError(
                f"'{self.operation.name}' has ended: its call cannot be used any more.",
                remedy="Wait for every task that works in it before it ends.",
            )
        if self.loop is not asyncio.get_running_loop():
            raise NexusError(
                f"The call of '{self.operation.name}' belongs to another event loop.",
                remedy="Use the asynchronous face where it was begun, the synchronous one with its own.",
            )

    def connection(
        self, resource: Resource, *, write: bool, statements: Literal["one", "many"] = "one"
    ) -> AbstractAsyncContextManager[Any]:
        """A connection of `resource`: the call's transaction if there is one or must be one, else any free
        connection for one statement."""
        if self.over:
            self.check()
        alone = self.commits_alone(resource) if write else self.freely
        if not alone or statements == "many":
            return self._working(resource, write, statements)
        # There is nothing to keep or to undo but, of a write, that it has been done.
        lent = resource.lend(self, write=write)
        return _Kept(self, lent) if write else lent

    def commits_alone(self, resource: Resource) -> bool:
        """Whether a statement that writes to `resource` now is a transaction by itself, of which there is
        only to be said that it was `kept`. Raises WriteInRead."""
        if self.over:
            self.check()
        if self.operation.effect is Effect.READ:
            raise WriteInRead(
                f"'{self.operation.name}' is declared as reading and tried to write.",
                remedy="Declare its effect as what it does.",
            )
        self.written.add(resource)
        return not (self.atomic or self._block is not None)

    @asynccontextmanager
    async def _working(self, resource: Resource, write: bool, statements: str) -> AsyncIterator[Any]:
        if self.atomic or self._block is not None or self._is_whole(statements):
            limit = nullcontext() if self.deadline is None else until(self.deadline, self.operation.name)
            async with limit, self._opened().use(resource) as work:
                yield work.connection
            return
        if statements == "many" and self.operation.effect is not Effect.READ:
            async with self._alone(resource) as connection:
                yield connection
        else:
            async with resource.lend(self, write=write) as connection:
                yield connection
        self.kept = self.kept or write

    async def commit(self) -> None:
        """Commit what is open. Work on several resources commits one after the other: a failure rolls the
        remaining ones back, and says so."""
        self.over = True
        if self._whole is not None:
            self._whole.affected += self.affected
        if self._block is None:
            return
        try:
            await self._block.keep()
        except BaseException as failure:
            if self._around is not None and is_unheard(failure):
                self._around.unsure = True
            raise

    async def rehearse(self) -> None:
        """Raise what the commit would, and roll back."""
        try:
            self.check_affected()
            if self._block is not None:
                await self._block.rehearse()
        finally:
            await self.rollback()

    async def rollback(self) -> None:
        self.over = True
        if self._block is not None and not self._block.over:
            await self._block.undo()

    def _is_whole(self, statements: str) -> bool:
        """A model's operation that needs several statements has a transaction as well. Once it is open every
        statement goes there: a second connection could wait for the first for ever."""
        return statements == "many" and self.operation.effect not in (Effect.READ, Effect.RUN)

    @asynccontextmanager
    async def _alone(self, resource: Resource) -> AsyncIterator[Any]:
        """A transaction for as many statements as one write takes."""
        block = Block(self._begin)
        try:
            async with block.use(resource) as work:
                yield work.connection
        except BaseException:
            await block.undo()
            raise
        await block.keep()

    def _opened(self) -> Block:
        if self._block is None:
            self._block = Block(self._begin)
        return self._block

    async def _begin(self, resource: Resource) -> Unit:
        return await resource.begin(self)


class _Kept:
    """One statement that commits by itself. A class, since every write comes through here, and a generator
    with contextlib around it takes several times as long."""

    __slots__ = ("_call", "_lent")

    def __init__(self, call: Call, lent: AbstractAsyncContextManager[Any]) -> None:
        self._call = call
        self._lent = lent

    async def __aenter__(self) -> Any:
        return await self._lent.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        swallowed = await self._lent.__aexit__(kind, error, trace)
        if kind is None:
            self._call.kept = True
        return swallowed


def is_unheard(failure: BaseException | None) -> bool:
    """Whether what was to be committed may have been, for all that is known after this failure."""
    unheard = (asyncio.CancelledError, RunCancelled, TimedOut, Unavailable)
    return isinstance(failure, unheard) and not isinstance(failure, Retryable)


def is_in_process(channel: str) -> bool:
    return channel == IN_PROCESS


def joined(session: Session | None) -> Call | None:
    """The call that direct work for `session` is a part of; None when it is a call of its own. An atomic call
    takes everything: raises InvalidInput for another session, NexusError when it has ended."""
    call = CURRENT.get()
    if call is None:
        return None
    stranger = session not in (None, call.session)
    bound = call.atomic or (call.dry and not call.over)
    if not bound and (stranger or call.over or call.loop is not asyncio.get_running_loop()):
        return None
    call.check()
    if stranger:
        raise InvalidInput(
            f"The transaction around this belongs to '{call.session.user}'.",
            remedy="Use one session inside of a transaction.",
        )
    return call


def session_for(session: Session | None, default: Session) -> Session:
    """Whom direct work is for: whom was said, else whom the running operation is for."""
    call = CURRENT.get()
    return session or (default if call is None else call.session)
