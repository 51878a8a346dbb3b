"""A database server that dies and comes back under an application that writes and follows."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nexus import LOCAL, Nexus
from nexus.errors import NexusError
from tests.dataflow.test_storm import Reader, stored
from tests.support.programs import run_sql
from tests.support.storm import application

pytestmark = pytest.mark.feed

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "databases"))

import private  # noqa: E402
from processes import Unavailable, identity  # noqa: E402
from servers import MariaDB, PostgreSQL  # noqa: E402

DURABLE = {  # the servers of tests are quick instead
    "PostgreSQL": "ALTER DATABASE nexus_test SET synchronous_commit = on",
    "MariaDB": "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
}


@asynccontextmanager
async def own_server(server: Any) -> AsyncIterator[Callable[[], Any]]:
    """A directory of data, and what starts a server on it, always at the same address."""
    try:
        tools, options = server.find(), identity(server.accounts)
    except Unavailable as reason:
        pytest.skip(str(reason))
    directory = Path(tempfile.mkdtemp(prefix="nexus-restart-"))
    port = private.free_port()
    try:
        if options:
            os.chown(directory, options["user"], options["group"])
        options["cwd"] = directory
        await private.fill(server, tools, directory / "data", options)
        yield lambda: private.started(server, tools, directory, options, port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def write(app: Nexus, done: asyncio.Event) -> int:
    """One record after the other, whatever happens; how many were acknowledged."""
    kept = key = 0
    while not done.is_set():
        key += 1
        with suppress(NexusError):
            await app.runtime.invoke("accounts.create", {"id": key, "owner": "w"}, LOCAL, channel="test")
            kept += 1
        await asyncio.sleep(0.01)
    return kept


async def read(reader: Reader, done: asyncio.Event) -> None:
    while not done.is_set():
        try:
            await reader.visit()
        except NexusError:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("server", [PostgreSQL(), MariaDB()], ids=lambda server: server.name)
async def test_a_restart_loses_nothing(server: Any) -> None:
    async with own_server(server) as start:
        async with asyncio.timeout(100), start() as url:
            await run_sql(url, DURABLE[server.name])
            db, app = application(url)
            running = app.running()
            await running.__aenter__()
            await db.accounts.count()
            done = asyncio.Event()
            reader = Reader(app, 1)
            working = asyncio.gather(write(app, done), read(reader, done))
            await asyncio.sleep(1)
            if server.name == "PostgreSQL":
                await kill_backends(url)
                await asyncio.sleep(3)
        async with asyncio.timeout(100), start():
            await asyncio.sleep(2)
            done.set()
            kept, _ = await working
            head, expected = await settled(app, db)
            while reader.kept is None or reader.kept[2] < head:
                await reader.visit()
            assert reader.kept[0] == expected
            assert len(expected) >= kept > 50
            await running.__aexit__(None, None, None)


async def kill_backends(url: str) -> None:
    """As the kernel does when memory is short; the server then ends all others and recovers."""
    ((pid,),) = await run_sql(
        url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'nexus' ORDER BY pid LIMIT 1"
    )
    os.kill(pid, signal.SIGKILL)


async def settled(app: Nexus, db: Any) -> tuple[int, dict[Any, Any]]:
    """The end of the log and the table, once the pools have forgotten the dead connections."""
    while True:
        with suppress(NexusError):
            return (await db.changes.head("accounts")).pos, await stored(app)
        await asyncio.sleep(0.05)
