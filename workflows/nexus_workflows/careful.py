"""Runs a node whose parameters say something about itself: in order, as whom, how long, how often."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any

from nexus.call import CURRENT, Call
from nexus.errors import Forbidden, NexusError, Retryable, TimedOut
from nexus.ports import Progress
from nexus.session import tenant
from nexus_workflows.care import Care
from nexus_workflows.errors import NodeFailed, told
from nexus_workflows.plan import Planned
from nexus_workflows.steps import Given, Reach
from nexus_workflows.values import fill, is_constant


async def run_carefully(
    planned: Planned, care: Care, call: Call, given: Given, progress: Progress | None
) -> Any:
    """The result of the attempt that succeeded; the last failure is raised. Inside of a transaction each
    attempt is a part of it that is undone alone, where the run may go on after it."""
    apart = call.atomic and care.apart and planned.step.reach is not Reach.NOTHING
    attempt = 1
    while True:
        begun = time.perf_counter()
        try:
            with _acting_for(care, call, given):
                if apart:
                    return await _in_part(planned, care, call, given)
                return await _guarded(planned, care, call, given)
        except Exception as failure:
            retry = care.retry
            lost = isinstance(failure, Retryable) and call.atomic  # the whole transaction is gone
            if lost or retry is None or attempt >= retry.max_attempts or not retry.covers(failure):
                raise
            if progress is not None:
                progress.node_ended(planned.id, "retrying", time.perf_counter() - begun, _ours(failure))
            await asyncio.sleep(retry.delay(attempt))
        attempt += 1


async def _in_part(planned: Planned, care: Care, call: Call, given: Given) -> Any:
    part = await call.inside()
    before = CURRENT.set(part)
    try:
        value = await _guarded(planned, care, part, given)
    except BaseException:
        await part.rollback()
        raise
    finally:
        CURRENT.reset(before)
    await part.commit()
    return value


async def _guarded(planned: Planned, care: Care, call: Call, given: Given) -> Any:
    if care.breaker is None:
        return await _timed(planned, care, call, given)
    return await care.breaker.execute(_timed, planned, care, call, given)


async def _timed(planned: Planned, care: Care, call: Call, given: Given) -> Any:
    if care.timeout is None:
        return await planned.step.run(call, given)
    try:
        async with asyncio.timeout(care.timeout) as limit:
            return await planned.step.run(call, given)
    except TimeoutError as failure:
        if not limit.expired():
            raise
        raise TimedOut(f"Node '{planned.id}' did not end within {care.timeout:g} s.") from failure


def _acting_for(care: Care, call: Call, given: Given) -> Any:
    """The tenant that the node has chosen. A session's own tenant cannot be left, and who calls from outside
    cannot choose one by an argument."""
    if care.tenant is None:
        return nullcontext()
    name = fill(care.tenant, given.scope, {})
    if not isinstance(name, str) or not name:
        raise Forbidden("'tenant_id' is the name of a tenant.")
    own = call.session.tenant
    if own is not None and own != name:
        raise Forbidden(f"The session belongs to another tenant than '{name}'.")
    if own is None and not call.in_process and not is_constant(care.tenant):
        raise Forbidden(
            "A session without a tenant cannot choose one by an argument.",
            remedy="Write the tenant into the workflow, or give the session one.",
        )
    return tenant(name)


def _ours(failure: Exception) -> NexusError:
    return failure if isinstance(failure, NexusError) else NodeFailed(told(failure))
