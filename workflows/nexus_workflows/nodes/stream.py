"""A list that is `streaming`: it hands on page after page, and what follows it runs once for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from nexus.call import Call
from nexus.errors import InvalidInput, RegistrationError
from nexus.operation import Operation
from nexus.results import Result, plain
from nexus_workflows.steps import Given, Gives, OperationStep, Reach, Step, Takes

STREAMING = frozenset({"streaming"})
"""The parameter that makes the node of a list a stream."""

USUAL_SIZE = 500
"""Records in a page, where `batch_size` does not say."""

_BEGINS = (
    "has no place beside 'streaming', which begins with the first record: say in the 'filter' where it is to"
    ' begin, as in {"id": {"$gt": 100}}'
)
_REFUSED = {
    "cursor": _BEGINS,
    "offset": _BEGINS,
    "count": "has no place beside 'streaming', whose result counts what was handed on: add a CountNode",
    "aggregate": "has no place beside 'streaming': groups are not handed on in pages",
}
_TOTAL = Annotated[int, msgspec.Meta(ge=1)]
_BY_ID = frozenset({"id", "-id"})


def pages_of(node: str, given: Mapping[str, Any], step: Step) -> Step:
    """The step of a list, or the one that hands on its pages where `streaming` is said. Raises
    RegistrationError."""
    if not can_stream(step):
        return step
    wanted = given.get("streaming", False)
    if not isinstance(wanted, bool):
        raise RegistrationError(
            f"Node '{node}': 'streaming' is True or False: it decides what runs how often."
        )
    if wanted:
        assert isinstance(step, OperationStep)
        return StreamStep(node, step, by_id=_is_by_id(given))
    if "batch_size" in given:
        raise RegistrationError(
            f"Node '{node}': 'batch_size' is for a list that is 'streaming'.",
            remedy="Add 'streaming': True; without it, 'limit' says how many records there are at most.",
        )
    return step


def can_stream(step: Step) -> bool:
    if isinstance(step, StreamStep):
        return True
    return isinstance(step, OperationStep) and bool(step.operation.model) and step.operation.in_pages


class StreamStep:
    """Begins the reading. `parts` are the steps of all that runs for each page, its own reading included, and
    decide what the whole may touch."""

    stoppable = True

    def __init__(self, node: str, source: OperationStep, *, by_id: bool) -> None:
        self.node = node
        self.source = source
        self.by_id = by_id
        self.parts: tuple[Step, ...] = (source,)
        self.reach = Reach.READS
        types = {name: kind for name, kind in source.takes.types.items() if name not in _REFUSED}
        self._size = types["limit"]
        self.takes = Takes(
            types={**types, "limit": _TOTAL, "batch_size": self._size},
            members=source.takes.members,
            refused={**source.takes.refused, **_REFUSED},
        )
        self.gives = Gives({"records": list[Any], "count": int, "page": int})

    def contain(self, parts: Sequence[Step]) -> None:
        """Say what runs for each page."""
        self.parts = (self.source, *parts)
        reaches = {part.reach for part in self.parts}
        if Reach.WAITS in reaches:
            self.reach = Reach.WAITS
        elif reaches & {Reach.WRITES, Reach.ANYTHING}:
            self.reach = Reach.ANYTHING

    async def run(self, call: Call, given: Given) -> Pages:
        arguments = dict(given.arguments)
        size = _checked("batch_size", arguments.pop("batch_size", USUAL_SIZE), self._size)
        total = arguments.pop("limit", None)
        return Pages(
            self.source.operation,
            arguments,
            size,
            None if total is None else _checked("limit", total, _TOTAL),
        )


class Pages:
    """One way through the records: each run of it reads the next page. `more` says that there is one.

    The records are those that there are when it begins: where one is made meanwhile, by what runs for each
    page or by others, its id is beyond."""

    reach = Reach.READS
    takes = Takes()
    gives = Gives()
    stoppable = True

    def __init__(self, operation: Operation, arguments: dict[str, Any], size: int, total: int | None) -> None:
        self.more = True
        self.count = 0
        self.page = 0
        self._operation = operation
        self._arguments = arguments
        self._size = size
        self._total = total
        self._cursor = ""
        self._bounded = False

    async def run(self, call: Call, given: Given) -> Any:
        """Nothing has changed here when it fails, so that it may be tried again."""
        if not self._bounded and not await self._bound(call):
            await self._read(call, 1)  # for what is wrong with the arguments
            self.more = False
            return self._result([])
        left = self._size if self._total is None else min(self._size, self._total - self.count)
        page = await self._read(call, left)
        records = page["records"]
        self._cursor = page.get("next") or ""
        self.count += len(records)
        self.page += bool(records)
        self.more = bool(self._cursor) and self.count != self._total
        return self._result(records)

    async def _read(self, call: Call, limit: int) -> Any:
        return plain(
            await call.run(self._operation, {**self._arguments, "cursor": self._cursor, "limit": limit})
        )

    async def _bound(self, call: Call) -> bool:
        """Leave out what will be made from now on; False where there is nothing."""
        narrowing = ("filter", "include_deleted")
        asked = {name: self._arguments[name] for name in narrowing if name in self._arguments}
        wanted = {**asked, "order_by": "-id", "limit": 1, "fields": ["id"]}
        last = plain(await call.run(self._operation, wanted))["records"]
        if not last:
            return False
        bound = {"id": {"$lte": last[0]["id"]}}
        given = asked.get("filter")
        self._arguments["filter"] = {"$and": [given, bound]} if given else bound
        self._bounded = True
        return True

    def _result(self, records: list[Any]) -> Result:
        return Result(records=records, count=len(records), page=self.page)


def _is_by_id(given: Mapping[str, Any]) -> bool:
    """Whether records come by their ids alone, which never change."""
    order = given.get("order_by") or given.get("sort")
    one = order[0] if isinstance(order, list) and len(order) == 1 else order
    if isinstance(one, dict):
        return set(one) == {"id"}
    return not order or (isinstance(one, str) and one in _BY_ID)


def _checked(name: str, value: object, wanted: Any) -> int:
    """Where it comes from a template, only a run can see it."""
    try:
        made: int = msgspec.convert(value, wanted)
    except msgspec.ValidationError as failure:
        reason = str(failure).replace("`", "")
        raise InvalidInput(f"'{name}': {reason[:1].lower()}{reason[1:]}.") from None
    return made
