"""Whether an application can do its work now: whether what it works with answers."""

from __future__ import annotations

import asyncio
import logging
import time

from nexus.app import Nexus
from nexus.errors import NexusError, Unavailable

logger = logging.getLogger("nexus")

FRESH = 1.0
"""Seconds for which an answer holds: whoever asks often costs the databases nothing."""
PATIENCE = 2.0


class Readiness:
    """Asks every contributor, one time for all who want to know meanwhile."""

    def __init__(self, app: Nexus) -> None:
        self._app = app
        self._asking: asyncio.Task[bool] | None = None
        self._asked = float("-inf")
        self._was_ready = True

    async def check(self) -> None:
        """Raises Unavailable, after PATIENCE seconds at most. It says no more than that: the log does, and
        nobody has to prove who they are to ask."""
        now = time.monotonic()
        asking = self._asking
        if asking is None or (asking.done() and now - self._asked >= FRESH):
            asking = self._asking = asyncio.create_task(self._ask())
            self._asked = now
        # Not cancelled when it takes too long: that would wait for an answer, too.
        await asyncio.wait({asking}, timeout=PATIENCE)
        if not asking.done() or asking.cancelled():
            raise _not_ready("does not answer")
        if not asking.result():
            raise _not_ready("cannot be reached")

    async def close(self) -> None:
        """Ask nobody any more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait({asking}, timeout=PATIENCE)

    async def _ask(self) -> bool:
        try:
            for contributor in self._app.contributors:
                await contributor.check()
        except Exception as failure:
            if self._was_ready:
                expected = isinstance(failure, NexusError)
                logger.warning("not ready: %s", failure, exc_info=None if expected else failure)
            self._was_ready = False
            return False
        if not self._was_ready:
            logger.info("ready again")
        self._was_ready = True
        return True


def _not_ready(why: str) -> Unavailable:
    return Unavailable(f"The server is not ready: a database {why}.", remedy="The server's log says more.")
