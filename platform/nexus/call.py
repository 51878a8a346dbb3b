"""One invocation, from the outer door to the commit."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from nexus.errors import NexusError, WriteInRead
from nexus.operation import Effect, Operation
from nexus.ports import Resource, Unit
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.arguments import Given
    from nexus.runtime import Runtime


_OUTSIDE = frozenset({"rest", "cli", "mcp", "websocket"})


class Call:
    """Who asked for which operation on which channel, and what is open on their behalf.

    Everything that runs inside shares it, and so commits or rolls back together. `atomic` says that the
    call may do more than one thing: its statements then go through one transaction per resource, begun at
    the first of them. Otherwise its one statement commits by itself.
    """

    __slots__ = (
        "_run_id",
        "_units",
        "atomic",
        "channel",
        "operation",
        "over",
        "runtime",
        "session",
        "written",
    )

    def __init__(self, runtime: Runtime, session: Session, operation: Operation, channel: str) -> None:
        self.runtime = runtime
        self.session = session
        self.operation = operation
        self.channel = channel
        self.atomic = operation.atomic and operation.effect is Effect.RUN
        self.over = False
        self.written: set[Resource] = set()
        self._units: dict[Resource, _OpenUnit] = {}
        self._run_id: str | None = None

    @property
    def in_process(self) -> bool:
        """Whether who asked is a part of this program, and so sees its warnings."""
        return is_in_process(self.channel)

    @property
    def run_id(self) -> str | None:
        """Names this invocation in the change log; None for a plain model operation."""
        if self._run_id is None and self.operation.effect is Effect.RUN:
            self._run_id = uuid.uuid4().hex
        return self._run_id

    async def run(self, name: str | Operation, arguments: Given) -> Any:
        """The inner door: run another operation inside this call, with the same session, the same checks
        and the same transaction."""
        operation = self.runtime.registry[name] if isinstance(name, str) else name
        self.runtime.policy.check(self.session, operation)
        accepted = operation.arguments.accept(arguments, in_process=self.in_process)
        return await operation.handler(self, accepted)

    @asynccontextmanager
    async def connection(
        self, resource: Resource, *, write: bool, statements: Literal["one", "many"] = "one"
    ) -> AsyncIterator[Any]:
        """A connection of `resource`: the call's transaction if there is one or must be one, else any free
        connection for one statement."""
        self._check_open()
        if write:
            if self.operation.effect is Effect.READ:
                raise WriteInRead(
                    f"'{self.operation.name}' is declared as reading and tried to write.",
                    remedy="Declare its effect as what it does.",
                )
            self.written.add(resource)
        unit = self._units.get(resource)
        may_write = self.operation.effect is not Effect.READ
        if unit is not None or (may_write and (self.atomic or statements == "many")):
            if unit is None:  # one connection for a call: a second could wait for the first for ever
                unit = self._units[resource] = _OpenUnit()
            async with unit.lock:
                self._check_open()  # it may have ended while this waited
                if unit.work is None:
                    unit.work = await resource.begin(self)
                yield unit.work.connection
        else:
            async with resource.lend(self, write=write) as connection:
                yield connection

    async def commit(self) -> None:
        """Commit what is open. Work on several resources commits one after the other: a failure rolls the
        remaining ones back, and says so."""
        self.over = True
        while self._units:
            _, unit = self._units.popitem()
            try:
                await _finish(unit.commit())
            except BaseException:
                await self.rollback()
                raise

    async def rollback(self) -> None:
        self.over = True
        units = list(self._units.values())
        self._units.clear()
        for unit in units:
            await _finish(unit.rollback())

    def _check_open(self) -> None:
        if self.over:
            raise NexusError(f"'{self.operation.name}' has ended: its call cannot be used any more.")


class _OpenUnit:
    """A transaction that begins when the first statement needs it; `lock` keeps statements one at a time,
    and the end after the last of them."""

    __slots__ = ("lock", "work")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.work: Unit | None = None

    async def commit(self) -> None:
        async with self.lock:
            if self.work is not None:
                await self.work.commit()

    async def rollback(self) -> None:
        async with self.lock:
            if self.work is not None:
                await self.work.rollback()


def is_in_process(channel: str) -> bool:
    return channel not in _OUTSIDE


async def _finish(work: Any) -> None:
    """Await to the end, even when the awaiting task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as request:
            cancelled = request
    task.result()
    if cancelled is not None:
        raise cancelled
