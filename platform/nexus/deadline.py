"""How long something may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nexus.errors import TimedOut


def deadline_in(seconds: float | None) -> float | None:
    """A moment of the running event loop's clock."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def until(deadline: float, what: str) -> AsyncIterator[None]:
    """Cancel what is awaited inside at the deadline, and raise TimedOut about `what`."""
    try:
        async with asyncio.timeout_at(deadline) as limit:
            yield
    except TimeoutError as failure:
        if not limit.expired() or isinstance(failure, TimedOut):
            raise
        raise timed_out(what) from failure


def timed_out(what: str) -> TimedOut:
    return TimedOut(f"{what} did not end in time; what it had not committed is undone.")
