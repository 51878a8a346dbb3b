"""The direct face: the operations of the models as methods, for programs that want no workflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nexus.call import IN_PROCESS, Call, joined, session_for
from nexus.errors import InvalidInput, did_you_mean
from nexus.operation import Operation
from nexus.results import Result, plain
from nexus.session import LOCAL, Session

if TYPE_CHECKING:
    from dataflow.direct import Direct


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom direct work is done. A session that is None is that of the running operation, else the local
    one. `call` is the transaction that it is a part of, where it was chosen."""

    session: Session | None = None
    timeout: float | None = None
    call: Call | None = None


class ModelFace:
    """The operations of one model: `await db.products.create(name="Lamp")`. Results are dictionaries."""

    def __init__(self, direct: Direct, route: str) -> None:
        self._direct = direct
        self._route = route

    def __getattr__(self, verb: str) -> Verb:
        verbs = self._verbs()
        if verb in verbs:
            return Verb(self._direct, verbs[verb])
        hint = "" if verb.startswith("_") else did_you_mean(verb, verbs)
        raise AttributeError(f"'{self._route}' has no operation '{verb}'. {hint}".rstrip())

    def __dir__(self) -> list[str]:
        return sorted(self._verbs())

    def __repr__(self) -> str:
        return f"<{self._route}: {', '.join(self._verbs())}>"

    def _verbs(self) -> Mapping[str, Operation]:
        return self._direct.runtime.registry.verbs(self._route)


class Verb:
    """One operation, to be called with its arguments; `id` may come first and without its name."""

    def __init__(self, direct: Direct, operation: Operation) -> None:
        self.operation = operation
        self.__doc__ = operation.summary
        self.__name__ = operation.verb
        self._direct = direct

    async def __call__(self, *key: object, **arguments: object) -> Any:
        """Raises NexusError, as on every channel."""
        return await perform(self._direct, self.operation, self.arguments(key, arguments))

    def __repr__(self) -> str:
        return f"<{self.operation.name}: {self.operation.summary}>"

    def arguments(self, key: tuple[object, ...], named: Mapping[str, object]) -> dict[str, object]:
        """What was given in a Python call, as the arguments of the operation."""
        if not key:
            return dict(named)
        if not self.operation.on_record or len(key) > 1 or "id" in named:
            takes = "one id, and then " if self.operation.on_record else ""
            raise TypeError(f"{self.operation.name} takes {takes}arguments with names, as in filter={{…}}")
        return {"id": key[0], **named}


async def perform(direct: Direct, operation: Operation, arguments: dict[str, object]) -> Result | Any:
    """Run an operation for a program: inside the transaction or the operation that it runs in, else as a call
    of its own."""
    caller = direct.caller
    session = caller.session
    call = caller.call or joined(session)
    if call is not None:
        call.check()
        if session not in (None, call.session):
            raise InvalidInput(f"The transaction belongs to '{call.session.user}'.")
        return plain(await call.run(operation, arguments))
    return plain(
        await direct.runtime.invoke(
            operation.name,
            arguments,
            session_for(session, LOCAL),
            channel=IN_PROCESS,
            timeout=caller.timeout,
        )
    )
