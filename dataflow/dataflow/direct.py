"""What a program does with models directly, as whom, and in which transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol, TypeVar

from dataflow.face import Caller, ModelFace
from dataflow.model import Model
from dataflow.sync import SyncDirect
from nexus.call import IN_PROCESS, Call
from nexus.errors import ConfigurationError, Retryable, did_you_mean
from nexus.ports import Isolation, Terms
from nexus.runtime import ATTEMPTS, Runtime, pause
from nexus.session import LOCAL, Session
from nexus.transaction import Transaction

T = TypeVar("T")

_LEVELS = ("read_committed", "repeatable_read", "serializable")


class Source(Protocol):
    """Whose models they are: a DataFlow."""

    @property
    def models(self) -> Mapping[str, Model]: ...

    @property
    def runtime(self) -> Runtime: ...


class Direct:
    """The models of a DataFlow by their routes, `db.products`, for one caller.

    A name that is taken by something else, as a model with the route `models` would have it, is reached by
    `model_face`.
    """

    def __init__(self, source: Source, caller: Caller) -> None:
        self._source = source
        self.caller = caller

    @property
    def runtime(self) -> Runtime:
        """What runs the operations: that of the application, else one of its own."""
        return self._source.runtime

    def __getattr__(self, name: str) -> ModelFace:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'.")
        routes = [model.route for model in self._source.models.values()]
        if name not in routes:
            raise AttributeError(f"There is no model '{name}' here. {did_you_mean(name, routes)}".rstrip())
        return ModelFace(self, name)

    def model_face(self, name: str) -> ModelFace:
        """The operations of the model with this name, route or table. Raises AttributeError."""
        known = {
            spelling: model
            for model in self._source.models.values()
            for spelling in (model.table_name, model.route, model.name)
        }
        if name not in known:
            raise AttributeError(f"There is no model '{name}' here. {did_you_mean(name, known)}".rstrip())
        return ModelFace(self, known[name].route)

    def as_session(self, session: Session) -> Direct:
        """The same for another caller: with the rights of `session`."""
        return self._for(replace(self.caller, session=session))

    def within(self, seconds: float) -> Direct:
        """The same, where each operation is cancelled, in the database too, after so many seconds."""
        return self._for(replace(self.caller, timeout=seconds))

    @property
    def sync(self) -> SyncDirect:
        """The same for programs without an event loop."""
        return SyncDirect(self)

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False, timeout: float | None = None
    ) -> TransactionBlock:
        """`async with db.transaction() as tx:` — all that is done directly inside, in this task and in those
        started inside, is kept together at the end, or not at all. Blocks may be nested: an inner one that
        raises is rolled back alone.

        Raises ConfigurationError for an isolation level that there is not."""
        if isolation is not None and isolation not in _LEVELS:
            shown = str(isolation)[:40]
            raise ConfigurationError(
                f"There is no isolation level '{shown}'.", remedy=did_you_mean(shown.lower(), _LEVELS)
            )
        work = Transaction(
            self.runtime,
            self.caller.session,
            LOCAL,
            channel=IN_PROCESS,
            terms=Terms(isolation, read_only),
            timeout=self.caller.timeout if timeout is None else timeout,
        )
        return TransactionBlock(self, work)

    async def run_in_transaction(
        self,
        function: Callable[[Direct], Awaitable[T]],
        *,
        retries: int = ATTEMPTS,
        isolation: Isolation | None = None,
    ) -> T:
        """`await function(tx)` in a transaction, and again from the beginning, up to `retries` times, when
        the database gives up in favour of another one. Inside of a transaction it runs once: only the whole
        can begin anew."""
        attempt = 0
        while True:
            block = self.transaction(isolation=isolation)
            try:
                async with block as tx:
                    return await function(tx)
            except Retryable:
                if attempt >= retries or block.inner:
                    raise
            attempt += 1
            await pause(attempt)

    def in_call(self, call: Call) -> Direct:
        """The same as a part of `call`, wherever it is used."""
        return self._for(replace(self.caller, call=call))

    def _for(self, caller: Caller) -> Direct:
        return Direct(self._source, caller)


class TransactionBlock:
    """A transaction to be entered, once; `tx` is the models inside of it, wherever it is passed to."""

    def __init__(self, direct: Direct, work: Transaction) -> None:
        self._direct = direct
        self.work = work

    @property
    def inner(self) -> bool:
        """Whether it is a part of another one."""
        return self.work.inner

    async def __aenter__(self) -> Direct:
        return self._direct.in_call(await self.work.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.work.__aexit__(kind, error, trace)
