"""What SQLite reads in the thread of the event loop, and what it leaves to its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dataflow.dialects.sqlite import Sqlite, SqliteConnection
from dataflow.dialects.sqlite_short import LongReads, ShortReads
from nexus.errors import NexusError

_ROWS = 20_000
_LONG = "SELECT a.id FROM t AS a JOIN t AS b ON b.id > a.id WHERE a.name < b.name ORDER BY b.name LIMIT 5"


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteConnection]:
    path = tmp_path / "read.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        made.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"name {n}") for n in range(_ROWS)])
    made.close()
    connection = await Sqlite(str(path)).open_reader()
    yield connection
    await connection.close()


def threads_of(connection: SqliteConnection) -> list[str]:
    """From now on, the threads in which a statement calls the function `where_am_i`."""
    seen: list[str] = []
    connection._driver._conn.create_function(
        "where_am_i", 0, lambda: seen.append(threading.current_thread().name)
    )
    return seen


async def test_a_record_is_read_where_it_was_asked_for(reader: SqliteConnection) -> None:
    seen = threads_of(reader)
    assert await reader.fetch("SELECT name, where_am_i() FROM t WHERE id = ?", (7,)) == [("name 7", None)]
    assert seen == [threading.main_thread().name]


async def test_what_takes_long_holds_nobody_up(reader: SqliteConnection) -> None:
    """The event loop goes on while it is read, and the reader can still be told to end."""
    gaps: list[float] = []

    async def beat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    beating = asyncio.ensure_future(beat())
    reading = asyncio.ensure_future(reader.fetch(_LONG))
    await asyncio.sleep(0.2)
    assert not reading.done()
    assert len(gaps) > 20
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    beating.cancel()
    seen = threads_of(reader)
    assert (await reader.fetch("SELECT where_am_i() FROM t WHERE id = 1")) == [(None,)]
    assert seen == [threading.main_thread().name]


async def test_a_long_statement_is_read_whole_and_then_begun_on_the_thread(reader: SqliteConnection) -> None:
    seen = threads_of(reader)
    sql = "SELECT id, where_am_i() FROM t"
    for _ in range(2):
        assert len(await reader.fetch(sql)) == _ROWS
        assert set(seen[-_ROWS:]).isdisjoint({threading.main_thread().name})
    seen.clear()
    assert len(await reader.fetch(sql)) == _ROWS
    assert threading.main_thread().name not in seen


async def test_rows_are_counted_on_the_thread(reader: SqliteConnection) -> None:
    seen = threads_of(reader)
    assert await reader.fetch("SELECT Count(*), where_am_i() FROM t") == [(_ROWS, None)]
    assert threading.main_thread().name not in seen


def test_a_lock_is_waited_for_on_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    with sqlite3.connect(path) as holder:
        holder.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    holder.execute("BEGIN EXCLUSIVE")  # without a write-ahead log it keeps readers out, too
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reads = ShortReads(connection, LongReads(), busy_ms=50)
    begun = time.perf_counter()
    assert reads.fetch("SELECT id FROM t", ()) is None
    with reads.patient(), pytest.raises(sqlite3.OperationalError, match="locked"):
        connection.execute("SELECT id FROM t").fetchall()
    assert time.perf_counter() - begun >= 0.05
    holder.rollback()
    assert reads.fetch("SELECT id FROM t", ()) == []
    connection.close()
    holder.close()


@pytest.mark.parametrize("sql", ["SELECT nothing FROM t", "INSERT INTO t VALUES (-1, 'x')", "SELECT"])
async def test_what_fails_is_told_as_ever(reader: SqliteConnection, sql: str) -> None:
    with pytest.raises(NexusError):
        await reader.fetch(sql)
    assert await reader.fetch("SELECT name FROM t WHERE id = 1") == [("name 1",)]
