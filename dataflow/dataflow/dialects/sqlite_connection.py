"""One connection to SQLite and its thread: statements that can be cancelled, and who they are for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec

from dataflow import lists
from dataflow.dialects import sqlite_log, sqlite_types
from dataflow.dialects.base import Done
from dataflow.dialects.log import NOBODY, Identity, identity
from dataflow.dialects.numbering import used_up
from dataflow.dialects.sqlite_errors import translated
from dataflow.dialects.sqlite_short import LongReads, ShortReads
from dataflow.dialects.values import json_text, named
from dataflow.fields import INT_MAX
from dataflow.grouping import Statement
from nexus.block import finish
from nexus.call import Call
from nexus.errors import NexusError, Unavailable
from nexus.ports import Isolation

BUSY_MS = 5000
"""So long a statement waits for another program's lock."""
_TRY_AGAIN = 0.02
_INTERRUPT = 0.02


class SqliteConnection:
    """One connection and its thread, which runs statements in the order they were given; but for short reads,
    which are done at once."""

    __slots__ = (
        "_busy",
        "_driver",
        "_known",
        "_serving",
        "_short",
        "_txn",
        "_who",
        "caller",
        "seen_version",
        "wal",
    )

    def __init__(self, driver: aiosqlite.Connection, path: Path) -> None:
        self.caller: Call | None = None
        self.wal = f"{path}-wal"
        self.seen_version: int | None = None  # of the data, when this connection looked last
        self._driver = driver
        self._serving: Call | None = None  # whose statement the thread is running
        self._known: Call | None = None  # whose identity this is
        self._who: Identity = NOBODY
        self._txn: str | None = None  # what the changes of this transaction are known by, once there are any
        self._busy = False
        self._short: ShortReads | None = None

    def read_shortly(self, long: LongReads) -> None:
        """From now on it is asked for nothing but to read, one statement after the other."""
        self._short = ShortReads(self._driver._conn, long, BUSY_MS)

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if self._short is not None:
            try:
                rows = self._short.fetch(sql, parameters)
            except (sqlite3.Error, OverflowError, UnicodeEncodeError) as failure:
                raise translated(failure) from failure
            if rows is not None:
                return rows
        return await self._on_thread(self._fetch, sql, parameters)

    async def fetch_group(self, group: Sequence[Statement]) -> list[list[Any] | NexusError]:
        """The rows of each of several statements, or why it failed: of those nothing is kept. The others are
        kept, all of them."""
        try:
            outcomes = await self._driver._execute(self._fetch_group, group)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            await finish(self._interrupted())
            raise
        return [await self._told(each) if isinstance(each, Exception) else each for each in outcomes]

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._on_thread(self._execute_each, sql, rows)

    async def run_many(
        self, about: str, statements: Sequence[tuple[str, Sequence[Any]]]
    ) -> tuple[int, list[Any]]:
        """Run statements with their parameters, one after the other: how many records they found in all, and
        the rows that they gave. `about` is for the log."""
        rows = await self._on_thread(self._run_many, statements)
        return rows.pop(), rows

    async def _on_thread(self, work: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
        if self._short is not None:
            work = functools.partial(_patiently, self._short, work)
        try:
            # The caller goes along with its statement: a cancelled one may still run when the next begins.
            rows: list[Any] = await self._driver._execute(  # type: ignore[no-untyped-call]
                work, self.caller, *arguments
            )
        except asyncio.CancelledError:
            await finish(self._interrupted())
            raise
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as failure:
            raise await self._told(failure) from failure
        return rows

    async def _told(self, failure: Exception) -> NexusError:
        """Our error. SQLite calls it a full disk, too, when it cannot number another record."""
        if getattr(failure, "sqlite_errorname", "") == "SQLITE_FULL":
            last = f"SELECT 1 FROM sqlite_sequence WHERE seq = {INT_MAX}"
            with contextlib.suppress(sqlite3.Error):  # a table that there is only where records are numbered
                if await self._driver._execute(self._fetch, None, last, ()):  # type: ignore[no-untyped-call]
                    return used_up()
        return translated(failure)

    @property
    def usable(self) -> bool:
        return True

    async def write_ahead(self) -> None:
        """Use the write-ahead log. The first to open a file changes the file for that, and others who come
        at the same moment are refused at once, whatever the time limit for locks is: so they try again."""
        clock = asyncio.get_running_loop().time
        until = clock() + BUSY_MS / 1000
        while True:
            try:
                await self.fetch("PRAGMA journal_mode = WAL")
                return
            except Unavailable:
                if clock() > until:
                    raise
                await asyncio.sleep(_TRY_AGAIN)

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        ((found, key),) = await self._on_thread(self._execute, sql, parameters)
        return Done(found, key)

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        names, *rows = await self._on_thread(self._query, sql, parameters)
        return named(names, rows)

    async def run(self, sql: str) -> None:
        await self.fetch(sql)

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        # Every transaction here is serializable, and so at least what was asked for.
        await self.fetch("BEGIN IMMEDIATE" if write else "BEGIN")

    async def commit(self) -> None:
        await self.fetch("COMMIT")

    async def rollback(self) -> None:
        if self._driver.in_transaction:
            await self.fetch("ROLLBACK")

    async def close(self) -> None:
        if (
            self._busy
        ):  # else it would be the closing itself that is interrupted, and the log would stay behind
            await self._driver.interrupt()
        await self._driver._execute(_calmed, self._driver._conn)  # type: ignore[no-untyped-call]
        await self._driver.close()

    async def _interrupted(self) -> None:
        """Return when the thread has ended what it was given, which it is told to end at once."""
        last = asyncio.ensure_future(self._driver._execute(_nothing))  # type: ignore[no-untyped-call]
        while not last.done():  # more than once: the statement may have been waiting still
            await self._driver.interrupt()
            await asyncio.wait([last], timeout=_INTERRUPT)
        last.result()

    async def become_exact(self) -> None:
        """Have this connection reckon decimals."""
        await self._driver._execute(  # type: ignore[no-untyped-call]
            sqlite_types.add_functions, self._driver._conn
        )

    async def become_writer(self, *, make: bool) -> None:
        """Have this connection's changes say who made them; make the log's tables if they are missing."""
        tables = await self.fetch("SELECT count(*) FROM sqlite_master WHERE name LIKE 'dataflow_changes%'")
        if tables[0][0] < len(sqlite_log.SYSTEM_TABLES):
            if not make:
                return
            await self.begin(write=True)
            for sql in (*sqlite_log.SYSTEM_TABLES, sqlite_log.FIRST_HEAD):
                await self.fetch(sql)
            await self.commit()
        if make and await self.missing_of_log():
            await self.begin(write=True)
            await self.complete_log()
            await self.commit()
        await self._driver.create_function(sqlite_log.CALLER, 1, self._about_caller)
        for change in (lists.push, lists.add, lists.pull):
            name, function = f"nexus_{change.__name__}", _on_json(change)
            await self._driver.create_function(name, 2, function, deterministic=True)
        await self.fetch(sqlite_log.stamp_sql(await self._log_columns()))

    async def complete_log(self) -> None:
        """Add to a log what it has not kept until now. It takes a transaction."""
        for sql in await self.missing_of_log():
            await self.fetch(sql)

    async def missing_of_log(self) -> list[str]:
        return sqlite_log.completed_sql(await self._log_columns())

    async def _log_columns(self) -> list[str]:
        return [
            name for (name,) in await self.fetch("SELECT name FROM pragma_table_info('dataflow_changes')")
        ]

    def _serve(self, caller: Call | None) -> None:
        self._serving, self._busy = caller, True
        if not self._driver._conn.in_transaction:
            self._txn = None  # a statement is one by itself, unless it begins one

    def _fetch(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            return self._driver._conn.execute(sql, parameters).fetchall()
        finally:
            self._busy = False

    def _fetch_group(self, group: Sequence[Statement]) -> list[list[Any] | Exception]:
        connection = self._driver._conn
        if len(group) > 1:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as failure:
                return [failure for _ in group]
            outcomes = []
            # One that fails is undone by itself; what undoes more ends the transaction.
            for statement in group:
                if connection.in_transaction:
                    outcomes.append(self._attempt(statement))
            try:
                if connection.in_transaction:
                    connection.execute("COMMIT")
                    return outcomes
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        return [self._attempt(statement) for statement in group]

    def _attempt(self, statement: Statement) -> list[Any] | Exception:
        self._txn = None
        try:
            return self._fetch(statement.call, statement.sql, statement.parameters)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as failure:
            return failure

    def _query(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            cursor = self._driver._conn.execute(sql, parameters)
            return [[column[0] for column in cursor.description or ()], *cursor.fetchall()]
        finally:
            self._busy = False

    def _execute_each(self, caller: Call | None, sql: str, rows: Sequence[Sequence[Any]]) -> list[Any]:
        self._serve(caller)
        try:
            self._driver._conn.executemany(sql, rows)
            return []
        finally:
            self._busy = False

    def _run_many(self, caller: Call | None, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        self._serve(caller)
        try:
            execute, found = self._driver._conn.execute, 0
            rows: list[Any] = []
            for sql, parameters in statements:
                cursor = execute(sql, parameters)
                rows += cursor.fetchall()
                found += cursor.rowcount
            rows.append(found)
            return rows
        finally:
            self._busy = False

    def _execute(self, caller: Call | None, sql: str, parameters: Sequence[Any]) -> list[Any]:
        self._serve(caller)
        try:
            cursor = self._driver._conn.execute(sql, parameters)
            return [(cursor.rowcount, cursor.lastrowid or 0)]
        finally:
            self._busy = False

    def _about_caller(self, part: int) -> str | None:
        if part == sqlite_log.TXN:
            if self._txn is None:
                self._txn = secrets.token_hex(8)
            return self._txn
        if self._serving is not self._known:
            self._known, self._who = self._serving, identity(self._serving)
        return self._who[part] or None


def _on_json(change: Callable[[Any, Any], Any]) -> Callable[[str | None, str], str | None]:
    def changed(stored: str | None, elements: str) -> str | None:
        known = None if stored is None else msgspec.json.decode(stored)
        result = change(known, msgspec.json.decode(elements))
        return None if result is None else json_text(result)

    return changed


def _calmed(connection: sqlite3.Connection) -> None:
    """An interruption that came when nothing ran any more holds until the next statement begins: without one
    the closing would be interrupted, and leave the log behind."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("SELECT 1").fetchone()


def _nothing() -> None:
    """Something for the thread to end after everything else."""


def _patiently(short: ShortReads, work: Callable[..., list[Any]], *given: Any) -> list[Any]:
    with short.patient():
        return work(*given)
