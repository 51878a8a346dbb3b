"""LoopNode: one kind of node for each item of a list."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nexus.call import Call
from nexus.errors import NexusError, RegistrationError
from nexus.results import Result
from nexus_workflows.errors import NodeFailed
from nexus_workflows.steps import Given, Gives, Reach, Step, Takes
from nexus_workflows.values import Prepared, Template, fill, parse, templates

ITEM, INDEX = "item", "index"
PARAMETERS = frozenset({"items", "node", "parameters", "concurrency"})
_MOST = 1000


class Body(Prepared):
    """The parameters for each item; `{{item.name}}` and `{{index}}` in them are the loop's own."""

    def __init__(self, parameters: object) -> None:
        if not isinstance(parameters, Mapping):
            raise RegistrationError("The 'parameters' of a loop are a dictionary.")
        self.parameters: Any = parse(parameters)
        self.templates: tuple[Template, ...] = tuple(
            found for found in templates(self.parameters) if found.source not in (ITEM, INDEX)
        )

    def __repr__(self) -> str:
        return f"Body({self.parameters!r})"


class LoopStep:
    """Runs `node` for each of the `items`, at most `concurrency` at once, and gives their results in order.
    The first failure ends the loop."""

    def __init__(self, node: str, body: Body, inner: Step, concurrency: object) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= _MOST:
            raise RegistrationError(f"Node '{node}': 'concurrency' is a number from 1 to {_MOST}.")
        self.node = node
        self.inner = inner
        self.reach = Reach.ANYTHING if inner.reach is Reach.WRITES else inner.reach
        self.stoppable = inner.stoppable
        self.takes = Takes(types={"items": list[Any]}, required=frozenset({"items"}))
        self.gives = Gives({"results": list[Any], "result": list[Any], "count": int})
        self._body = body.parameters
        self._concurrency = concurrency

    async def run(self, call: Call, given: Given) -> Any:
        items = given.arguments["items"]
        if not isinstance(items, list):
            raise NodeFailed(f"Node '{self.node}': 'items' must be a list.")
        results: list[Any] = [None] * len(items)
        numbers = iter(range(len(items)))

        async def work() -> None:
            for number in numbers:
                results[number] = await self._one(call, given, number, items[number])

        workers = min(self._concurrency, len(items))
        if workers <= 1:
            await work()
        else:
            await _together([asyncio.ensure_future(work()) for _ in range(workers)])
        return Result(results=results, result=results, count=len(results))

    async def _one(self, call: Call, given: Given, number: int, item: Any) -> Any:
        scope = {**given.scope, ITEM: item, INDEX: number}
        try:
            arguments = fill(self._body, scope, {})
            return await self.inner.run(call, Given(arguments, {}, given.inputs, scope))
        except NexusError as failure:
            failure.node = failure.node or f"{self.node}[{number}]"
            raise


async def _together(tasks: list[asyncio.Future[None]]) -> None:
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
