"""The synchronous face: the same operations, awaited in the one event loop of the process for such calls."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dataflow.face import ModelFace, Verb
from nexus import blocking
from nexus.call import CURRENT, Call
from nexus.errors import Retryable
from nexus.ports import Isolation
from nexus.runtime import ATTEMPTS, pause
from nexus.session import Session

if TYPE_CHECKING:
    from dataflow.app import DataFlow
    from dataflow.direct import Direct, TransactionBlock

T = TypeVar("T")


class SyncDirect:
    """As Direct, without `await`: `db.sync.products.create(name="Lamp")`."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct

    def __getattr__(self, name: str) -> SyncModelFace:
        return SyncModelFace(getattr(self._direct, name))

    def model_face(self, name: str) -> SyncModelFace:
        return SyncModelFace(self._direct.model_face(name))

    def as_session(self, session: Session) -> SyncDirect:
        return SyncDirect(self._direct.as_session(session))

    def within(self, seconds: float) -> SyncDirect:
        return SyncDirect(self._direct.within(seconds))

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False, timeout: float | None = None
    ) -> SyncTransaction:
        """`with db.sync.transaction() as tx:` — what this thread does through a synchronous face inside is
        kept together, or not at all."""
        block = self._direct.transaction(isolation=isolation, read_only=read_only, timeout=timeout)
        return SyncTransaction(self._direct, block)

    def run_in_transaction(
        self,
        function: Callable[[SyncDirect], T],
        *,
        retries: int = ATTEMPTS,
        isolation: Isolation | None = None,
    ) -> T:
        """`function(tx)`, and again when the database gives up in favour of another transaction."""
        attempt = 0
        while True:
            block = self.transaction(isolation=isolation)
            try:
                with block as tx:
                    return function(tx)
            except Retryable:
                if attempt >= retries or block.inner:
                    raise
            attempt += 1
            blocking.run(pause(attempt))


class SyncDataFlow(SyncDirect):
    """As DataFlow, without `await`."""

    def __init__(self, flow: DataFlow) -> None:
        super().__init__(flow)
        self._flow = flow

    def install(self) -> list[str]:
        """See DataFlow.install."""
        return blocking.run(self._flow.install())

    def close(self) -> None:
        """Close the connections that synchronous calls have opened."""
        blocking.run(self._flow.close())


class SyncModelFace:
    """The operations of one model."""

    def __init__(self, face: ModelFace) -> None:
        self._face = face

    def __getattr__(self, verb: str) -> SyncVerb:
        return SyncVerb(getattr(self._face, verb))

    def __dir__(self) -> list[str]:
        return dir(self._face)

    def __repr__(self) -> str:
        return repr(self._face)


class SyncVerb:
    """One operation, to be called."""

    def __init__(self, verb: Verb) -> None:
        self.__doc__ = verb.__doc__
        self.__name__ = verb.__name__
        self._verb = verb

    def __call__(self, *key: object, **arguments: object) -> Any:
        return blocking.run(self._verb(*key, **arguments))

    def __repr__(self) -> str:
        return repr(self._verb)


class SyncTransaction:
    """A transaction that lives in the loop of the synchronous faces, and is current in this thread."""

    def __init__(self, direct: Direct, block: TransactionBlock) -> None:
        self._direct = direct
        self._block = block
        self._before: contextvars.Token[Call | None] | None = None

    @property
    def inner(self) -> bool:
        return self._block.inner

    def __enter__(self) -> SyncDirect:
        call = blocking.run(self._block.work.begin())
        self._before = CURRENT.set(call)
        return SyncDirect(self._direct.in_call(call))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            CURRENT.reset(self._before)
        blocking.run(self._block.work.end(error))
