"""The outer door: the only way in which any channel runs anything."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

from nexus.call import CURRENT, IN_PROCESS, USUAL, Call
from nexus.deadline import deadline_in, until
from nexus.demands import NONE, Demands, Noted, check_demands, check_matched
from nexus.errors import InvalidInput, NexusError, Retryable
from nexus.keys import Keys
from nexus.operation import Effect, Operation
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.runs.running import Running, Work
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.arguments import Given
    from nexus.feed import Feed
    from nexus.runs.runs import Runs

logger = logging.getLogger("nexus")

ATTEMPTS = 3
_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


class Runtime:
    def __init__(self, registry: Registry, policy: Policy, feed: Feed) -> None:
        self.registry = registry
        self.policy = policy
        self.feed = feed
        self.runs: Runs | None = None
        self.keys = Keys()
        self.request_timeout: float | None = None
        """For what others ask for, where they do not say how long it may take."""

    async def invoke(
        self,
        name: str | Operation,
        arguments: Given,
        session: Session,
        *,
        channel: str,
        timeout: float | None = None,
        demands: Demands | None = None,
        noted: Noted | None = None,
    ) -> Any:
        """Run one operation for `session`: check the permission, validate the arguments, run, commit, and
        only then wake the feed. Whatever fails, nothing of it stays behind. What the database gave up in
        favour of another transaction is begun anew, a few times. Only code in this process has an Operation
        to give instead of its name.

        A run of a workflow is recorded; what a start that is repeated under its key meets while the first
        goes on is Started. Of anything else the answer is kept for who repeats it under its key.

        Raises NexusError only; what a handler raises otherwise is logged and becomes the root of the tree,
        without its message."""
        operation = self.registry.outside(name) if isinstance(name, str) else name
        session = self.policy.current(session)
        around = CURRENT.get()
        if around is not None and around.dry and not around.over:
            raise InvalidInput(
                f"'{operation.name}' would be kept, in the middle of a dry run.",
                remedy="Run it through the call that it is a part of.",
            )
        self.policy.check(session, operation)
        in_process = channel == IN_PROCESS
        accepted = operation.arguments.accept(arguments, in_process=in_process)
        if timeout is None and not in_process and (demands is None or not demands.background):
            timeout = self.request_timeout
        work = Work(operation, arguments, accepted, session, channel, deadline_in(timeout), demands)
        if demands is not None:
            check_demands(operation, demands, self.runs)
        if operation.asks_match is not None and not in_process:
            check_matched(operation, accepted, demands)
        if self.runs is not None and operation.recorded and not (demands is not None and demands.dry_run):
            return await self.runs.run(self, work, noted or Noted())
        if demands is not None and demands.key is not None and operation.effect is not Effect.READ:
            return await self.keys.run(self, work, demands, noted or Noted())
        return await self.perform(work)

    async def perform(self, work: Work, run: Running | None = None) -> Any:
        """Run what was checked, begun anew where that may help, as this run."""
        operation, accepted, deadline = work.operation, work.arguments, work.deadline
        handler = operation.handler if work.once is None else work.once.handle
        terms = None if work.once is None else USUAL  # what is done once is one transaction
        attempt = 1
        while True:
            call = Call(
                self, work.session, operation, work.channel, terms=terms, demands=work.demands or NONE
            )
            if work.demands is not None:
                call.match = work.demands.match
            if run is not None:
                run.begin(call)
            before = CURRENT.set(call)
            try:
                if deadline is None:
                    result = await handler(call, accepted)
                else:
                    async with until(deadline, f"'{operation.name}'"):
                        result = await handler(call, accepted)
                if call.dry:
                    await call.rehearse()
                    return result
                call.check_affected()
                if run is not None:
                    await run.keep(call, result)
                elif call.opened:
                    await call.commit()
                call.over = True
            except BaseException as failure:
                await call.rollback()
                self.wake(call)  # a statement that committed by itself may precede the failure
                again = isinstance(failure, Retryable) and attempt < ATTEMPTS and call.repeatable
                if not again or not await pause(attempt, deadline):
                    raise _outward(failure, operation.name) from failure
            else:
                self.wake(call)
                return result
            finally:
                CURRENT.reset(before)
            attempt += 1

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
