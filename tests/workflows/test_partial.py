"""What a run that ends early leaves, and says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nexus import Nexus
from nexus.errors import TimedOut
from nexus_workflows import AsyncLocalRuntime
from tests.workflows.support import count, nodes


async def test_a_time_limit_after_a_segment_says_what_stays(app: Nexus) -> None:
    workflow = nodes(("ProductCreateNode", "make", {"name": "x"}), ("DelayNode", "wait", {"seconds": 30}))
    workflow.add_connection("make", "id", "wait", "input")
    with pytest.raises(TimedOut, match="what it had not committed is undone"):
        await AsyncLocalRuntime(app, execution_timeout=2).execute_async(workflow)
    assert await count(app) == 1


async def test_connections_go_back_after_cancellations_at_any_moment(app: Nexus) -> None:
    """Cancel runs at many moments: no connection is lost, no transaction stays open, nothing is half kept."""
    workflow = nodes(
        ("ProductListNode", "find", {}),
        ("ProductCreateNode", "a", {"name": "x"}),
        ("ProductCreateNode", "b", {"name": "y", "on_error": "continue"}),
        ("ProductCreateNode", "c", {"name": "z", "retry": 2}),
    ).build()
    runtime = AsyncLocalRuntime(app)
    await asyncio.gather(*(runtime.execute_async(workflow) for _ in range(30)))  # all connections are open
    for moment in range(40):
        task: asyncio.Task[Any] = asyncio.ensure_future(runtime.execute_async(workflow))
        for _ in range(moment):
            await asyncio.sleep(0)
        if moment % 4 == 3:
            await asyncio.sleep(0.001 * moment)
        asked = task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError) or not asked, outcome
    async with asyncio.timeout(20):
        await asyncio.gather(*(runtime.execute_async(workflow) for _ in range(30)))
    assert await count(app) % 3 == 0
