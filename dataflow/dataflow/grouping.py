"""Single statements that write, where only one can write at a time: those that wait become one transaction.

What a write costs there is mostly the disk, which is waited for once in a transaction, and the way to the
connection's thread. So the statements that have come while one is being done are done together: each is
answered when all are kept, each fails by itself, and each is a transaction of its own for who follows the
changes. A statement that nothing waits for goes its way alone.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Sequence
from typing import Any

from dataflow.pool import Slots
from nexus.block import finish
from nexus.call import Call
from nexus.errors import NexusError

_MOST = 64


class Statement:
    """One that waits, or is being done."""

    __slots__ = ("answer", "call", "done", "parameters", "sql")

    def __init__(self, call: Call, sql: str, parameters: Sequence[Any]) -> None:
        self.call = call
        self.sql = sql
        self.parameters = parameters
        self.answer: asyncio.Future[list[Any]] = call.loop.create_future()
        self.done: asyncio.Future[None] | None = None  # what says so of all that are done with it


class Grouping:
    """The statements of one event loop that want the one connection of `slots`. That must have `fetch_group`,
    which gives for each of several statements its rows, or why it failed, when all others are kept."""

    def __init__(self, slots: Slots[Any]) -> None:
        self._slots = slots
        self._busy = False
        self._waiting: deque[Statement] = deque()
        self._working: asyncio.Task[None] | None = None

    async def fetch(self, call: Call, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """As the same on a connection."""
        if self._busy:
            return await self._in_a_group(Statement(call, sql, parameters))
        self._busy = True
        try:
            connection = self._slots.at_once() or await self._slots.take()
            connection.caller = call
            try:
                rows: list[Any] = await connection.fetch(sql, parameters)
                return rows
            finally:
                connection.caller = None
                self._slots.give(connection)
        finally:
            if self._waiting:
                self._working = call.loop.create_task(self._work())
            else:
                self._busy = False

    async def _in_a_group(self, statement: Statement) -> list[Any]:
        self._waiting.append(statement)
        try:
            return await statement.answer
        except asyncio.CancelledError:
            if statement.done is not None:  # it cannot be taken out, and may be kept: until that is known
                await finish(asyncio.wait([statement.done]))
            raise

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._work_once()
        finally:
            self._busy = False
            while self._waiting:  # the event loop ends
                self._waiting.popleft().answer.cancel()

    async def _work_once(self) -> None:
        group: list[Statement] = []
        outcomes: list[list[Any] | NexusError] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            connection = self._slots.at_once() or await self._slots.take()
            try:
                group = self._next(done)
                outcomes = await connection.fetch_group(group)
            finally:
                self._slots.give(connection)
        except NexusError as failure:  # there is no connection
            group = self._next(done)
            outcomes = [copy.copy(failure) for _ in group]
        finally:
            done.set_result(None)
            for place, statement in enumerate(group):
                _tell(statement, outcomes[place] if outcomes else None)

    def _next(self, done: asyncio.Future[None]) -> list[Statement]:
        group: list[Statement] = []
        while self._waiting and len(group) < _MOST:
            statement = self._waiting.popleft()
            if not statement.answer.done():
                statement.done = done
                group.append(statement)
        return group


def _tell(statement: Statement, outcome: list[Any] | NexusError | None) -> None:
    answer = statement.answer
    if answer.done():
        return
    if outcome is None:
        answer.cancel()
    elif isinstance(outcome, NexusError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
