"""Recorded runs, in an application without any database: what is kept, told, cancelled and repeated."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from nexus import LOCAL, Call, Nexus, Operation, Session, Settings
from nexus.errors import (
    Conflict,
    Forbidden,
    InvalidArguments,
    InvalidCursor,
    InvalidInput,
    KeyReused,
    NexusError,
    NotFound,
    RunCancelled,
    Unavailable,
    UnknownOperation,
    UnknownTopic,
)
from nexus.runs.record import INPUT_LIMIT, MOST_NODES, OUTPUT_LIMIT, nodes_json
from tests.support.runs import ACME, ANN, BOB, Given, Work, only, run, until


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def app(work: Work) -> AsyncIterator[Nexus]:
    made = Nexus(channels=[])
    made.operation(work.operation)
    async with made.running():
        yield made


async def test_a_run_is_recorded_from_its_start_to_its_result(app: Nexus) -> None:
    result = await run(app, "work", text="hello")
    found = await only(app)
    assert found.id == result["run"]
    assert (found.workflow, found.version, found.state) == ("work", "1", "done")
    assert (found.user, found.session, found.channel) == ("local", "local", "test")
    assert found.inputs == {"text": "hello", "seconds": 0.0, "fail": False, "password": "(secret)"}
    assert found.output == result
    assert found.nodes["first"]["status"] == "done"
    assert found.nodes["first"]["seconds"] == 0.25
    assert found.error is None
    assert found.started <= found.finished
    assert found.seconds >= 0


async def test_a_failure_is_recorded_with_its_node_and_code(app: Nexus) -> None:
    with pytest.raises(Conflict):
        await run(app, "work", fail=True)
    found = await only(app)
    assert (found.state, found.output, found.kept) == ("failed", None, False)
    assert found.error["code"] == "NX-409"
    assert found.error["remedy"] == "Take another."
    assert found.nodes["first"]["error"] == {"code": "NX-409", "detail": "It is taken."}


async def test_what_is_refused_before_it_runs_is_no_run(app: Nexus) -> None:
    with pytest.raises(InvalidArguments):
        await run(app, "work", txet="x")
    with pytest.raises(Forbidden):
        await run(app, "work", Session("s", "nobody"))
    assert (await run(app, "runs.list")).records == []


async def test_while_it_goes_on_it_can_be_seen(app: Nexus, work: Work) -> None:
    task = asyncio.create_task(run(app, "work", seconds=60))
    await until(lambda: work.begun)
    found = await only(app)
    assert (found.state, found.finished, found.nodes["first"]["status"]) == ("running", None, "running")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await only(app)
    assert (found.state, found.nodes["first"]["status"]) == ("cancelled", "cancelled")


async def test_cancelling_stops_the_work_and_tells_who_waits(app: Nexus, work: Work) -> None:
    task = asyncio.create_task(run(app, "work", seconds=60))
    await until(lambda: work.begun)
    ended = await run(app, "runs.cancel", id=(await only(app)).id)
    assert ended.state == "cancelled"
    assert ended.cancel_requested
    assert work.ended == ["cancelled"]
    with pytest.raises(RunCancelled) as caught:
        await task
    assert caught.value.code == "NX-499"
    assert task.cancelling() == 0  # whoever ran it goes on undisturbed
    assert (await run(app, "runs.cancel", id=ended.id)).state == "cancelled"


async def test_what_has_ended_cannot_be_cancelled(app: Nexus) -> None:
    await run(app, "work")
    with pytest.raises(Conflict, match="it is done"):
        await run(app, "runs.cancel", id=(await only(app)).id)
    with pytest.raises(NotFound):
        await run(app, "runs.cancel", id="0" * 32)


async def test_a_run_in_another_event_loop_is_cancelled_too(app: Nexus, work: Work) -> None:
    def elsewhere() -> None:
        asyncio.run(run(app, "work", seconds=60))

    thread = asyncio.create_task(asyncio.to_thread(elsewhere))
    await until(lambda: work.begun)
    assert (await run(app, "runs.cancel", id=(await only(app)).id)).state == "cancelled"
    with pytest.raises(RunCancelled):
        await thread


async def test_in_the_background_the_answer_comes_at_once(app: Nexus, work: Work) -> None:
    started = await run(app, "work", text="later", seconds=0.05, background=True)
    assert started.state == "running"
    assert (await run(app, "runs.get", id=started.run_id)).state == "running"
    await until(lambda: work.ended)
    await until(lambda: not app.runtime.runs.background)  # type: ignore[union-attr]
    assert (await run(app, "runs.get", id=started.run_id)).output["text"] == "later"


async def test_the_background_has_room_for_so_many(work: Work) -> None:
    app = Nexus(channels=[], settings=Settings(background_runs=2))
    app.operation(work.operation)
    async with app.running():
        for _ in range(2):
            await run(app, "work", seconds=60, background=True)
        with pytest.raises(Unavailable, match="2 runs"):
            await run(app, "work", background=True)
        await run(app, "work")  # who waits needs no room
        assert (await run(app, "runs.list", state="running")).count == 2
    assert work.ended.count("cancelled") == 2
    async with app.running():
        listed = await run(app, "runs.list", state="cancelled")
        assert listed.count == 2
        assert listed.records[0].error["code"] == "NX-499"


async def test_what_was_cancelled_before_its_first_step_is_recorded(work: Work) -> None:
    app = Nexus(channels=[])
    app.operation(work.operation)
    async with app.running():
        await run(app, "work", seconds=60, background=True)
        for task in app.runtime.runs.background:  # type: ignore[union-attr]
            task.cancel()
    assert work.begun == 0
    async with app.running():
        assert (await only(app)).state == "cancelled"


def test_after_a_fork_the_parents_runs_are_anothers() -> None:
    program = """
import os
from nexus import Nexus
from nexus.runs.owner import is_alive
runs = Nexus(channels=[]).runtime.runs
parent = runs.owner
runs._active["x"] = object()
if (child := os.fork()) == 0:
    assert runs.owner != parent and is_alive(runs.owner) and is_alive(parent)
    assert runs._active == {}
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert runs.owner == parent and list(runs._active) == ["x"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


async def test_a_run_that_cancels_itself_does_not_wait_for_itself(app: Nexus) -> None:
    async def own(call: Call, given: Given) -> None:
        await run(app, "runs.cancel", id=call.run_id)
        await asyncio.sleep(60)

    app.operation(Operation("own", own, Given, recorded=True, digest=lambda: "1"))
    with pytest.raises(RunCancelled):
        await run(app, "own")
    assert (await only(app)).state == "cancelled"


async def test_the_same_key_and_input_is_the_same_run(app: Nexus, work: Work) -> None:
    first = await run(app, "work", text="a", key="k1")
    assert await run(app, "work", text="a", key="k1") == first
    assert work.begun == 1
    with pytest.raises(KeyReused) as caught:
        await run(app, "work", text="b", key="k1")
    assert caught.value.status == 422
    assert (await run(app, "work", text="a", key="k2")) != first
    assert (await run(app, "work", ANN, text="a", key="k1"))["run"] != first["run"]
    assert work.begun == 3


async def test_a_key_of_what_goes_on_gives_where_it_is(app: Nexus, work: Work) -> None:
    started = await run(app, "work", seconds=0.1, key="k", background=True)
    again = await run(app, "work", seconds=0.1, key="k")
    assert (again.run_id, again.state) == (started.run_id, "running")
    await until(lambda: not app.runtime.runs.background)  # type: ignore[union-attr]
    assert (await run(app, "work", seconds=0.1, key="k"))["run"] == started.run_id


async def test_a_key_of_what_failed_fails_alike(app: Nexus, work: Work) -> None:
    with pytest.raises(Conflict):
        await run(app, "work", fail=True, key="k")
    with pytest.raises(NexusError) as caught:
        await run(app, "work", fail=True, key="k")
    assert (caught.value.code, caught.value.status, caught.value.exit_code) == ("NX-409", 409, 4)
    assert caught.value.remedy == "Take another."
    assert work.begun == 1


async def test_keys_that_cannot_be(app: Nexus) -> None:
    for key in ("", "x" * 256, "a\nb"):
        with pytest.raises(InvalidInput, match="idempotency key"):
            await run(app, "work", key=key)


async def test_two_starts_at_once_are_one_run(app: Nexus, work: Work) -> None:
    results = await asyncio.gather(*(run(app, "work", seconds=0.05, key="k") for _ in range(20)))
    assert work.begun == 1
    assert sum(isinstance(result, dict) for result in results) == 1


async def test_sessions_see_their_own(app: Nexus) -> None:
    mine = (await run(app, "work", ANN))["run"]
    theirs = (await run(app, "work", BOB))["run"]
    of_acme = (await run(app, "work", ACME))["run"]
    assert [r.id for r in (await run(app, "runs.list", ANN)).records] == [mine]
    assert [r.id for r in (await run(app, "runs.list", ACME)).records] == [of_acme]
    assert {r.id for r in (await run(app, "runs.list")).records} == {mine, theirs, of_acme}
    for session, other in ((ANN, theirs), (ACME, mine)):
        for verb in ("get", "cancel"):
            with pytest.raises(NotFound):
                await run(app, f"runs.{verb}", session, id=other)


async def test_pages_newest_first_and_by_state_and_workflow(app: Nexus, work: Work) -> None:
    app.operation(replace(work.operation, name="other", permission="other"))
    ids = [(await run(app, name))["run"] for name in ("work", "other", "work", "work")]
    ids.sort(reverse=True)
    first = await run(app, "runs.list", limit=3)
    assert [r.id for r in first.records] == ids[:3]
    second = await run(app, "runs.list", limit=3, cursor=first.next)
    assert ([r.id for r in second.records], second.next) == (ids[3:], None)
    assert (await run(app, "runs.list", workflow="other")).count == 1
    assert (await run(app, "runs.list", state="failed")).count == 0
    with pytest.raises(InvalidCursor):
        await run(app, "runs.list", cursor="' OR 1=1")
    with pytest.raises(InvalidArguments):
        await run(app, "runs.list", state="over")


async def test_what_is_too_large_is_cut_and_fails_nothing(app: Nexus) -> None:
    text = "é" * OUTPUT_LIMIT
    assert (await run(app, "work", text=text, key="k"))["text"] == text
    found = await only(app)
    assert found.inputs["truncated"]
    assert found.inputs["bytes"] > INPUT_LIMIT
    assert found.output["start"].startswith('{"run":')
    assert len(found.output["start"]) <= 1000
    with pytest.raises(Conflict, match="too large"):
        await run(app, "work", text=text, key="k")


def test_of_many_nodes_those_that_failed_are_kept() -> None:
    nodes = {f"n{number}": {"status": "done"} for number in range(MOST_NODES + 10)}
    nodes["n1009"] = {"status": "failed"}
    kept = msgspec.json.decode(nodes_json(nodes))
    assert kept["n1009"] == {"status": "failed"}
    assert kept["…"] == {"status": "truncated", "more": 10}
    assert len(kept) == MOST_NODES + 1


async def test_what_json_cannot_hold_fails_nothing(app: Nexus) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    async def odd(call: Call, given: Given) -> object:
        return Hostile()

    app.operation(Operation("odd", odd, Given, recorded=True, digest=lambda: "1"))
    assert type(await run(app, "odd")).__name__ == "Hostile"
    assert (await only(app)).output == {"unserializable": "Hostile: TypeError"}


async def test_what_raises_is_logged_and_recorded_without_its_message(app: Nexus) -> None:
    async def explode(call: Call, given: Given) -> None:
        raise RuntimeError("a secret that nobody may see")

    app.operation(Operation("explode", explode, Given, recorded=True, digest=lambda: "1"))
    with pytest.raises(NexusError):
        await run(app, "explode")
    found = await only(app)
    assert (found.state, found.error["code"]) == ("failed", "NX-500")
    assert "secret" not in str(found.error)


@pytest.mark.parametrize("how", ["argument", "settings"])
async def test_recording_can_be_switched_off(work: Work, how: str) -> None:
    app = (
        Nexus(channels=[], record_runs=False)
        if how == "argument"
        else Nexus(channels=[], settings=Settings(record_runs=False))
    )

    async def handler(call: Call, given: Given) -> object:
        assert call.progress is None
        return call.run_id

    app.operation(replace(work.operation, handler=handler))
    async with app.running():
        assert await run(app, "work")
        for how_to, why in (({"key": "k"}, "no database"), ({"background": True}, "not recorded")):
            with pytest.raises(InvalidInput, match=why):
                await run(app, "work", **how_to)
        with pytest.raises(UnknownOperation):
            await run(app, "runs.list")
        with pytest.raises(UnknownTopic):
            app.feed.subscribe(LOCAL, "runs")


async def test_nothing_is_offered_before_there_is_anything_to_run() -> None:
    app = Nexus(channels=[])
    assert "runs.list" not in app.registry
    assert app.feed.topics() == []
    app.operation(Work().operation)
    assert {"runs.list", "runs.get", "runs.cancel"} <= {operation.name for operation in app.registry.public()}
    assert app.feed.topics() == ["runs"]


class Slow:
    """A resource whose commit takes its time."""

    def __init__(self) -> None:
        self.committing = asyncio.Event()
        self.kept = 0

    @property
    def changes(self) -> None:
        return None

    @property
    def connection(self) -> Slow:
        return self

    def lend(self, call: Call, *, write: bool) -> Any:
        raise AssertionError("everything here is a transaction")

    async def begin(self, call: Call) -> Slow:
        return self

    async def commit(self) -> None:
        self.committing.set()
        await asyncio.sleep(0.05)
        self.kept += 1

    async def rollback(self) -> None:
        pass

    async def savepoint(self, name: str) -> None:
        pass

    async def check(self) -> None:
        pass

    release = undo = savepoint


@pytest.mark.parametrize(
    ("whole", "by", "state", "kept"),
    [
        # A commit is carried to its end: then the run is done, though who waited for it has gone.
        (True, "task", "done", True),
        (False, "task", "cancelled", None),
        (False, "runs.cancel", "cancelled", None),
    ],
)
async def test_a_commit_is_never_told_of_falsely(
    app: Nexus, whole: bool, by: str, state: str, kept: bool | None
) -> None:
    slow = Slow()

    async def write(call: Call, given: Given) -> None:
        part = call if whole else await call.inside()
        async with part.connection(slow, write=True):
            pass
        if not whole:
            await part.commit()

    app.operation(Operation("write", write, Given, recorded=True, digest=lambda: "1", atomic=whole))
    task = asyncio.create_task(run(app, "write"))
    await slow.committing.wait()
    if by == "task":
        task.cancel()
    else:
        await run(app, by, id=(await only(app)).id)
    await asyncio.wait({task})
    assert task.cancelled() == (by == "task")
    found = await only(app)
    assert (found.state, found.kept, slow.kept) == (state, kept, 1)


async def test_a_workflow_inside_another_is_one_node(app: Nexus) -> None:
    async def outer(call: Call, given: Given) -> Any:
        assert call.progress is not None
        call.progress.node_started("inner")
        result = await call.run("work", {})
        call.progress.node_ended("inner", "done", 0.0)
        return result

    app.operation(Operation("outer", outer, Given, recorded=True, digest=lambda: "1"))
    await run(app, "outer")
    assert list((await only(app)).nodes) == ["inner"]
