"""Several processes on one database: what is written through one is followed through the others, whoever is
told, and whoever dies between a commit and its sealing."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.dialects.mysql_log import MysqlLog
from dataflow.dialects.postgresql_log import PostgresqlLog
from dataflow.dialects.sqlite_log import SqliteLog
from nexus import LOCAL, Nexus
from nexus.errors import CursorExpired
from nexus_channels.server import running_server
from tests.support.programs import run_sql
from tests.support.wire import wire

pytestmark = pytest.mark.feed

REACHABLE = pytest.mark.databases("file", "postgresql", "mysql")
SERVERS = pytest.mark.databases("postgresql", "mysql")


def application(url: str) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url)

    @db.model
    class Account:
        name: str
        size: int = 0

    return db, Nexus(db, channels=["rest", "websocket"])


async def create(app: Nexus, name: str = "x", count: int = 1) -> None:
    for _ in range(count):
        await app.runtime.invoke("accounts.create", {"name": name}, LOCAL, channel="test")


async def take(changes: Any, count: int, seconds: float = 10) -> list[Any]:
    async with asyncio.timeout(seconds):
        return [await anext(changes) for _ in range(count)]


@pytest.fixture
async def two(database: str) -> AsyncIterator[tuple[Nexus, Nexus]]:
    """Two applications on one database, which know nothing of each other."""
    (_, one), (_, other) = application(database), application(database)
    async with one.running(), other.running():
        await create(one)
        yield one, other


@REACHABLE
async def test_two_servers_on_one_database(database: str) -> None:
    (_, one), (_, other) = application(database), application(database)
    async with running_server(one) as here, running_server(other) as there, wire(there) as line:
        await line.subscribe(topic="accounts")
        async with wire(here) as writer:
            for number in range(20):
                answer = await writer.ask(
                    type="call", id="1", operation="accounts.create", arguments={"name": str(number)}
                )
                assert answer["type"] == "result"
                frame = await line.receive()
                assert (frame["record"]["name"], frame["actor"]) == (str(number), "local")


@REACHABLE
async def test_a_reader_elsewhere_is_told_soon(two: tuple[Nexus, Nexus]) -> None:
    one, other = two
    async with other.feed.subscribe(LOCAL, "accounts") as followed:
        changes = aiter(followed)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(2.5)  # by now the reader only looks once a second
        await create(one)  # and the writer asks whether there is one
        await waiting
        taken = []
        for _ in range(20):
            await create(one)
            begun = time.monotonic()
            await take(changes, 1)
            taken.append(time.monotonic() - begun)
        assert sorted(taken)[10] < 0.2


@REACHABLE
async def test_without_any_wake_up_it_comes_all_the_same(
    two: tuple[Nexus, Nexus], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(self: object, connection: object, seconds: float) -> None:
        await asyncio.sleep(seconds)

    for log in (SqliteLog, PostgresqlLog, MysqlLog):
        monkeypatch.setattr(log, "changed_elsewhere", deaf)
    one, other = two
    async with other.feed.subscribe(LOCAL, "accounts") as followed:
        changes = aiter(followed)
        await create(one, count=3)
        seen = await take(changes, 3)
        await asyncio.sleep(2.5)
        await create(one, count=3)
        seen += await take(changes, 3, 3)
    assert [change.key for change in seen] == [2, 3, 4, 5, 6, 7]


@SERVERS
async def test_who_dies_before_it_seals_loses_nothing(database: str) -> None:
    """A process that ends at once after its commits, as if it were killed."""
    program = f"""
import asyncio, os
from tests.dataflow.test_sealing import application, create
async def main():
    db, app = application({database!r})
    async with app.running():
        await create(app, "last words", 5)
        os._exit(9)
asyncio.run(main())
"""
    _, app = application(database)
    async with app.running(), app.feed.subscribe(LOCAL, "accounts") as followed:
        changes = aiter(followed)
        await create(app)
        await take(changes, 1)
        doomed = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        assert await doomed.wait() == 9
        seen = await take(changes, 5, 5)
    assert [change.record["name"] for change in seen] == ["last words"] * 5
    assert [change.pos for change in seen] == [2, 3, 4, 5, 6]


@SERVERS
async def test_nobody_seals_while_nobody_reads(two: tuple[Nexus, Nexus], database: str) -> None:
    one, other = two
    await create(one, count=5)
    await asyncio.sleep(0.3)
    unsealed = "SELECT count(*) FROM dataflow_changes WHERE pos IS NULL"
    assert await run_sql(database, unsealed) == [(6,)]
    async with other.feed.subscribe(LOCAL, "accounts") as followed:
        assert await run_sql(database, unsealed) == [(0,)]
        await create(one)
        (change,) = await take(aiter(followed), 1)
        assert (change.prev, change.pos) == (6, 7)


@pytest.mark.parametrize("hopeful", [0, 3])
async def test_a_snapshot_is_one_state(database: str, monkeypatch: pytest.MonkeyPatch, hopeful: int) -> None:
    """Whether others are kept from sealing for it or not: each record comes once, in it or after it."""
    monkeypatch.setattr("dataflow.changelog._HOPEFUL", hopeful)
    _, app = application(database)
    async with app.running():
        writing = asyncio.gather(*(create(app, count=60) for _ in range(3)))
        for _ in range(8):
            async with app.feed.subscribe(LOCAL, "accounts", snapshot=True) as followed:
                known = {record["id"] for record in followed.records or ()}
                for change in await take(aiter(followed), min(5, 180 - len(known))):
                    assert (change.event, change.key in known) == ("enter", False)
                    known.add(change.key)
        await writing


@REACHABLE
async def test_a_database_that_was_restored_is_noticed(database: str) -> None:
    _, app = application(database)
    back = (
        "DELETE FROM accounts WHERE id > 3",
        "DELETE FROM dataflow_changes WHERE {} > 3 OR pos IS NULL",
        "UPDATE dataflow_changes_head SET n = 3",
    )
    async with app.running():
        async with app.feed.subscribe(LOCAL, "accounts") as followed:
            await create(app, count=6)
            seen = await take(aiter(followed), 6)
        place = "seq" if database.startswith("sqlite") else "pos"
        steps = [step.format(place) for step in back]
        if place == "seq":
            steps[1] = steps[1].partition(" OR ")[0]
            steps[2] = "UPDATE sqlite_sequence SET seq = 3 WHERE name = 'dataflow_changes'"
        await run_sql(database, *steps)
        assert await refused(app, seen[4].cursor)
        await create(app, "another past", count=4)
        assert await refused(app, seen[4].cursor)
        async with app.feed.subscribe(LOCAL, "accounts", since=seen[2].cursor) as followed:
            (next_one, *_) = await take(aiter(followed), 4)
        assert (next_one.pos, next_one.record["name"]) == (4, "another past")


async def refused(app: Nexus, cursor: str) -> bool:
    try:
        async with app.feed.subscribe(LOCAL, "accounts", since=cursor):
            return False
    except CursorExpired as failure:
        return "restored" in failure.detail


@REACHABLE
async def test_a_reader_keeps_small_what_only_other_programs_write(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.retention._PAUSE", 0.2)
    db = DataFlow(database, changes_max_rows=10)

    @db.model
    class Account:
        name: str

    app = Nexus(db)
    async with app.running():
        await create(app)
    async with app.running(), app.feed.subscribe(LOCAL, "accounts") as followed:
        changes = aiter(followed)
        told = asyncio.ensure_future(anext(changes))
        await run_sql(database, *(f"UPDATE accounts SET name = '{number}'" for number in range(100)))
        await told
        async with asyncio.timeout(10):
            while True:
                ((kept,),) = await run_sql(database, "SELECT count(*) FROM dataflow_changes")
                if kept <= 11:  # a tenth more is not cut back
                    break
                await asyncio.sleep(0.1)
