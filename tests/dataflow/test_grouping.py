"""Writes that come together to SQLite, and are done in one transaction: each as if it had been alone."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, NexusError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def shop(path: Path) -> AsyncIterator[DataFlow]:
    db = DataFlow(f"sqlite:///{path}")

    @db.model
    class Product:
        id: str
        name: str
        stock: int = 0

    await db.products.create(id="first", name="first")
    yield db
    await db.close()


async def create_all(db: DataFlow, names: list[str]) -> list[Any]:
    made = [db.products.create(id=name, name=name) for name in names]
    return await asyncio.gather(*made, return_exceptions=True)


def stored(path: Path, sql: str = "SELECT id FROM products ORDER BY id") -> list[Any]:
    with sqlite3.connect(path) as reading:
        rows = reading.execute(sql).fetchall()
    reading.close()
    return [row[0] if len(row) == 1 else row for row in rows]


async def test_each_is_answered_with_its_own(shop: DataFlow, path: Path) -> None:
    names = [f"p{number:02}" for number in range(80)]
    assert [record["name"] for record in await create_all(shop, names)] == names
    assert stored(path) == ["first", *names]


async def test_each_is_a_transaction_of_its_own_in_the_log(shop: DataFlow, path: Path) -> None:
    names = [f"p{number}" for number in range(12)]
    await create_all(shop, names)
    logged = stored(path, "SELECT pk, txn FROM dataflow_changes ORDER BY seq")
    assert sorted(key.strip('"') for key, _ in logged) == sorted(["first", *names])
    assert len({txn for _, txn in logged}) == len(logged)


async def test_what_fails_fails_alone(shop: DataFlow, path: Path) -> None:
    names = ["a", "b", "a", "c", "first", "d", "a", "e"]
    made = await create_all(shop, names)
    assert [isinstance(each, Conflict) for each in made] == [
        name == "first" or name in names[:place] for place, name in enumerate(names)
    ]
    assert stored(path) == ["a", "b", "c", "d", "e", "first"]


async def test_what_ends_the_whole_transaction_takes_nothing_from_the_others(
    shop: DataFlow, path: Path
) -> None:
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER no_bad BEFORE INSERT ON products WHEN NEW.name LIKE 'bad%'"
            " BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )
    other.close()
    made = await create_all(shop, ["a", "b", "bad1", "c", "bad2", "d"])
    assert [isinstance(each, NexusError) for each in made] == [False, False, True, False, True, False]
    assert stored(path) == ["a", "b", "c", "d", "first"]


async def test_what_only_the_commit_finds_takes_nothing_from_the_others(shop: DataFlow, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.executescript(
            "CREATE TABLE kinds (id TEXT PRIMARY KEY);"
            "CREATE TABLE notes (id TEXT REFERENCES kinds (id) DEFERRABLE INITIALLY DEFERRED);"
            "CREATE TRIGGER note AFTER INSERT ON products WHEN NEW.name LIKE 'bad%'"
            " BEGIN INSERT INTO notes VALUES (NEW.name); END;"
        )
    other.close()
    made = await create_all(shop, ["a", "b", "bad", "c", "d"])
    assert [isinstance(each, NexusError) for each in made] == [False, False, True, False, False]
    assert stored(path) == ["a", "b", "c", "d", "first"]


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_who_goes_away_takes_nothing_from_the_others(shop: DataFlow, path: Path, turns: int) -> None:
    tasks = [asyncio.ensure_future(shop.products.create(id=name, name=name)) for name in "abcdef"]
    for _ in range(turns):
        await asyncio.sleep(0)
    tasks[3].cancel()
    made = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, dict) for each in made if each is not made[3]] == [True] * 5
    kept = isinstance(made[3], dict)
    there = stored(path)
    assert {"a", "b", "c", "e", "f"} <= set(there)
    if kept:
        assert "d" in there
    await asyncio.sleep(0.05)
    assert stored(path) == there  # nothing is written any more after it was told


async def test_transactions_have_their_turn(shop: DataFlow, path: Path) -> None:
    async def change() -> None:
        async with shop.transaction():
            stock = (await shop.products.get("first"))["stock"]
            await shop.products.update("first", stock=stock + 1)

    names = [f"p{number}" for number in range(30)]
    await asyncio.gather(
        create_all(shop, names[:15]), *[change() for _ in range(5)], create_all(shop, names[15:])
    )
    assert (await shop.products.get("first"))["stock"] == 5
    assert len(stored(path)) == 31


async def test_a_lock_of_another_program_is_waited_for(shop: DataFlow, path: Path) -> None:
    await shop.products.get("first")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    made = asyncio.ensure_future(create_all(shop, ["a", "b", "c"]))
    await asyncio.sleep(0.2)
    other.execute("INSERT INTO products SELECT 'c', 'c', 0, created_at, updated_at FROM products")
    other.execute("COMMIT")
    other.close()
    assert [isinstance(each, Conflict) for each in await made] == [False, False, True]
    assert stored(path) == ["a", "b", "c", "first"]


async def test_what_was_answered_survives_the_process(tmp_path: Path) -> None:
    program = tmp_path / "writing.py"
    program.write_text(
        """
import asyncio, sys
from dataflow import DataFlow

db = DataFlow(sys.argv[1])

@db.model
class Product:
    name: str

async def write(number):
    while True:
        made = await db.products.create(name=f"of {number}")
        print(made["id"], flush=True)

async def main():
    await db.products.create(name="first")
    await asyncio.gather(*[write(number) for number in range(16)])

asyncio.run(main())
"""
    )
    path = tmp_path / "killed.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(program), f"sqlite:///{path}", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told = [await child.stdout.readline() for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    told += (await child.stdout.read()).splitlines(keepends=True)
    await child.wait()
    answered = {int(line) for line in told if line.endswith(b"\n")}
    assert len(answered) >= 300
    assert answered <= set(stored(path, "SELECT id FROM products"))
    assert stored(path, "PRAGMA integrity_check") == ["ok"]


async def test_several_channels_write_through_one_runtime(shop: DataFlow, path: Path) -> None:
    app = Nexus(shop)
    async with app.running():
        more = {"id": "first", "fields": {"$inc": {"stock": 1}}}
        channels = ("rest", "mcp", "cli", "websocket") * 5
        calls = [app.runtime.invoke("products.update", more, LOCAL, channel=each) for each in channels]
        await asyncio.gather(*calls)
    assert stored(path, "SELECT stock FROM products") == [20]
