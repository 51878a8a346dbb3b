"""The outer door: the only way in which any channel runs anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from nexus.call import Call, is_in_process
from nexus.errors import NexusError, TimedOut
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.arguments import Given
    from nexus.feed import Feed

logger = logging.getLogger("nexus")


class Runtime:
    def __init__(self, registry: Registry, policy: Policy, feed: Feed) -> None:
        self.registry = registry
        self.policy = policy
        self.feed = feed

    async def invoke(
        self,
        name: str,
        arguments: Given,
        session: Session,
        *,
        channel: str,
        timeout: float | None = None,
    ) -> Any:
        """Run one operation for `session`: check the permission, validate the arguments, run, commit, and
        only then wake the feed. Whatever fails, nothing of it stays behind.

        Raises NexusError only; what a handler raises otherwise is logged and becomes the root of the tree,
        without its message."""
        operation = self.registry.outside(name)
        self.policy.check(session, operation)
        accepted = operation.arguments.accept(arguments, in_process=is_in_process(channel))
        call = Call(self, session, operation, channel)
        try:
            if timeout is None:
                result = await operation.handler(call, accepted)
            else:
                result = await _within(timeout, operation.handler(call, accepted), operation.name)
            await call.commit()
        except BaseException as failure:
            await call.rollback()
            self._wake(call)  # a statement that committed by itself may precede the failure
            raise _outward(failure, operation.name) from failure
        self._wake(call)
        return result

    def _wake(self, call: Call) -> None:
        for resource in call.written:
            if resource.changes is not None:
                self.feed.wake(resource.changes)


async def _within(seconds: float, work: Awaitable[Any], name: str) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError as failure:
        if not limit.expired():
            raise
        raise TimedOut(f"'{name}' did not end within {seconds:g} s; nothing of it was kept.") from failure


def _outward(failure: BaseException, name: str) -> BaseException:
    if isinstance(failure, NexusError) or not isinstance(failure, Exception):
        return failure
    logger.error("'%s' failed", name, exc_info=failure)
    return NexusError(f"'{name}' failed.", remedy="The server's log says why.")
