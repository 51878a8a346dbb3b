"""Items of a call of which one may be wrong: then all of them are undone, or the others are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import NexusError, Problem, RunCancelled, TimedOut, TooManyAffected, Unavailable

T = TypeVar("T")
R = TypeVar("R")
Item: TypeAlias = tuple[int, T]
"""A place among all items, and what stands there."""

OnItemError = Annotated[
    Literal["fail", "continue"],
    Meta(description="A record that cannot be kept undoes all, or is reported while the others are kept"),
]


class ItemFailure(msgspec.Struct, kw_only=True):
    """An item that was not kept: its place, its id if it said one, and what any other failure would say."""

    index: int
    id: Any | UnsetType = UNSET
    error: dict[str, Any]


@dataclass(slots=True)
class Items(Generic[T, R]):
    """`attempt` does all of some items, inside of a call that is undone when it raises. Most often nothing is
    wrong: so all are tried at once, and apart only after that has failed."""

    argument: str
    attempt: Callable[[Call, Sequence[Item[T]]], Awaitable[R]]
    go_on: bool
    failures: list[ItemFailure] = field(default_factory=list)

    def failed(self, index: int, failure: NexusError, given: Any = None) -> None:
        """Take down an item that is wrong. Raises the failure where that is to end everything."""
        if not self.go_on:
            raise failure
        named = given.get("id") if isinstance(given, dict) else None
        error = failure.describe()
        self.failures.append(ItemFailure(index=index, id=UNSET if named is None else named, error=error))

    async def run(self, call: Call, items: Sequence[Item[T]], given: Sequence[Any]) -> list[R]:
        """What the attempts that are kept have given. `given` are all items as they came."""
        results: list[R] = []
        if not self.go_on:
            return [await self._whole(call, items)]
        async with call.together() as whole:
            await self._halved(whole, items, given, results)
        self.failures.sort(key=lambda failure: failure.index)
        return results

    async def _halved(
        self, whole: Call, items: Sequence[Item[T]], given: Sequence[Any], results: list[R]
    ) -> None:
        if not items:
            return
        part = await whole.inside()
        try:
            results.append(await self.attempt(part, items))
        except BaseException as failure:
            await part.rollback()
            if not is_its_own(failure):
                raise
            if len(items) == 1:
                index = items[0][0]
                self.failed(index, self._placed(failure, index), given[index])
                return
            middle = len(items) // 2
            await self._halved(whole, items[:middle], given, results)
            await self._halved(whole, items[middle:], given, results)
        else:
            await part.commit()

    async def _whole(self, call: Call, items: Sequence[Item[T]]) -> R:
        part = await call.inside()
        try:
            result = await self.attempt(part, items)
        except BaseException as failure:
            await part.rollback()
            if is_its_own(failure) and not failure.problems and items:
                self._placed(failure, await self._first_wrong(call, items))
            raise
        await part.commit()
        if not call.atomic:
            call.took(part)
        return result

    async def _first_wrong(self, call: Call, items: Sequence[Item[T]]) -> int | None:
        """Which item it was, found by trying again: databases do not say. None where it cannot be found any
        more. Nothing of it is kept."""
        part = await call.inside()
        first, end = 0, len(items)
        try:
            while end - first > 1:
                middle = (first + end) // 2
                trial = await part.inside()
                try:
                    await self.attempt(trial, items[first:middle])
                except BaseException as failure:
                    await trial.rollback()
                    if not is_its_own(failure):
                        raise
                    end = middle
                else:
                    await trial.commit()
                    first = middle
        except NexusError:
            return None
        finally:
            await part.rollback()
        return items[first][0]

    def _placed(self, failure: NexusError, index: int | None) -> NexusError:
        if index is not None and not failure.problems:
            at = pointer(self.argument, index)
            failure.problems = (Problem(failure.code, at, failure.detail),)
        return failure


_OTHERS = (Unavailable, TimedOut, RunCancelled, TooManyAffected)


def is_its_own(failure: BaseException) -> TypeGuard[NexusError]:
    """Whether it is about what was given, and not about the whole or the world."""
    return isinstance(failure, NexusError) and failure.status < 500 and not isinstance(failure, _OTHERS)
