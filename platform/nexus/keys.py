"""Writes with an idempotency key: what is repeated is done once, and answered as it was then.

The answer is kept in the database that is written to, in the transaction of the write: there are both or
neither, whatever ends the process. Of what has failed nothing is kept, and its key is free.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec

from nexus.demands import Demands, Noted
from nexus.errors import InvalidInput, KeyInFlight, KeyReused, NexusError, TooLarge
from nexus.operation import Effect, Operation
from nexus.ports import Column, RecordTable, Replies, Row
from nexus.runs.record import clipped, digest, input_digest, now
from nexus.runs.repeat import repeat_of
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.call import Call
    from nexus.runs.running import Work
    from nexus.runtime import Runtime

logger = logging.getLogger("nexus")

ANSWER_LIMIT = 4 << 20
_PRUNED_EACH = 64  # of so many writes one looks after what has expired, if it is the first for a while
_PRUNED_AGAIN = 60.0
_PRUNED_WITHIN = 1.0

_COLUMNS = "id operation session input_digest created expires"
REPLIES = RecordTable(
    "nexus_replies",
    (
        *(Column(name, "key") for name in _COLUMNS.split()),
        Column("answer", "text"),
    ),
    indexed=("expires",),
)


def takes_key(operation: Operation) -> bool:
    """Whether it may have an idempotency key, as far as it depends on the operation."""
    whole = operation.atomic and not operation.waits
    return operation.effect is not Effect.READ and (operation.recorded or whole)


class Once:
    """A write that is done once. `handle` is its handler, inside of a call that is one transaction."""

    def __init__(self, replies: Replies, key: str, row: Row, noted: Noted) -> None:
        self.id: str = row["id"]
        self._replies = replies
        self._key = key
        self._row = row
        self._noted = noted

    async def handle(self, call: Call, arguments: Any) -> Any:
        """Do it and keep the answer; the answer of the first time, where there is one. Raises KeyInFlight
        and KeyReused."""
        operation = call.operation
        found = await self._replies.find(call, self.id)
        if found is not None and found["expires"] > now():
            if found["input_digest"] != self._row["input_digest"]:
                raise KeyReused(self._key)
            self._noted.replayed = True
            return _revived(found["answer"], operation)
        result = await operation.handler(call, arguments)
        row = {**self._row, "answer": _kept(result, operation)}
        if call.written - {self._replies.resource}:
            raise InvalidInput(
                f"'{operation.name}' has written to another database than that of its answer: it cannot have"
                " an idempotency key.",
                remedy="Nothing was kept. Repeat it without a key.",
            )
        await self._replies.keep(call, row, instead=found is not None)
        return result


class Keys:
    """The writes of one application that have a key. `replies` is for operations that come with none of their
    own."""

    def __init__(self, hours: float = 24.0) -> None:
        self.replies: Replies | None = None
        self._seconds = hours * 3600
        self._going_on: set[tuple[int, str]] = set()
        self._prune_next = 0.0

    async def run(self, runtime: Runtime, work: Work, demands: Demands, noted: Noted) -> Any:
        """Raises InvalidInput for what cannot be done once, KeyInFlight while it is being done."""
        replies = self._replies_of(work.operation)
        once = self._once(replies, work, demands, noted)
        mine = (os.getpid(), once.id)  # a process that was forked meanwhile does nothing of it
        if mine in self._going_on:
            raise KeyInFlight
        self._going_on.add(mine)
        try:
            result = await runtime.perform(msgspec.structs.replace(work, once=once))
        finally:
            self._going_on.discard(mine)
        if not noted.replayed:
            await self._prune(replies)
        return result

    def _replies_of(self, operation: Operation) -> Replies:
        replies = operation.replies or self.replies
        if replies is None:
            raise InvalidInput(
                f"'{operation.name}' has no database in which its answer could be kept: it cannot have an"
                " idempotency key.",
                remedy="Look whether it was done before you repeat it.",
            )
        if operation.waits or not operation.atomic:
            raise InvalidInput(
                f"'{operation.name}' is not one transaction, and its runs are not recorded: it cannot have an"
                " idempotency key.",
                remedy="Look whether it was done before you repeat it.",
            )
        return replies

    def _once(self, replies: Replies, work: Work, demands: Demands, noted: Noted) -> Once:
        session: Session = work.session
        row = {
            "id": repeat_of(session, work.operation, demands.key or ""),
            "operation": work.operation.name,
            "session": clipped(session.id),
            "input_digest": _asked(work, demands),
            "created": now(),
            "expires": now(self._seconds),
        }
        return Once(replies, demands.key or "", row, noted)

    async def _prune(self, replies: Replies) -> None:
        moment = time.monotonic()
        if random.random() * _PRUNED_EACH >= 1 or moment < self._prune_next:
            return
        self._prune_next = moment + _PRUNED_AGAIN
        try:
            async with asyncio.timeout(_PRUNED_WITHIN):
                await replies.prune(now())
        except (NexusError, TimeoutError) as failure:
            logger.warning("old idempotency keys are not deleted: %s", failure)


def _asked(work: Work, demands: Demands) -> str:
    """Equal for equal arguments of which the same was demanded."""
    others = msgspec.structs.replace(demands, key=None, sent=None)
    given = work.given if demands.sent is None else demands.sent
    return digest(input_digest(given), msgspec.json.encode(others, order="sorted").decode())


def _kept(result: Any, operation: Operation) -> str:
    """An answer as it is kept. Raises NexusError for one that JSON cannot hold, TooLarge."""
    try:
        text = msgspec.json.encode(result)
    except Exception as failure:  # whatever the value's own code raises
        logger.exception("what '%s' returned cannot be kept", operation.name)
        raise NexusError(
            f"What '{operation.name}' returned cannot be kept under an idempotency key: JSON cannot hold it.",
            remedy="Nothing was kept. The server's log says why.",
        ) from failure
    if len(text) > ANSWER_LIMIT:
        raise TooLarge(
            f"The answer of '{operation.name}' has {len(text)} bytes: under an idempotency key at most"
            f" {ANSWER_LIMIT} are kept.",
            remedy="Nothing was kept. Do it in parts, each with a key of its own, or ask for less.",
        )
    return text.decode()


def _revived(answer: str, operation: Operation) -> Any:
    """What was returned then, as far as that is the same JSON again, to the byte."""
    text = answer.encode()
    for wanted in (operation.output, Any):
        try:
            result = msgspec.json.decode(text, type=wanted)
        except (msgspec.ValidationError, TypeError):  # the declaration has changed, or is none of JSON
            continue
        if msgspec.json.encode(result) == text:
            return result
    return msgspec.Raw(text)
