"""One connection to MariaDB or MySQL: statements that can be cancelled, names that are held, who writes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiomysql
import pymysql

from dataflow.dialects import mysql_log
from dataflow.dialects.base import Done, isolation_sql
from dataflow.dialects.log import identity
from dataflow.dialects.mysql_driver import Cursor, check_single
from dataflow.dialects.mysql_errors import translated
from dataflow.dialects.values import named
from nexus.block import finish
from nexus.call import Call
from nexus.errors import Unavailable
from nexus.ports import Isolation

logger = logging.getLogger("nexus")

LOCK_SECONDS = 30
_CANCEL_AGAIN = 0.2


class MysqlConnection:
    """One connection. A statement that is cancelled is cancelled in the server too: in a transaction so that
    the connection can be used on; else the driver closes the connection, and the server is told to."""

    __slots__ = (
        "_cancel",
        "_driver",
        "_keys",
        "_locked",
        "_open",
        "_signed",
        "_txn",
        "caller",
        "seen",
        "seen_at",
    )

    def __init__(
        self, driver: aiomysql.Connection, keys: Mapping[str, str], cancel: Callable[[str], Awaitable[None]]
    ) -> None:
        self.caller: Call | None = None
        self._driver = driver
        self._keys = keys
        self._cancel = cancel
        self._open = False  # a transaction
        self._locked: list[str] = []  # names, until its end
        self._txn = ""  # what the changes of the open transaction are known by
        self._signed: mysql_log.Signature | None = mysql_log.UNSIGNED  # what triggers know; None: unsure
        self.seen: int | None = None  # the position of the log, when this connection looked last
        self.seen_at = 0.0

    @property
    def usable(self) -> bool:
        return not self._driver.closed

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = await self._run(sql, parameters)
        rows: list[Any] = await cursor.fetchall()  # at once: the driver has read them all
        return rows

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        cursor = await self._run(sql, parameters)
        return Done(cursor.rowcount, cursor.lastrowid or 0)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        check_single(sql)
        cursor = await self._run(sql, parameters)
        rows = await cursor.fetchall() if cursor.description else ()
        return named([column[0] for column in cursor.description or ()], rows)

    async def run(self, sql: str) -> None:
        await self._run(sql, None)

    async def lock(self, names: Sequence[str]) -> None:
        """Hold names until the transaction ends: the server itself would hold them until the connection
        does."""
        if not await self._lock(names, LOCK_SECONDS):
            raise Unavailable("Another transaction was in the way.", remedy="Try again.")

    async def try_lock(self, name: str) -> bool:
        """The same without waiting."""
        return await self._lock([name], 0)

    async def _lock(self, names: Sequence[str], seconds: int) -> bool:
        self._locked += names
        wanted = ", ".join(["GET_LOCK(%s, %s)"] * len(names))
        values = [value for name in names for value in (name, seconds)]
        (held,) = await self.fetch(f"SELECT {wanted}", values)
        return all(one == 1 for one in held)

    async def _unlock(self) -> None:
        if self._locked:
            names, self._locked = self._locked, []
            await self.fetch(f"SELECT {', '.join(['RELEASE_LOCK(%s)'] * len(names))}", names)

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for parameters in rows:
            await self.fetch(sql, parameters)

    def escape(self, value: Any) -> str:
        """A value as it is written in a statement that `run` is given."""
        text: str = self._driver.escape(value)
        return text

    async def run_many(self, about: str, statements: Iterable[tuple[str, int]]) -> list[tuple[Done, int]]:
        """Run statements as they are written; what each did, and the number that stands beside it. `about`
        is for the log: it has no values."""
        done = []
        for sql, count in statements:
            cursor = await self._run(sql, None)
            done.append((Done(cursor.rowcount, cursor.lastrowid or 0), count))
        return done

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        if isolation is not None or not write:
            level = isolation_sql(isolation or "repeatable_read")
            await self.fetch(f"SET TRANSACTION ISOLATION LEVEL {level}{'' if write else ', READ ONLY'}")
        await self.fetch("START TRANSACTION")
        self._open, self._txn = True, secrets.token_hex(8)

    async def commit(self) -> None:
        await self.fetch("COMMIT")
        self._open, self._txn = False, ""
        await self._unlock()

    async def rollback(self) -> None:
        if self._open and self.usable:
            await self.fetch("ROLLBACK")
            await self._unlock()
        self._open, self._txn = False, ""

    async def close(self) -> None:
        self._driver.close()

    async def _run(self, sql: str, parameters: Sequence[Any] | None) -> Cursor:
        try:
            if not self._open:
                return await self._execute(sql, parameters)
            running = asyncio.ensure_future(self._execute(sql, parameters))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await finish(self._stop(running))
                raise
        except asyncio.CancelledError:
            if not self.usable:
                await finish(self._try_cancel(f"CONNECTION {self._driver.thread_id()}"))
            raise
        except Exception as failure:
            raise translated(failure, self._keys) from failure

    async def _execute(self, sql: str, parameters: Sequence[Any] | None) -> Cursor:
        cursor: Cursor = await self._driver.cursor(Cursor)
        signed = identity(self.caller), self._txn
        if self._signed != signed and mysql_log.may_write(sql):
            await self._execute_signed(cursor, signed, sql, parameters)
        else:
            await cursor.execute(sql, parameters)
        return cursor

    async def _execute_signed(
        self, cursor: Cursor, signed: mysql_log.Signature, sql: str, parameters: Sequence[Any] | None
    ) -> None:
        text = sql if parameters is None else cursor.mogrify(sql, parameters)
        before, self._signed = self._signed, None
        await cursor.execute(mysql_log.signature(signed, before, self._driver.escape) + text)
        self._signed = signed
        await cursor.nextset()

    async def _stop(self, running: asyncio.Future[Any]) -> None:
        """Have the server end what runs. It is told again until it has: a word may come too early."""
        while not running.done():
            if not await self._try_cancel(f"QUERY {self._driver.thread_id()}"):
                self._driver.close()
            await asyncio.wait([running], timeout=_CANCEL_AGAIN)
        if not running.cancelled():
            running.exception()  # whatever became of it, nobody waits for it
        with contextlib.suppress(pymysql.err.OperationalError):
            await self._execute("DO 0", ())  # takes a word that came too late

    async def _try_cancel(self, what: str) -> bool:
        try:
            await self._cancel(what)
        except (OSError, pymysql.err.MySQLError):
            logger.exception("a statement of a cancelled task may go on in the database server")
            return False
        return True
