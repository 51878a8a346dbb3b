"""DelayNode: waits, and holds no transaction meanwhile."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

from nexus.call import Call
from nexus.results import Result
from nexus_workflows.errors import NodeFailed
from nexus_workflows.steps import Given, Gives, Reach, Takes

LONGEST = 366 * 86400.0


class DelayStep:
    """Waits for `seconds`, or `until` a moment."""

    reach = Reach.WAITS
    stoppable = True
    takes = Takes(types={"seconds": float, "until": datetime.datetime, "input": Any})
    gives = Gives({"seconds": float, "result": Any})

    def __init__(self, node: str) -> None:
        self.node = node

    async def run(self, call: Call, given: Given) -> Any:
        seconds = self._seconds(given.arguments)
        if not 0 <= seconds <= LONGEST:
            raise NodeFailed(f"Node '{self.node}': a delay is between 0 s and a year, and not {seconds} s.")
        await asyncio.sleep(seconds)
        return Result(seconds=seconds, result=given.arguments.get("input"))

    def _seconds(self, arguments: dict[str, Any]) -> float:
        if ("seconds" in arguments) == ("until" in arguments):
            raise NodeFailed(f"Node '{self.node}': a delay takes either 'seconds' or 'until'.")
        if "seconds" in arguments:
            seconds = arguments["seconds"]
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                raise NodeFailed(f"Node '{self.node}': 'seconds' must be a number.")
            return float(seconds)
        until = arguments["until"]
        try:
            moment = datetime.datetime.fromisoformat(until) if isinstance(until, str) else until
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            return max(0.0, float((moment - datetime.datetime.now(datetime.UTC)).total_seconds()))
        except (AttributeError, TypeError, ValueError):
            raise NodeFailed(
                f"Node '{self.node}': 'until' must be a moment, as 2030-01-31T12:00:00Z."
            ) from None
