"""Statements in the log, for those who ask for them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar

from dataflow.dialects.base import Connection, Done
from nexus.call import Call
from nexus.errors import NexusError
from nexus.ports import Isolation

T = TypeVar("T")

logger = logging.getLogger("dataflow.sql")


def prepare_logging() -> None:
    """Let the statements be seen, also in a program that has set up no logging."""
    logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())


class EchoedConnection:
    """A connection whose statements are logged, their values only when `values` asks for them."""

    def __init__(self, connection: Connection, values: bool) -> None:
        self._connection = connection
        self._values = values

    @property
    def caller(self) -> Call | None:
        return self._connection.caller

    @caller.setter
    def caller(self, call: Call | None) -> None:
        self._connection.caller = call

    @property
    def usable(self) -> bool:
        return self._connection.usable

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        self._log(sql, parameters)
        return await self._told(self._connection.fetch(sql, parameters))

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        self._log(sql, parameters)
        return await self._told(self._connection.execute(sql, parameters))

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        self._log(sql, parameters)
        return await self._told(self._connection.query(sql, parameters))

    async def run(self, sql: str) -> None:
        self._log(sql)
        await self._told(self._connection.run(sql))

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._log_each(sql, rows)
        await self._told(self._connection.execute_each(sql, rows))

    async def run_many(self, about: str, statements: Iterable[tuple[str, Any]]) -> Any:
        if not self._values:
            self._log(about)
            return await self._told(self._own.run_many(about, statements))
        shown = list(statements)
        for sql, beside in shown:
            self._log(sql, beside if isinstance(beside, Sequence) else ())
        return await self._told(self._own.run_many(about, shown))

    def escape(self, value: Any) -> str:
        text: str = self._own.escape(value)
        return text

    async def lock(self, names: Sequence[str]) -> None:
        self._log(f"GET_LOCK of {len(names)}")
        await self._own.lock(names)

    async def try_lock(self, name: str) -> bool:
        self._log("GET_LOCK without waiting")
        held: bool = await self._own.try_lock(name)
        return held

    async def complete_log(self) -> None:
        await self._own.complete_log()

    @property
    def _own(self) -> Any:
        """The connection, for what only the dialect that asks knows it can do."""
        return self._connection

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        self._log("BEGIN")
        await self._connection.begin(write=write, isolation=isolation)

    async def commit(self) -> None:
        self._log("COMMIT")
        await self._connection.commit()

    async def rollback(self) -> None:
        self._log("ROLLBACK")
        await self._connection.rollback()

    async def close(self) -> None:
        await self._connection.close()

    async def _told(self, work: Awaitable[T]) -> T:
        """What fails is logged, too: in the database's own words, which may hold values, where values are."""
        try:
            return await work
        except NexusError as failure:
            own = failure.__cause__ if self._values else None
            logger.info("failed: %s", failure.detail if own is None else f"{type(own).__name__}: {own}")
            raise

    def _log_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if self._values:
            for parameters in rows:
                self._log(sql, parameters)
        else:
            self._log(f"{sql.strip()}  ({len(rows)} times)")

    def _log(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        if self._values and parameters:
            logger.info("%s  %r", sql.strip(), tuple(parameters))
        else:
            logger.info("%s", sql.strip())
