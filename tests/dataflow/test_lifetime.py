"""Processes that end, in whatever way: nothing hangs, nothing committed is lost, nothing half is kept."""

from __future__ import annotations

import asyncio
import glob
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import Unavailable

PROGRAM = """
import asyncio, sys
from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus
db = DataFlow({url!r})
@db.model
class Product:
    name: str
    stock: int = 0
app = Nexus(db)
def run(op, /, **arguments):
    return app.runtime.invoke(op, arguments, LOCAL, channel="test")
"""


def program(url: str, rest: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(url=url) + rest]


@pytest.mark.parametrize("url", [":memory:", "file"])
def test_a_program_that_closes_nothing_still_ends(url: str, tmp_path: Path) -> None:
    url = url if url == ":memory:" else f"sqlite:///{tmp_path / 'x.db'}"
    rest = """
async def main():
    await run("products.create", name="a")
    subscription = app.feed.subscribe(LOCAL, "products")
    await subscription.__aenter__()
    asyncio.ensure_future(anext(aiter(subscription)))
    await asyncio.sleep(0.2)
    print("done", db.database.dialect.path.parent)
asyncio.run(main())
"""
    ended = subprocess.run(program(url, rest), capture_output=True, text=True, timeout=20, check=False)
    assert ended.stdout.startswith("done"), ended.stderr
    assert ended.returncode == 0
    if url == ":memory:":
        assert glob.glob(ended.stdout.split()[1]) == []  # the private file is gone with it


def test_event_loops_one_after_the_other_each_have_their_connections(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'x.db'}")
    db.model(type("Product", (), {"__annotations__": {"name": str}}))
    app = Nexus(db)

    async def one() -> int:
        async with app.running():
            await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
            async with app.feed.subscribe(LOCAL, "products", snapshot=True) as followed:
                assert followed.records is not None
                await app.runtime.invoke("products.update", {"id": 1, "name": "b"}, LOCAL, channel="test")
                assert (await anext(aiter(followed))).key == 1
                return len(followed.records)

    assert [asyncio.run(one()) for _ in range(3)] == [1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"]  # the write-ahead log is folded in


def test_a_process_killed_in_the_middle_leaves_whole_transactions_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    rest = """
@app.operation
async def pair(call: Call) -> None:
    made = await call.run("products.create", {"name": "first"})
    await call.run("products.create", {"name": "second", "stock": made.id})
async def main():
    while True:
        await run("pair")
        print(flush=True)
asyncio.run(main())
"""
    process = subprocess.Popen(program(url, rest), stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = 0
    for _ in range(25):
        process.stdout.readline()
        acknowledged += 1
    process.kill()
    acknowledged += process.stdout.read().count(b"\n")
    process.wait()
    process.stdout.close()
    with sqlite3.connect(tmp_path / "killed.db") as after:
        ((firsts,),) = after.execute("SELECT count(*) FROM products WHERE name = 'first'")
        ((seconds,),) = after.execute("SELECT count(*) FROM products WHERE name = 'second'")
        ((changes, last),) = after.execute("SELECT count(*), max(seq) FROM dataflow_changes")
    after.close()
    assert firsts == seconds >= acknowledged >= 25
    assert changes == last == firsts + seconds


def test_several_processes_make_the_tables_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'together.db'}"
    rest = """
async def main():
    async with app.running():
        print((await run("products.create", name="a")).id)
asyncio.run(main())
"""
    together = [subprocess.Popen(program(url, rest), stdout=subprocess.PIPE) for _ in range(4)]
    ids = sorted(int(process.communicate(timeout=30)[0]) for process in together)
    assert ids == [1, 2, 3, 4]


async def test_a_database_locked_by_another_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.dialects.sqlite.BUSY_MS", 50)
    db = DataFlow(f"sqlite:///{tmp_path / 'x.db'}")
    db.model(type("Product", (), {"__annotations__": {"name": str}}))
    app = Nexus(db)
    async with app.running():
        await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
        other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await app.runtime.invoke("products.create", {"name": "b"}, LOCAL, channel="test")
        assert (await app.runtime.invoke("products.count", {}, LOCAL, channel="test")).count == 1
        other.close()
        await app.runtime.invoke("products.create", {"name": "b"}, LOCAL, channel="test")


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'no' / 'x.db'}")
    db.model(type("Product", (), {"__annotations__": {"name": str}}))
    app = Nexus(db)
    async with app.running():
        with pytest.raises(Unavailable, match="no folder"):
            await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
