"""Wild writers in several processes, one of them killed; readers that come and go with what they know. In the
end each knows what the table holds, and on the way nothing was lost, twice, or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from nexus import LOCAL, Nexus
from nexus_channels.server import running_server
from tests.support.programs import kind_of, run_sql
from tests.support.storm import application
from tests.support.wire import wire

pytestmark = pytest.mark.feed

ORDER = "SELECT {}, seq, pk, txn FROM dataflow_changes ORDER BY 1"

LONG = os.environ.get("NEXUS_TEST_PROFILE") == "long"
WRITERS, TRANSACTIONS, READERS = (8, 625, 5) if LONG else (3, 25, 3)


class Reader:
    """Keeps a copy of the table by its changes. It leaves at random moments, and comes back with the state
    and the cursor that it has last written down, which may be old ones."""

    def __init__(self, app: Nexus, seed: int) -> None:
        self.app = app
        self.chance = random.Random(seed)
        self.kept: tuple[dict[Any, Any], str, int] | None = None
        self.state: dict[Any, Any] = {}
        self.last = -1
        self.visits = 0

    async def visit(self) -> None:
        self.visits += 1
        since = self.kept[1] if self.kept else None
        async with self.app.feed.subscribe(LOCAL, "accounts", since=since, snapshot=True) as followed:
            if self.kept is None:
                assert followed.records is not None
                self.state, self.last = {record["id"]: record for record in followed.records}, -1
                self.kept = (dict(self.state), followed.cursor, self.last)
            else:
                self.state, _, self.last = dict(self.kept[0]), *self.kept[1:]
            try:
                async with asyncio.timeout(self.chance.random() * 1.5 + 0.05):
                    async for change in followed:
                        self.apply(change)
                        if self.chance.random() < 0.1:
                            self.kept = (dict(self.state), change.cursor, change.pos)
            except TimeoutError:
                if self.chance.random() < 0.7:
                    self.kept = (dict(self.state), followed.cursor, self.last)

    def apply(self, change: Any) -> None:
        assert change.pos == change.prev + 1
        assert self.last in (-1, change.prev)
        assert change.old == self.state.get(change.key)
        self.last = change.pos
        if change.record is None:
            del self.state[change.key]
        else:
            self.state[change.key] = change.record


class SocketReader(Reader):
    """The same over a websocket, which it drops without a word."""

    def __init__(self, app: Nexus, seed: int, url: str) -> None:
        super().__init__(app, seed)
        self.url = url

    async def visit(self) -> None:
        self.visits += 1
        since = self.kept[1] if self.kept else None
        async with wire(self.url) as line:
            await line.send(type="subscribe", id="s", topic="accounts", since=since, snapshot=True)
            if self.kept is None:
                self.state, more = {}, True
                while more:
                    part = await line.receive()
                    self.state |= {record["id"]: record for record in part["records"]}
                    more = part["more"]
                self.last = -1
            else:
                self.state, self.last = dict(self.kept[0]), self.kept[2]
            ready = await line.receive()
            assert ready["type"] == "ready"
            self.kept = self.kept or (dict(self.state), ready["cursor"], -1)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.chance.random() * 1.5 + 0.05):
                    while True:
                        frame = msgspec.json.decode(await line.connection.recv())
                        self.apply(SimpleNamespace(**frame))
                        if self.chance.random() < 0.3:
                            self.kept = (dict(self.state), frame["cursor"], frame["pos"])
            line.connection.transport.abort()


async def check_log(url: str) -> None:
    """The changes of a transaction stand together, those of a record in the order of their numbers."""
    rows = await run_sql(url, ORDER.format("seq" if kind_of(url) == "sqlite" else "pos"))
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    transactions = [txn for txn, _ in groupby(rows, itemgetter(3))]
    assert None not in transactions
    assert len(set(transactions)) == len(transactions) < len(rows)
    last: dict[str, int] = {}
    for _, seq, key, _ in rows:
        assert last.get(key, 0) < seq
        last[key] = seq


async def stored(app: Nexus) -> dict[Any, Any]:
    listed = await app.runtime.invoke("accounts.list", {"limit": 1000}, LOCAL, channel="test")
    return {record.id: msgspec.structs.asdict(record) for record in listed.records}


@pytest.mark.databases("file", "postgresql", "mysql")
async def test_every_reader_ends_with_what_the_table_holds(database: str) -> None:
    db, app = application(database, channels=("websocket",))
    seed = random.randrange(10**6)
    print("seed", seed)

    async def write(number: int, count: int) -> asyncio.subprocess.Process:
        arguments = (database, str(seed + number), str(count))
        return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.support.storm", *arguments)

    async with running_server(app) as url:
        await db.accounts.count()
        writers = [await write(number, TRANSACTIONS) for number in range(WRITERS)]
        doomed = await write(1000, 100_000)
        readers = [Reader(app, seed + number) for number in range(READERS)]
        readers += [SocketReader(app, seed - number, url) for number in range(1, READERS)]
        try:
            async with asyncio.timeout(600 if LONG else 60):
                done = asyncio.gather(*(writer.wait() for writer in writers))

                async def read(reader: Reader) -> None:
                    while doomed.returncode is None:
                        await reader.visit()

                reading = asyncio.gather(*map(read, readers))
                assert await done == [0] * WRITERS
                doomed.kill()
                await doomed.wait()
                await reading
                (head, expected) = (await db.changes.head("accounts")).pos, await stored(app)
                assert head > WRITERS * TRANSACTIONS / 4
                await check_log(database)
                for reader in readers:
                    while reader.kept is None or reader.kept[2] < head or reader.visits < 2:
                        await reader.visit()
                    as_told = msgspec.to_builtins(expected, str_keys=False)
                    assert reader.kept[0] == (as_told if isinstance(reader, SocketReader) else expected)
        finally:
            for process in (*writers, doomed):
                if process.returncode is None:
                    process.kill()
                    await process.wait()
