"""What a call of a tool does, whether it came through the SDK (`server`) or past it (`direct`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nexus.demands import Noted
from nexus.errors import KeyInFlight, Malformed, NexusError, TooLarge
from nexus.request import REQUEST
from nexus.runs.record import Started
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp.demands import ETAG, IF_MATCH, REPLAYED, demands_of
from nexus_channels.mcp.tools import Described, Toolbox

logger = logging.getLogger("nexus")

SOON = 0.02
"""Seconds within which nearly every call is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What MCP is told of a call: texts, and the object that the only text of a success is, as JSON."""

    texts: tuple[str, ...]
    structured: bytes | None = None
    meta: Mapping[str, Any] | None = None

    @property
    def failed(self) -> bool:
        return self.structured is None


class Calls:
    """Runs tools. `limit` bounds the arguments of a call, in bytes of JSON."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self.toolbox = Toolbox(runtime.registry)
        self.running: set[asyncio.Task[Any]] = set()
        self._runtime = runtime
        self._limit = limit

    async def run(
        self,
        name: str,
        given: Mapping[str, Any] | None,
        meta: Mapping[str, Any] | None,
        session: Session,
        request: str,
    ) -> Outcome:
        """Call the tool `name` for `session`, within the request with this id. In a task of its own, since
        whoever closes cancels the tasks in `running`."""
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        REQUEST.set(request)
        try:
            described = self.toolbox.find(name)
            arguments = dict(given or {})
            demands = demands_of(described.operation, meta, arguments)
            noted = Noted()
            result = await self._runtime.invoke(
                described.operation.name,
                self._as_json(arguments),
                session,
                channel="mcp",
                demands=demands,
                noted=noted,
            )
            return success(described, result, noted)
        except NexusError as failure:
            return refusal(failure)
        finally:
            self.running.discard(task)

    def _as_json(self, arguments: Mapping[str, Any]) -> bytes:
        """Again: so they are read by the same rules as those of the other channels."""
        try:
            text = msgspec.json.encode(arguments)
        except ValueError as failure:
            raise Malformed(f"The arguments are not valid JSON: {failure}.") from None
        if len(text) > self._limit:
            raise TooLarge(f"The arguments are larger than {self._limit} bytes.", remedy="Send less at once.")
        return text


class Begun:
    """A call that runs in a task of its own, so that another can take it over while it runs."""

    def __init__(self, call: Coroutine[Any, Any, Outcome]) -> None:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(call)
        self._settled: asyncio.Future[None] = loop.create_future()
        self._task.add_done_callback(self.leave)
        self._timer = loop.call_later(SOON, self.leave)
        self._taken = asyncio.Event()

    async def soon(self) -> Outcome | None:
        """What it came to; None where it must be taken over: because it takes long, was left, or broke."""
        await self._settled
        task = self._task
        whole = task.done() and not task.cancelled() and task.exception() is None
        return task.result() if whole else None

    def leave(self, _: object = None) -> None:
        """Whoever waits for it is not to wait any longer."""
        self._timer.cancel()
        if not self._settled.done():
            self._settled.set_result(None)

    async def take_over(self) -> Outcome:
        """Raises what it raises; to be cancelled here is to be cancelled there."""
        self._taken.set()
        return await self._task

    async def taken(self) -> None:
        """Return when it has been taken over, or is over."""
        await self._taken.wait()

    async def end(self) -> None:
        """What is not done by now is cancelled."""
        self.leave()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        self._taken.set()


def success(described: Described, result: Any, noted: Noted) -> Outcome:
    """Raises NexusError for a result that JSON cannot hold, KeyInFlight for a run that goes on."""
    if isinstance(result, Started):
        raise KeyInFlight(f"Repeat it later, or look at the run {result.run_id} with runs_get.")
    operation, wraps = described.operation, described.wraps
    try:
        text = msgspec.json.encode(result)
        structured = msgspec.json.decode(text)  # JSON columns may be raw, and come from anywhere
    except Exception as failure:
        logger.exception("what '%s' returned cannot be sent", operation.name)
        raise NexusError(
            f"What '{operation.name}' returned cannot be sent.", remedy="The server's log says why."
        ) from failure
    tag = None if operation.tag is None else operation.tag(result, text)
    if tag is not None and operation.shows_tag:
        text = msgspec.json.encode({**structured, IF_MATCH: tag})
    if wraps or (wraps is None and not isinstance(structured, dict)):
        text = b'{"result":%b}' % text
    return Outcome((text.decode(),), text, _beside(tag, noted))


def refusal(failure: NexusError) -> Outcome:
    """The code, what is wrong and what to do; then the same as JSON.

    Not as structured content: clients that validate it expect the schema of a success even there."""
    described = msgspec.json.encode(failure.describe()).decode()
    return Outcome((f"{failure.code} {failure}", described))


def _beside(tag: str | None, noted: Noted) -> dict[str, Any] | None:
    meta = ({} if tag is None else {ETAG: tag}) | ({REPLAYED: True} if noted.replayed else {})
    return meta or None
