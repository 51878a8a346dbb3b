"""What of a run is kept: all of a segment, or nothing of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import Call, Effect, Nexus, operation
from nexus.errors import Conflict, InvalidInput, NotFound, Retryable, TimedOut, WriteInRead
from nexus_workflows import AsyncLocalRuntime, WorkflowBuilder, node
from nexus_workflows.nodes.catalogue import in_registry
from nexus_workflows.planner import Planner, Settings
from tests.conftest import Invoke
from tests.support.shop import declare_shop
from tests.workflows.support import count, nodes, run

MAKE = ("ProductCreateNode", "make", {"name": "first"})
MISSING = ("ProductUpdateNode", "fail", {"id": 99, "name": "x"})


async def test_two_writes_side_by_side_are_kept_together(app: Nexus) -> None:
    workflow = nodes(MAKE, MISSING)
    with pytest.raises(NotFound):
        await run(app, workflow)
    assert await count(app) == 0


async def test_opting_out_keeps_what_was_done(app: Nexus) -> None:
    workflow = nodes(MAKE, MISSING)
    workflow.add_connection("make", "id", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, workflow.build(transaction="none"))
    assert await count(app) == 1


async def test_waiting_cuts_the_run_into_segments(app: Nexus) -> None:
    workflow = nodes(MAKE, ("DelayNode", "wait", {"seconds": 0.01}), MISSING)
    workflow.add_connection("make", "id", "wait", "input")
    workflow.add_connection("wait", "result", "fail", "input")
    with pytest.raises(NotFound) as caught:
        await run(app, workflow)
    assert caught.value.node == "fail"
    assert await count(app) == 1, "what precedes the waiting is kept"


async def test_a_wait_before_everything_cuts_nothing(app: Nexus) -> None:
    workflow = nodes(("DelayNode", "wait", {"seconds": 0.01}), MAKE, MISSING)
    workflow.add_connection("wait", "result", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, workflow)
    assert await count(app) == 0, "'make' could wait too, and so belongs to the same whole"


async def test_a_wait_that_is_not_taken_cuts_nothing(app: Nexus) -> None:
    workflow = nodes(
        MAKE,
        ("SwitchNode", "slow", {"condition": "{{wanted}}"}),
        ("DelayNode", "wait", {"seconds": 0.01}),
        ("MergeNode", "join", {}),
        MISSING,
    )
    workflow.add_connection("make", "id", "slow", "input")
    workflow.add_connection("slow", "true_output", "wait", "input")
    workflow.add_connection("wait", "result", "join", "slow")
    workflow.add_connection("slow", "false_output", "join", "fast")
    workflow.add_connection("join", "result", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, workflow, wanted=False)
    assert await count(app) == 0
    with pytest.raises(NotFound):
        await run(app, workflow, wanted=True)
    assert await count(app) == 1


@pytest.mark.parametrize(
    ("read", "inside"),
    [
        ({"filter": {"name": "Ada"}}, False),
        ({"filter": {"company": {"name": "{{name}}"}}}, True),
        ({"filter": {"$or": [{"company.name": "x"}, {"name": "y"}]}}, True),
        ({"filter": "{{where}}"}, True),
        ({"include": ["company"]}, True),
        ({"include": "{{which}}"}, True),
        ({"filter": {"orders": {"total": 1}}}, False),
    ],
)
async def test_what_is_read_through_relations_and_written_is_read_inside(
    read: dict[str, Any], inside: bool
) -> None:
    db = DataFlow(":memory:")
    declare_shop(db)
    app = Nexus(db)
    workflow = nodes(
        ("CustomerListNode", "find", read),
        ("CompanyUpdateNode", "rename", {"id": 1, "fields": {"name": "x"}}),
    )
    plan = Planner(workflow.build().graph, in_registry(app.registry), Settings("x")).plan()
    find = next(planned.index for planned in plan.nodes if planned.id == "find")
    assert (find in plan.segments[0].inside.needs) is inside
    await db.close()


async def test_nothing_is_locked_while_a_run_waits(app: Nexus, invoke: Invoke) -> None:
    workflow = nodes(
        MAKE, ("DelayNode", "wait", {"seconds": 2}), ("ProductCreateNode", "more", {"name": "second"})
    )
    workflow.add_connection("make", "id", "wait", "input")
    workflow.add_connection("wait", "result", "more", "input")
    task = asyncio.create_task(run(app, workflow))
    async with asyncio.timeout(20):
        while not await count(app):  # noqa: ASYNC110 - the database tells nobody here
            await asyncio.sleep(0.01)
        await invoke("products.update", id=1, name="seen meanwhile")
        assert not task.done()
    await task
    assert await count(app) == 2


async def test_a_run_that_waits_is_no_part_of_a_transaction(app: Nexus, db: DataFlow) -> None:
    workflow = nodes(("DelayNode", "wait", {"seconds": 0.01}), MAKE)
    with pytest.raises(InvalidInput, match="cannot be a part of a transaction"):
        async with db.transaction():
            await AsyncLocalRuntime(app).execute_async(workflow)


async def test_a_failure_that_is_gone_on_after_is_undone_alone(app: Nexus) -> None:
    workflow = nodes(
        MAKE,
        ("ProductCreateNode", "taken", {"id": "{{make.id}}", "name": "x", "on_error": "continue"}),
        ("ProductCreateNode", "after", {"name": "after"}),
    )
    workflow.add_connection("taken", "error", "after", "note")
    results = await run(app, workflow)
    assert results["taken"]["code"] == "NX-409"
    assert results["after"]["note"] == results["taken"]["error"]
    assert await count(app) == 2


async def test_what_the_database_gives_up_is_begun_anew_as_a_whole(app: Nexus) -> None:
    failures = [Retryable("given up"), Retryable("given up")]

    @operation
    async def sometimes(call: Call) -> int:
        if failures:
            raise failures.pop()
        return 1

    app.operation(sometimes)
    workflow = nodes(MAKE, ("sometimes", "some", {}))
    workflow.add_connection("make", "id", "some", "input")
    await run(app, workflow)
    assert await count(app) == 1
    failures.extend(Retryable("given up") for _ in range(3))
    with pytest.raises(Retryable):
        await run(app, workflow)
    assert await count(app) == 1


async def test_a_segment_that_was_kept_is_not_repeated(app: Nexus) -> None:
    failures = [Retryable("given up")]

    @operation
    async def flaky(call: Call) -> int:
        if failures:
            raise failures.pop()
        return 1

    app.operation(flaky)
    workflow = nodes(MAKE, ("DelayNode", "wait", {"seconds": 0.01}), ("flaky", "some", {}))
    workflow.add_connection("make", "id", "wait", "input")
    workflow.add_connection("wait", "result", "some", "input")
    await run(app, workflow)
    assert await count(app) == 1


async def test_opposite_orders_end_without_a_deadlock(app: Nexus, invoke: Invoke) -> None:
    """Two workflows that write two records in opposite orders: one of each pair has to be begun anew."""
    for name in ("a", "b"):
        await invoke("products.create", name=name)
    for name, order in (("there", (1, 2)), ("back", (2, 1))):
        workflow = WorkflowBuilder()
        for place, number in enumerate(order):
            change = {"id": number, "fields": {"stock": {"$inc": 1}}}
            workflow.add_node("ProductUpdateNode", f"n{place}", change)
        workflow.add_connection("n0", "id", "n1", "input")
        app.register(name, workflow)
    runs = [invoke(name) for _ in range(5) for name in ("there", "back")]
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    kept = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    assert all(isinstance(o, Retryable) for o in outcomes if isinstance(o, BaseException))
    assert kept >= 5
    assert [(await invoke("products.get", id=number)).stock for number in (1, 2)] == [kept, kept]


async def test_reads_before_writes_need_no_transaction(app: Nexus, invoke: Invoke) -> None:
    seen: list[bool] = []

    @operation(effect=Effect.READ)
    async def look(call: Call) -> int:
        seen.append(call.atomic)
        return 1

    app.operation(look)
    workflow = nodes(
        ("look", "before", {}), MAKE, ("ProductCreateNode", "more", {"name": "b"}), ("look", "after", {})
    )
    workflow.add_connection("before", "result", "make", "input")
    workflow.add_connection("more", "id", "after", "input")
    await run(app, workflow)
    assert seen == [False, True]


async def test_an_own_node_is_a_part_of_the_whole(app: Nexus, db: DataFlow) -> None:
    @node(name="makes_two")
    async def makes_two(name: str) -> int:
        await db.products.create(name=name)
        await db.products.create(name=f"{name} again")
        return 2

    workflow = nodes(("makes_two", "two", {"name": "x"}), MISSING)
    workflow.add_connection("two", "result", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, workflow)
    assert await count(app) == 0
    assert (await run(app, nodes(("makes_two", "two", {"name": "x"}))))["two"]["result"] == 2
    assert await count(app) == 2


async def test_cancelling_stops_and_undoes(app: Nexus) -> None:
    began, stopped = asyncio.Event(), []

    @node(name="waits_in_vain")
    async def waits_in_vain(number: int) -> None:
        began.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.append(number)
            raise

    workflow = nodes(MAKE, ("waits_in_vain", "one", {"number": 1}), ("waits_in_vain", "two", {"number": 2}))
    workflow.add_connection("make", "id", "one", "input")
    workflow.add_connection("make", "id", "two", "input")
    task = asyncio.create_task(run(app, workflow))
    async with asyncio.timeout(5):
        await began.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sorted(stopped) == [1, 2]
    assert await count(app) == 0


async def test_a_time_limit_stops_and_undoes(app: Nexus) -> None:
    workflow = nodes(
        MAKE, ("AsyncPythonCodeNode", "slow", {"code": "import asyncio\nawait asyncio.sleep(30)"})
    )
    workflow.add_connection("make", "id", "slow", "input")
    with pytest.raises(TimedOut):
        await AsyncLocalRuntime(app, execution_timeout=0.2).execute_async(workflow)
    assert await count(app) == 0


async def test_a_failure_cancels_what_runs_beside_it(app: Nexus) -> None:
    ended: list[str] = []

    @node(name="beside")
    async def beside() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("ended")

    @node(name="fails_soon")
    async def fails_soon() -> None:
        await asyncio.sleep(0.02)
        raise Conflict("no")

    async with asyncio.timeout(5):
        with pytest.raises(Conflict) as caught:
            await run(app, nodes(("beside", "a", {}), ("beside", "b", {}), ("fails_soon", "c", {}), MAKE))
    assert caught.value.node == "c"
    assert ended == ["ended", "ended"]
    assert await count(app) == 0


async def test_a_workflow_inside_is_a_part_of_the_outer_one(app: Nexus) -> None:
    app.register("inner", nodes(MAKE, ("ProductCreateNode", "again", {"name": "second"})))
    outer = nodes(("inner", "run", {}), MISSING)
    outer.add_connection("run", "results", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, outer)
    assert await count(app) == 0
    assert (await run(app, nodes(("inner", "run", {}))))["run"]["results"]["make"]["name"] == "first"
    assert await count(app) == 2


async def test_a_waiting_workflow_inside_keeps_its_segments(app: Nexus) -> None:
    inner = nodes(("DelayNode", "wait", {"seconds": 0.01}), ("ProductCreateNode", "again", {"name": "inner"}))
    app.register("inner", inner)
    outer = nodes(MAKE, ("inner", "run", {}), MISSING)
    outer.add_connection("make", "id", "run", "input")
    outer.add_connection("run", "results", "fail", "input")
    with pytest.raises(NotFound):
        await run(app, outer)
    assert await count(app) == 2


async def test_many_runs_with_reads_and_writes_do_not_wait_for_each_other(app: Nexus, invoke: Invoke) -> None:
    workflow = nodes(
        ("ProductListNode", "all", {"limit": 1}), MAKE, ("ProductCreateNode", "more", {"name": "b"})
    )
    app.register("both", workflow)
    results: list[Any] = await asyncio.gather(*(invoke("both") for _ in range(60)))
    assert len(results) == 60
    assert await count(app) == 120


async def test_a_pure_node_cannot_write(app: Nexus, db: DataFlow) -> None:
    @node(name="pretends", pure=True)
    async def pretends() -> None:
        await db.products.create(name="unseen")

    with pytest.raises(WriteInRead):
        await run(app, nodes(("pretends", "p", {}), MAKE))
    assert await count(app) == 0


async def test_a_read_in_a_loop_belongs_to_the_write(app: Nexus) -> None:
    loop = {"items": [1], "node": "ProductReadNode", "parameters": {"id": "{{item}}"}}
    workflow = nodes(("LoopNode", "each", loop), ("ProductUpdateNode", "write", {"id": 1, "stock": 1}))
    plan = Planner(workflow.build().graph, in_registry(app.registry), Settings("x")).plan()
    assert [len(segment.inside.needs) for segment in plan.segments] == [2]
    workflow = nodes(("LoopNode", "each", loop), ("ProductReadNode", "read", {"id": 1}))
    plan = Planner(workflow.build().graph, in_registry(app.registry), Settings("x")).plan()
    assert [len(segment.before.needs) for segment in plan.segments] == [2]
