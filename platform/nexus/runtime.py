"""The outer door: the only way in which any channel runs anything."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

from nexus.call import CURRENT, Call, is_in_process
from nexus.deadline import deadline_in, until
from nexus.errors import NexusError, Retryable
from nexus.operation import Operation
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.arguments import Given
    from nexus.feed import Feed

logger = logging.getLogger("nexus")

ATTEMPTS = 3
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


class Runtime:
    def __init__(self, registry: Registry, policy: Policy, feed: Feed) -> None:
        self.registry = registry
        self.policy = policy
        self.feed = feed

    async def invoke(
        self,
        name: str | Operation,
        arguments: Given,
        session: Session,
        *,
        channel: str,
        timeout: float | None = None,
    ) -> Any:
        """Run one operation for `session`: check the permission, validate the arguments, run, commit, and
        only then wake the feed. Whatever fails, nothing of it stays behind. What the database gave up in
        favour of another transaction is begun anew, a few times. Only code in this process has an Operation
        to give instead of its name.

        Raises NexusError only; what a handler raises otherwise is logged and becomes the root of the tree,
        without its message."""
        operation = self.registry.outside(name) if isinstance(name, str) else name
        self.policy.check(session, operation)
        accepted = operation.arguments.accept(arguments, in_process=is_in_process(channel))
        deadline = deadline_in(timeout)
        attempt = 1
        while True:
            call = Call(self, session, operation, channel)
            try:
                return await self._run(call, accepted, deadline)
            except Retryable:
                if attempt == ATTEMPTS or not call.repeatable or not await pause(attempt, deadline):
                    raise
            attempt += 1

    async def _run(self, call: Call, accepted: Any, deadline: float | None) -> Any:
        operation = call.operation
        before = CURRENT.set(call)
        try:
            if deadline is None:
                result = await operation.handler(call, accepted)
            else:
                async with until(deadline, f"'{operation.name}'"):
                    result = await operation.handler(call, accepted)
            await call.commit()
        except BaseException as failure:
            await call.rollback()
            self.wake(call)  # a statement that committed by itself may precede the failure
            raise _outward(failure, operation.name) from failure
        finally:
            CURRENT.reset(before)
        self.wake(call)
        return result

    def wake(self, call: Call) -> None:
        """Tell the feed what a call has written, after its end."""
        for resource in call.written:
            if resource.changes is not None:
                self.feed.wake(resource.changes)


async def pause(attempt: int, deadline: float | None = None) -> bool:
    """Wait before the next attempt, each time longer and never together with others; False, at once, when
    the deadline would pass meanwhile."""
    seconds = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 4**attempt) * random.uniform(0.5, 1.5)
    if deadline is not None and asyncio.get_running_loop().time() + seconds >= deadline:
        return False
    await asyncio.sleep(seconds)
    return True


def _outward(failure: BaseException, name: str) -> BaseException:
    if isinstance(failure, NexusError) or not isinstance(failure, Exception):
        return failure
    logger.error("'%s' failed", name, exc_info=failure)
    return NexusError(f"'{name}' failed.", remedy="The server's log says why.")
