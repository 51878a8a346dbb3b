"""Recorded runs of workflows in databases: true, whatever becomes of the run or of its process."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus
from nexus.demands import Demands
from nexus.errors import InvalidInput, KeyReused, NotFound, RunCancelled, SchemaMismatch, Unavailable
from nexus.runs.owner import is_alive, new_owner
from nexus.runs.record import RUNS, now
from nexus.runs.runs import Keeping
from nexus_workflows import WorkflowBuilder
from tests.support.databases import DATABASES, empty_database


def _declare(db: DataFlow) -> None:
    @db.model
    class Product:
        name: str
        stock: int = 0


def _making() -> WorkflowBuilder:
    made = WorkflowBuilder("Make a product.")
    made.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
    return made


def _waiting() -> WorkflowBuilder:
    """Writes, then waits with the write undecided."""
    waiting = WorkflowBuilder("Make a product and wait.")
    waiting.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
    waiting.add_node("wait", "wait", {"seconds": "{{seconds}}"})
    waiting.add_connection("make", "id", "wait", "input")
    return waiting


def _application(url: str, **options: Any) -> Nexus:
    db = DataFlow(url, **options)
    _declare(db)
    app = Nexus(db, channels=[])

    @app.operation
    async def wait(call: Call, seconds: float) -> None:
        await asyncio.sleep(seconds)

    app.register("make", _making())
    app.register("waiting", _waiting())
    return app


@asynccontextmanager
async def _opened(url: str, **options: Any) -> AsyncIterator[Nexus]:
    app = _application(url, **options)
    async with app.running():
        yield app


@pytest.fixture(params=[kind for kind in DATABASES if kind != "memory"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database that several programs can use."""
    return empty_database(request.param, tmp_path)


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Nexus]:
    async with _opened(database) as app:
        yield app


async def run(app: Nexus, name: str, /, **given: Any) -> Any:
    asked = {key: given.pop(key) for key in ("key", "background") if key in given}
    demands, timeout = Demands(**asked) if asked else None, given.pop("timeout", None)
    return await app.runtime.invoke(name, given, LOCAL, channel="test", timeout=timeout, demands=demands)


async def products(app: Nexus) -> int:
    return int((await run(app, "products.count")).count)


async def newest(app: Nexus) -> Any:
    return await run(app, "runs.get", id=(await run(app, "runs.list", limit=1)).records[0].id)


async def until_running(app: Nexus, node: str) -> Any:
    async with asyncio.timeout(10):
        while True:
            listed = await run(app, "runs.list", state="running")
            if listed.records:
                found = await run(app, "runs.get", id=listed.records[0].id)
                if node in found.nodes or not node:
                    return found
            await asyncio.sleep(0.02)


async def test_the_record_has_what_the_run_gave(shop: Nexus) -> None:
    made = await run(shop, "make", name="Lamp")
    found = await run(shop, "runs.get", id=made.run_id)
    assert (found.state, found.inputs, found.kept) == ("done", {"name": "Lamp"}, True)
    assert found.output["results"]["make"]["name"] == "Lamp"
    assert found.nodes["make"]["status"] == "done"
    assert re.fullmatch("[0-9a-f]{16}", found.version)


async def test_texts_of_every_kind_come_back(shop: Nexus) -> None:
    name = "é'\"\\ %s :x {} \n 😀 \u0000".replace("\u0000", "")
    made = await run(shop, "make", name=name)
    assert (await run(shop, "runs.get", id=made.run_id)).inputs == {"name": name}


async def test_a_failed_run_is_recorded_and_leaves_nothing_else(shop: Nexus) -> None:
    failing = _making()
    failing.add_node("ProductReadNode", "read", {"id": 99})
    failing.add_connection("make", "id", "read", "input")
    shop.register("failing", failing)
    with pytest.raises(NotFound):
        await run(shop, "failing", name="Lamp")
    found = await newest(shop)
    assert (found.state, found.kept, found.error["node"]) == ("failed", False, "read")
    assert (found.nodes["make"]["status"], found.nodes["read"]["status"]) == ("done", "failed")
    assert await products(shop) == 0


async def test_cancelling_rolls_back_what_was_written(shop: Nexus) -> None:
    task = asyncio.create_task(run(shop, "waiting", name="Lamp", seconds=60))
    found = await until_running(shop, "wait")
    ended = await run(shop, "runs.cancel", id=found.id)
    assert (ended.state, ended.kept, ended.nodes["wait"]["status"]) == ("cancelled", False, "cancelled")
    with pytest.raises(RunCancelled):
        await task
    assert await products(shop) == 0
    assert (await run(shop, "make", name="Pen")).results["make"]["name"] == "Pen"


async def test_a_time_limit_is_a_failure(shop: Nexus) -> None:
    with pytest.raises(TimeoutError):
        await run(shop, "waiting", name="Lamp", seconds=60, timeout=0.5)
    assert ((await newest(shop)).state, await products(shop)) == ("failed", 0)


async def test_a_task_that_is_cancelled_while_it_commits_is_recorded_as_what_it_is(shop: Nexus) -> None:
    """The commit is carried to its end: then the run is done, though nobody hears of it."""
    await run(shop, "make", name="first")
    states = set()
    for delay in range(12):
        task = asyncio.create_task(run(shop, "waiting", name=f"n{delay}", seconds=0.0))
        await asyncio.sleep(delay * 0.001)
        task.cancel()
        await asyncio.wait({task})
        found = await newest(shop)
        there = await run(shop, "products.count", filter={"name": f"n{delay}"})
        if found.workflow == "waiting":
            assert (found.state == "done") == (there.count == 1) == found.kept, found
            states.add(found.state)
    assert states <= {"done", "cancelled"}


async def test_of_a_statement_that_commits_by_itself_no_more_is_said_than_is_known(shop: Nexus) -> None:
    await run(shop, "make", name="first")
    for delay in range(12):
        task = asyncio.create_task(run(shop, "make", name=f"n{delay}"))
        await asyncio.sleep(delay * 0.0007)
        task.cancel()
        await asyncio.wait({task})
        there = await run(shop, "products.count", filter={"name": f"n{delay}"})
        for record in (await run(shop, "runs.list", limit=1)).records:
            found = await run(shop, "runs.get", id=record.id)
            if found.inputs == {"name": f"n{delay}"}:
                assert found.kept in (None, there.count == 1), found
                assert found.state == "cancelled" or there.count == 1


async def test_at_once_there_is_one_run_for_a_key(shop: Nexus) -> None:
    answers = await asyncio.gather(*(run(shop, "make", name="Lamp", key="k") for _ in range(20)))
    assert len({answer.run_id for answer in answers}) == 1
    assert await products(shop) == 1
    again = await run(shop, "make", name="Lamp", key="k")
    assert again.results["make"]["name"] == "Lamp"
    with pytest.raises(KeyReused):
        await run(shop, "make", name="Pen", key="k")
    assert await products(shop) == 1


async def test_a_key_is_one_run_in_several_applications(shared: str) -> None:
    async with _opened(shared) as one, _opened(shared) as other:
        starts = [run(app, "make", name="Lamp", key="k") for app in (one, other) * 10]
        answers = await asyncio.gather(*starts)
        assert len({answer.run_id for answer in answers}) == 1
        assert await products(one) == 1


async def test_many_at_once_are_all_recorded(shop: Nexus) -> None:
    made = await asyncio.gather(*(run(shop, "make", name=f"p{n}") for n in range(100)))
    listed = await run(shop, "runs.list", limit=1000, state="done")
    assert {record.id for record in listed.records} == {answer.run_id for answer in made}
    assert await products(shop) == 100


async def test_in_another_application_a_run_is_seen_and_cancelled(shared: str) -> None:
    only_waiting = WorkflowBuilder()
    only_waiting.add_node("wait", "wait", {"seconds": 60})
    async with _opened(shared) as one, _opened(shared) as other:
        one.register("sleeping", only_waiting)
        task = asyncio.create_task(run(one, "sleeping"))
        found = await until_running(other, "")
        begun = asyncio.get_running_loop().time()
        assert (await run(other, "runs.cancel", id=found.id)).state == "cancelled"
        assert asyncio.get_running_loop().time() - begun < 1.5
        with pytest.raises(RunCancelled):
            await task


async def test_the_feed_tells_of_other_applications(shared: str) -> None:
    async with _opened(shared) as one, _opened(shared) as other:
        await run(one, "make", name="before")
        async with other.feed.subscribe(LOCAL, "runs") as following:
            changes = aiter(following)
            pending = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.05)
            made = await run(one, "make", name="Lamp")
            change = await asyncio.wait_for(pending, 5)
        assert change.key == made.run_id
        assert change.record["state"] == "done"


async def _left_behind(app: Nexus, **row: Any) -> str:
    """The row of a run whose process is gone."""
    runs = app.runtime.runs
    assert runs is not None
    known = {
        "id": "f" * 32,
        "workflow": "make",
        "version": "",
        "state": "running",
        "session": "local",
        "actor": "local",
        "channel": "test",
        "lease": now(-1),
        "owner": "elsewhere/1/2/3",
        "started": now(-30),
        "changed": now(-30),
        "inputs": "{}",
        "kept": 0,
    } | row
    assert await runs.records.insert(RUNS, known)
    return str(known["id"])


async def test_a_run_without_a_process_is_abandoned(shop: Nexus) -> None:
    identity = await _left_behind(shop)
    listed = await run(shop, "runs.list")
    assert [record.state for record in listed.records] == ["abandoned"]
    found = await run(shop, "runs.get", id=identity)
    assert found.state == "abandoned"
    assert "ended without a word" in found.error["detail"]
    assert (await run(shop, "runs.list", state="abandoned")).count == 1
    assert (await run(shop, "runs.list", state="running")).count == 0


async def test_a_lease_that_is_renewed_is_respected(shop: Nexus) -> None:
    identity = await _left_behind(shop, lease=now(20))
    assert (await run(shop, "runs.get", id=identity)).state == "running"


async def test_of_this_machine_the_process_itself_counts(shop: Nexus) -> None:
    """Its lease may be over for as long as a transaction keeps it from being renewed."""
    alive = new_owner()
    place, pid, birth, number = alive.split("/")
    assert is_alive(alive) is True
    identity = await _left_behind(shop, owner=alive)
    assert (await run(shop, "runs.get", id=identity)).state == "running"
    other = "/".join([place, pid, str(int(birth) + 1), number])  # the same number, given to another process
    assert is_alive(other) is False
    gone = await _left_behind(shop, id="e" * 32, owner=other, lease=now(20))
    assert (await run(shop, "runs.get", id=gone)).state == "abandoned"


async def test_old_runs_go_and_with_them_their_keys(shop: Nexus) -> None:
    runs = shop.runtime.runs
    assert runs is not None
    old = await _left_behind(shop, id="0" * 32, state="done", changed=now(-31 * 86_400))
    unfinished = await _left_behind(shop, id="1" * 32, lease=now(20))
    await run(shop, "make", name="Lamp", key="k")
    await runs._prune()
    with pytest.raises(NotFound):
        await run(shop, "runs.get", id=old)
    assert (await run(shop, "runs.get", id=unfinished)).state == "running"
    assert (await run(shop, "runs.list", state="done")).count == 1


async def test_of_too_many_runs_the_newest_stay(database: str) -> None:
    async with _opened(database) as app:
        runs = app.runtime.runs
        assert runs is not None
        runs._keeping = Keeping(most=3)
        ids = sorted([(await run(app, "make", name=f"p{n}")).run_id for n in range(6)], reverse=True)
        await runs._prune()
        assert [record.id for record in (await run(app, "runs.list")).records] == ids[:3]


async def test_a_workflow_may_be_registered_without_its_runs(shop: Nexus) -> None:
    shop.register("quiet", _making(), record=False)
    assert (await run(shop, "quiet", name="Lamp")).run_id
    assert (await run(shop, "runs.list")).count == 0
    with pytest.raises(InvalidInput, match="not recorded"):
        await run(shop, "quiet", name="Lamp", key="k")


async def test_the_version_tells_declarations_apart(shop: Nexus) -> None:
    shop.register("same", _making())
    other = WorkflowBuilder("Make a product.")
    other.add_node("ProductCreateNode", "make", {"name": "{{name}}", "stock": 1})
    shop.register("other", other)
    versions = {name: shop.registry[name].version for name in ("make", "same", "other")}
    assert versions["make"] == versions["same"] != versions["other"]


async def test_without_the_table_runs_run_and_say_nothing_else(
    shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = DataFlow(shared)
    _declare(before)
    await before.database.install(before.models.values())
    await before.close()
    async with _opened(shared, auto_migrate=False) as app:
        for _ in range(2):
            assert (await run(app, "make", name="Lamp")).results["make"]["name"] == "Lamp"
        assert caplog.text.count("runs are not recorded: There is no table 'nexus_runs'") == 1
        with pytest.raises(SchemaMismatch, match=r"db\.install"):
            await run(app, "runs.list")
        for how in ({"key": "k"}, {"background": True}):
            with pytest.raises(SchemaMismatch):
                await run(app, "make", name="Lamp", **how)
        db = app.contributors[0]
        assert isinstance(db, DataFlow)
        await db.install()
        made = await run(app, "make", name="Lamp")
        assert (await run(app, "runs.list")).records[0].id == made.run_id


async def test_install_prints_what_it_makes(database: str) -> None:
    db = DataFlow(database)
    _declare(db)
    statements = db.install_sql()
    assert (
        sum(
            "CREATE TABLE IF NOT EXISTS nexus_runs" in sql.replace('"', "").replace("`", "")
            for sql in statements
        )
        == 1
    )
    assert not any("nexus_runs" in sql for sql in db.install_sql("Product"))
    await db.install()
    await db.install()
    await db.close()


async def test_an_existing_database_is_left_alone(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = DataFlow(shared)
    _declare(before)
    await before.database.install(before.models.values())
    await before.close()
    async with _opened(shared, existing_schema_mode=True) as app:
        made = await run(app, "make", name="Lamp")
        assert (await run(app, "runs.get", id=made.run_id)).state == "done"
        db = app.contributors[0]
        assert isinstance(db, DataFlow)
        assert not any("nexus_runs" in sql for sql in db.install_sql())
    with sqlite3.connect(tmp_path / "nexus_platform.db") as file:
        names = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "nexus_runs" in names
        assert "products" not in names
        assert file.execute("SELECT id FROM nexus_runs").fetchall() == [(made.run_id,)]
    file.close()


async def test_the_rows_may_be_elsewhere(database: str, tmp_path: Path) -> None:
    async with _opened(database, system_url=f"sqlite:///{tmp_path / 'own.db'}") as app:
        made = await run(app, "make", name="Lamp")
    async with _opened(f"sqlite:///{tmp_path / 'own.db'}") as other:
        assert (await run(other, "runs.get", id=made.run_id)).workflow == "make"


async def test_a_busy_writer_does_not_hold_up_what_only_reads(tmp_path: Path) -> None:
    """One file, one writer: a run that only reads waits a moment for its row, and then goes on."""
    async with _opened(f"sqlite:///{tmp_path / 'busy.db'}") as app:
        counting = WorkflowBuilder()
        counting.add_node("ProductCountNode", "count", {})
        app.register("counting", counting)
        await run(app, "make", name="Lamp")
        task = asyncio.create_task(run(app, "waiting", name="Pen", seconds=3.0))
        await until_running(app, "wait")
        begun = asyncio.get_running_loop().time()
        counted = await run(app, "counting")
        assert asyncio.get_running_loop().time() - begun < 2.5
        assert counted.results["count"]["count"] == 1
        assert not task.done()
        await task
        async with asyncio.timeout(5):
            while True:
                found = await run(app, "runs.get", id=counted.run_id)
                if found.finished is not None:
                    break
                await asyncio.sleep(0.05)
        assert found.state == "done"
    async with _opened(f"sqlite:///{tmp_path / 'busy.db'}") as app:
        assert (await run(app, "runs.get", id=counted.run_id)).state == "done"


async def test_nothing_starts_in_the_background_once_the_server_closes(shop: Nexus) -> None:
    runs = shop.runtime.runs
    assert runs is not None
    runs.close_door()
    with pytest.raises(Unavailable, match="closing"):
        await run(shop, "make", name="Lamp", background=True)
