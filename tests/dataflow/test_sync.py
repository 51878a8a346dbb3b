"""The synchronous face: it works from every thread, and ends with the process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflow import DataFlow
from nexus import Call, Effect, Operation, Session, blocking
from nexus.errors import Conflict, Forbidden, InvalidArguments, NexusError, NotFound, Retryable, TimedOut


@pytest.fixture
def shop(db: DataFlow) -> Iterator[DataFlow]:
    yield db
    blocking.run(db.close())


def names(shop: DataFlow) -> list[str]:
    return [record["name"] for record in shop.sync.products.list(order_by="id")["records"]]


def add(shop: DataFlow, verb: str, handler: object) -> None:
    made = Operation(
        f"products.{verb}",
        handler,  # type: ignore[arg-type]
        resource="products",
        verb=verb,
        effect=Effect.UPDATE,
    )
    shop.runtime.registry.add(made)


def test_the_same_operations(shop: DataFlow) -> None:
    made = shop.sync.products.create(name="Lamp", price=9.5)
    assert shop.sync.products.get(1) == made == made["data"]
    assert shop.sync.products.update(1, fields={"$inc": {"stock": 2}})["stock"] == 2
    assert shop.sync.model_face("Product").count() == {"count": 1}
    assert shop.sync.products.delete(1) == {"deleted": 1, "id": 1}


def test_install_and_close(shop: DataFlow) -> None:
    assert shop.sync.install() == ["products"]
    shop.sync.close()
    assert shop.pool_metrics()["open"] == 0
    assert shop.sync.products.count() == {"count": 0}


def test_exceptions_pass_unchanged(shop: DataFlow) -> None:
    with pytest.raises(NotFound):
        shop.sync.products.get(7)
    with pytest.raises(InvalidArguments, match="Did you mean 'name'"):
        shop.sync.products.create(nam="x")
    with pytest.raises(AttributeError, match="Did you mean 'products'"):
        shop.sync.prodcts  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'create'"):
        shop.sync.products.crate  # noqa: B018
    with pytest.raises(Forbidden):
        shop.sync.as_session(Session(id="s", user="ada")).products.count()


def test_one_loop_serves_all_threads(shop: DataFlow) -> None:
    shop.sync.products.create(name="0")
    threads = [
        threading.Thread(target=lambda n=n: shop.sync.products.create(name=str(n))) for n in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(names(shop)) == [str(n) for n in range(9)]
    assert [thread.name for thread in threading.enumerate()].count("nexus-loop") == 1


async def test_from_a_thread_that_runs_an_event_loop(shop: DataFlow) -> None:
    assert shop.sync.products.create(name="Lamp")["id"] == 1
    assert await shop.products.count() == {"count": 1}
    await shop.close()


def test_from_the_loop_itself_it_is_refused(shop: DataFlow) -> None:
    async def inside(call: Call, arguments: object) -> None:
        shop.sync.products.count()

    add(shop, "inside", inside)
    with pytest.raises(NexusError, match="would never end"):
        shop.sync.products.inside()


def test_a_transaction(shop: DataFlow) -> None:
    with shop.sync.transaction() as tx:
        shop.sync.products.create(name="a")
        tx.products.create(name="b")
        with pytest.raises(RuntimeError), shop.sync.transaction():
            shop.sync.products.create(name="c")
            raise RuntimeError
    assert names(shop) == ["a", "b"]
    with pytest.raises(Conflict), shop.sync.transaction():
        shop.sync.products.create(name="d")
        shop.sync.products.create(id=1, name="e")
    assert names(shop) == ["a", "b"]
    with pytest.raises(NexusError, match="has ended"):
        tx.products.count()


def test_a_transaction_is_of_its_thread_only(shop: DataFlow) -> None:
    shop.sync.products.create(name="a")
    seen: list[list[str]] = []
    with shop.sync.transaction():
        shop.sync.products.create(name="b")
        other = threading.Thread(target=lambda: seen.append(names(shop)))
        other.start()
        other.join(20)
    assert seen == [["a"]]


async def test_a_transaction_of_another_loop_is_not_joined(shop: DataFlow) -> None:
    async with shop.transaction():
        await shop.products.create(name="a")
        with pytest.raises(NexusError, match="another event loop"):
            shop.sync.products.create(name="b")
    await shop.close()
    assert names(shop) == ["a"]


def test_a_time_limit(shop: DataFlow) -> None:
    with pytest.raises(TimedOut), shop.sync.transaction(timeout=0.1):
        shop.sync.products.create(name="a")
        time.sleep(0.2)
        shop.sync.products.create(name="b")
    with pytest.raises(TimedOut), shop.sync.transaction(timeout=0.1):
        shop.sync.products.create(name="c")
        time.sleep(0.2)
    assert names(shop) == []


def test_the_tenant_goes_along(shop: DataFlow) -> None:
    @shop.model
    class Note:
        __dataflow__ = {"multi_tenant": True}
        text: str

    with shop.tenant("acme"):
        shop.sync.notes.create(text="x")
        assert shop.sync.notes.count() == {"count": 1}
    with pytest.raises(Forbidden):
        shop.sync.notes.count()


def test_run_in_transaction(shop: DataFlow) -> None:
    attempts: list[int] = []

    def work(tx: object) -> str:
        attempts.append(len(attempts))
        shop.sync.products.create(name=str(len(attempts)))
        if len(attempts) < 3:
            raise Retryable("deadlock")
        return "done"

    assert shop.sync.run_in_transaction(work) == "done"
    assert names(shop) == ["3"]


def test_an_interrupt_cancels_what_is_waited_for(shop: DataFlow) -> None:
    ended: list[str] = []

    async def endless(call: Call, arguments: object) -> None:
        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    add(shop, "endless", endless)
    with pytest.raises(KeyboardInterrupt):
        shop.sync.products.endless()
    assert ended == ["cancelled"]
    assert shop.sync.products.count() == {"count": 0}


PROGRAM = """
import threading, time, os, asyncio
from dataflow import DataFlow
db = DataFlow({url!r})
@db.model
class Product:
    name: str
db.sync.products.create(name="a")
"""


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "db.sync.transaction().__enter__(); db.sync.products.create(name='b')",
        "threading.Thread(target=lambda: db.sync.products.create(name='b')).start()",
        "asyncio.run(db.products.list())",
        "raise SystemExit(0)",
        "pid = os.fork()\nif pid: os.waitpid(pid, 0)\nelse: db = DataFlow(':memory:')",
    ],
)
def test_a_program_that_closes_nothing_still_ends(rest: str, database: str, tmp_path: Path) -> None:
    program = PROGRAM.format(url=database) + rest + "\nprint('end')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:::multiprocessing", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.count("end")) == (0, 2 if "fork" in rest else "raise" not in rest)
    if "__enter__" not in rest:
        assert done.stderr == ""
    left_open = "__enter__" in rest  # what it holds is given up with the process, and mended at the next use
    if "sqlite" in database and not left_open:
        assert [path.name for path in tmp_path.iterdir()] == ["test.db"]
