"""Lists that hand on page after page, and the nodes that run for each: on every database."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Effect, Nexus, NexusError, operation
from nexus.errors import InvalidArguments, InvalidInput, RegistrationError, Retryable, TimedOut
from nexus_workflows import AsyncLocalRuntime, WorkflowBuilder, node
from nexus_workflows.nodes.catalogue import in_registry
from nexus_workflows.plan import Plan
from nexus_workflows.planner import Planner, Settings
from tests.conftest import Invoke
from tests.workflows.support import Heard, count, nodes, run

READ = {"streaming": True, "batch_size": 3}
NAMES = {"code": 'result = {"names": [one["name"] for one in get_input_data("read")["data"]]}'}
ALL = {"mode": "concat", "pages": True}


@pytest.fixture
async def seven(invoke: Invoke) -> None:
    """Products a to g, the ids of which are 1 to 7."""
    await invoke("products.bulk_create", data=[{"name": name} for name in "abcdefg"])


def stream(read: dict[str, Any] | None = None, *behind: tuple[str, str, dict[str, Any]]) -> WorkflowBuilder:
    """Products in pages, their names, and all names gathered; `behind` are more nodes."""
    workflow = nodes(
        ("ProductListNode", "read", {**READ, **(read or {})}),
        ("PythonCodeNode", "take", NAMES),
        ("MergeNode", "all", ALL),
        *behind,
    )
    workflow.add_connection("read", "result", "take", "input")
    workflow.add_connection("take", "names", "all", "names")
    return workflow


def planned(app: Nexus, workflow: WorkflowBuilder) -> Plan:
    return Planner(workflow.build().graph, in_registry(app.registry), Settings("x")).plan()


@pytest.mark.usefixtures("seven")
async def test_each_page_is_handed_on_and_what_remains_says_how_many(app: Nexus) -> None:
    workflow = stream()
    workflow.add_node("PythonCodeNode", "sizes", {"code": "result = {'size': len(records), 'page': page}"})
    workflow.add_connection("read", "records", "sizes", "records")
    workflow.add_connection("read", "page", "sizes", "page")
    workflow.add_node("MergeNode", "gathered", {"pages": True})
    workflow.add_connection("sizes", "result", "gathered", "sizes")
    results = await run(app, workflow)
    assert results["read"] == {"pages": 3, "count": 7}
    assert results["take"] == {"pages": 3, "last": {"names": ["g"]}}
    assert results["all"] == {"result": list("abcdefg")}
    assert results["gathered"]["result"]["sizes"] == [
        {"size": 3, "page": 1},
        {"size": 3, "page": 2},
        {"size": 1, "page": 3},
    ]


@pytest.mark.parametrize("mode", ["collect", "first", "concat", "merge"])
@pytest.mark.databases("memory")
async def test_without_records_nothing_runs_and_gathering_finds_nothing(app: Nexus, mode: str) -> None:
    workflow = stream()
    workflow.add_node("MergeNode", "gather", {"mode": mode, "pages": True})
    workflow.add_connection("take", "result", "gather", "parts")
    results = await run(app, workflow)
    assert results["read"] == {"pages": 0, "count": 0}
    assert results["take"] == {"pages": 0, "last": None}
    assert results["all"] == {"result": []}
    nothing = {"collect": {"parts": []}, "first": None, "concat": [], "merge": {}}
    assert results["gather"] == {"result": nothing[mode]}


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize(
    ("read", "names", "pages"),
    [
        ({"batch_size": 7}, "abcdefg", 1),
        ({"batch_size": 1000}, "abcdefg", 1),
        ({"limit": 5}, "abcde", 2),
        ({"limit": 6}, "abcdef", 2),
        ({"limit": 2}, "ab", 1),
        ({"limit": 100_000}, "abcdefg", 3),
        ({"order_by": ["-name"]}, "gfedcba", 3),
        ({"sort": [{"id": -1}], "limit": 4}, "gfed", 2),
        ({"filter": {"name": {"$gt": "c"}}}, "defg", 2),
        ({"filter": {"$or": [{"name": "a"}, {"name": "g"}]}, "fields": ["name"]}, "ag", 1),
        ({"filter": {}}, "abcdefg", 3),
    ],
)
async def test_what_is_read(app: Nexus, read: dict[str, Any], names: str, pages: int) -> None:
    results = await run(app, stream(read))
    assert "".join(results["all"]["result"]) == names
    assert results["read"] == {"pages": pages, "count": len(names)}


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_a_page_has_500_records_unless_something_is_said(app: Nexus, invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": str(number)} for number in range(600)])
    workflow = nodes(
        ("ProductListNode", "read", {"streaming": True}),
        ("PythonCodeNode", "size", {"code": "sizes = [count]"}),
        ("MergeNode", "all", ALL),
    )
    workflow.add_connection("read", "count", "size", "count")
    workflow.add_connection("size", "sizes", "all", "sizes")
    assert (await run(app, workflow))["all"]["result"] == [500, 107]


@pytest.mark.usefixtures("seven")
async def test_inputs_and_templates_speak_of_the_page(app: Nexus) -> None:
    workflow = nodes(
        (
            "ProductListNode",
            "read",
            {"streaming": True, "batch_size": "{{half.size}}", "filter": {"id": {"$lte": "{{most}}"}}},
        ),
        (
            "ProductUpdateNode",
            "mark",
            {"id": "{{read.records.0.id}}", "fields": {"note": "{{word}} {{read.page}}"}},
        ),
        ("PythonCodeNode", "look", {"code": "result = {'notes': [note]}"}),
        ("PythonCodeNode", "half", {"code": "result = {'size': double // 2}"}),
        ("MergeNode", "all", ALL),
    )
    workflow.add_connection("mark", "note", "look", "note")
    workflow.add_connection("look", "notes", "all", "notes")
    results = await run(app, workflow, double=4, most=5, word="page")
    assert results["all"]["result"] == ["page 1", "page 2", "page 3"]
    for double in (0, 2002):
        with pytest.raises(InvalidInput, match="'batch_size': expected int") as caught:
            await run(app, workflow, double=double, most=5, word="x")
        assert caught.value.node == "read"


@pytest.mark.usefixtures("seven")
async def test_what_pages_write_neither_hides_nor_repeats_records(app: Nexus, invoke: Invoke) -> None:
    """Each page takes its records out of the filter, makes as many new ones, and deletes one further on."""
    workflow = stream({"filter": {"on_sale": False}, "batch_size": 2})
    code = """
ids = [one["id"] for one in get_input_data("read")["data"]]
result = {"chosen": {"id": {"$in": ids}}, "more": [{"name": f"new {number}"} for number in ids]}
"""
    workflow.add_node("PythonCodeNode", "choose", {"code": code})
    workflow.add_node("ProductBulkUpdateNode", "sell", {"filter": ":chosen", "update": {"on_sale": True}})
    workflow.add_node("ProductBulkCreateNode", "make", {"data": ":more"})
    workflow.add_connection("read", "result", "choose", "input")
    workflow.add_connection("choose", "chosen", "sell", "chosen")
    workflow.add_connection("choose", "more", "make", "more")
    workflow.add_connection("sell", "result", "make", "input")
    results = await run(app, workflow)
    assert results["all"]["result"] == list("abcdefg")
    assert results["read"] == {"pages": 4, "count": 7}
    assert results["make"]["last"]["success_count"] == 1
    assert (await invoke("products.count", filter={"on_sale": True})).count == 7
    assert await count(app) == 14


@pytest.mark.usefixtures("seven")
async def test_deleting_what_was_read(app: Nexus) -> None:
    workflow = stream({"order_by": "-name"})
    each = {"node": "ProductDeleteNode", "parameters": {"id": "{{item.id}}"}}
    workflow.add_node("LoopNode", "drop", {"items": "{{read.records}}", **each})
    results = await run(app, workflow)
    assert results["all"]["result"] == list("gfedcba")
    assert await count(app) == 0


@pytest.mark.usefixtures("seven")
async def test_others_that_make_records_meanwhile_do_not_lengthen_it(app: Nexus, invoke: Invoke) -> None:
    @operation(effect=Effect.READ)
    async def elsewhere(call: Call, page: int) -> int:
        task = asyncio.create_task(invoke("products.create", name=f"late {page}"))
        await task
        return page

    app.registry.add(elsewhere)
    workflow = stream()
    workflow.add_node("elsewhere", "other", {"page": "{{read.page}}"})
    results = await run(app, workflow)
    assert results["all"]["result"] == list("abcdefg")
    assert results["other"]["pages"] == 3
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
async def test_all_pages_are_kept_or_none(app: Nexus) -> None:
    made = ("ProductCreateNode", "make", {"name": "{{read.records.0.name}}", "stock": "{{read.page}}"})
    code = "if page == 3:\n    raise ValueError('no third')\nresult = page"
    workflow = stream(None, made, ("PythonCodeNode", "fail", {"code": code}))
    workflow.add_connection("read", "page", "fail", "page")
    workflow.add_connection("make", "id", "fail", "input")
    with pytest.raises(NexusError, match="no third") as caught:
        await AsyncLocalRuntime(app).execute_async(workflow)
    assert caught.value.node == "read[3]/fail"
    assert await count(app) == 7
    with pytest.raises(NexusError, match="no third"):
        await AsyncLocalRuntime(app).execute_async(workflow.build(transaction="none"))
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
async def test_where_pages_wait_each_is_kept_by_itself(app: Nexus) -> None:
    code = "if page == 3:\n    raise ValueError('no third')\nresult = page"
    workflow = stream(
        None,
        ("DelayNode", "wait", {"seconds": 0.001}),
        ("ProductCreateNode", "make", {"name": "{{read.records.0.name}}"}),
        ("ProductCreateNode", "again", {"name": "{{read.records.0.name}}"}),
        ("PythonCodeNode", "fail", {"code": code}),
    )
    workflow.add_connection("read", "page", "wait", "input")
    workflow.add_connection("wait", "result", "make", "input")
    workflow.add_connection("make", "id", "again", "input")
    workflow.add_connection("read", "page", "fail", "page")
    workflow.add_connection("again", "id", "fail", "input")
    with pytest.raises(NexusError, match="no third"):
        await AsyncLocalRuntime(app).execute_async(workflow)
    assert await count(app) == 11, "two pages of two records each"
    with pytest.raises(InvalidInput, match="cannot be a part of a transaction"):
        await run_in_transaction(app, workflow)


async def run_in_transaction(app: Nexus, workflow: WorkflowBuilder) -> None:
    @operation
    async def whole(call: Call) -> None:
        await call.run("inner", {})

    app.register("inner", workflow, replace=True)
    app.registry.add(whole)
    await app.runtime.invoke("whole", {}, LOCAL, channel="test")


@pytest.mark.usefixtures("seven")
async def test_what_the_database_gives_up_is_begun_anew_with_the_first_page(app: Nexus) -> None:
    failures = [Retryable("given up")]

    @operation
    async def sometimes(call: Call, page: int) -> int:
        if page == 2 and failures:
            raise failures.pop()
        return page

    app.registry.add(sometimes)
    workflow = stream()
    workflow.add_node("ProductCreateNode", "make", {"name": "{{read.page}}"})
    workflow.add_node("sometimes", "try", {"page": "{{read.page}}"})
    workflow.add_connection("make", "id", "try", "input")
    results = await run(app, workflow)
    assert results["all"]["result"] == list("abcdefg")
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
async def test_failures_of_a_page_that_the_run_survives(app: Nexus) -> None:
    workflow = stream(
        None,
        (
            "ProductCreateNode",
            "make",
            {"name": "{{read.page}}", "id": "{{read.page}}", "on_error": "continue"},
        ),
        ("ProductUpdateNode", "miss", {"id": 99, "name": "x", "on_error": {"goto": "handle"}}),
        ("PythonCodeNode", "handle", {"code": 'result = {"codes": [get_input_data("miss")["code"]]}'}),
        ("ProductCreateNode", "after", {"name": "after"}),
        ("MergeNode", "codes", ALL),
    )
    workflow.add_connection("read", "page", "miss", "input")
    workflow.add_connection("make", "result", "after", "input")
    workflow.add_connection("handle", "codes", "codes", "codes")
    results = await run(app, workflow)
    assert results["codes"]["result"] == ["DF-404"] * 3
    assert results["make"]["last"]["code"] == "NX-409"
    assert results["after"]["pages"] == 3
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
async def test_reading_is_tried_again_for_one_page(app: Nexus) -> None:
    asked: list[str] = []
    listed = app.registry["products.list"]

    async def unsteady(call: Call, arguments: Any) -> Any:
        asked.append(arguments.cursor)
        if len(asked) in (1, 4, 5):
            raise ConnectionError("gone")
        return await listed.handler(call, arguments)

    app.registry.replace(dataclasses.replace(listed, handler=unsteady))
    retry = {"max_attempts": 3, "base_delay": 0.001, "retry_on": ["any"]}
    workflow = stream({"retry": retry})
    workflow.add_node("ProductCreateNode", "make", {"name": "{{read.page}}"})
    heard = await listening(app, workflow)
    assert heard.results["all"]["result"] == list("abcdefg")
    assert heard.ended.count(("read", "retrying")) == 3
    assert heard.ended.count(("make", "done")) == 3, "pages that were handed on are not handed on again"
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_reading_has_a_time_limit(app: Nexus) -> None:
    listed = app.registry["products.list"]

    async def slow(call: Call, arguments: Any) -> Any:
        await asyncio.sleep(30)

    app.registry.replace(dataclasses.replace(listed, handler=slow))
    with pytest.raises(TimedOut) as caught:
        await run(app, stream({"timeout": 0.02}))
    assert caught.value.node == "read"


class Listening(Heard):
    results: dict[str, Any]


async def listening(app: Nexus, workflow: WorkflowBuilder) -> Listening:
    """A run with somebody who is told of its nodes."""
    heard = Listening()
    inner = workflow.build().as_operation("heard", app.registry)

    async def tell(call: Call, arguments: Any) -> Any:
        call.progress = heard
        return await inner.handler(call, arguments)

    app.registry.add(dataclasses.replace(inner, handler=tell, recorded=False))
    made = await app.runtime.invoke("heard", {}, LOCAL, channel="test")
    app.registry.remove("heard")
    heard.results = made.results
    return heard


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_ways_inside_of_a_page(app: Nexus) -> None:
    """Each page takes its own way, and ways come together in the page, or behind the last one."""
    workflow = stream()
    for name, config in (("few", {"condition": "count < 3"}), ("never", {"condition": "count > 3"})):
        workflow.add_node("SwitchNode", name, config)
        workflow.add_connection("read", "count", name, "count")
    for name in ("small", "large", "huge"):
        workflow.add_node("PythonCodeNode", name, {"code": f"result = {{'said': ['{name}']}}"})
    workflow.add_node("MergeNode", "either", {"mode": "first"})
    workflow.add_node("MergeNode", "said", ALL)
    workflow.add_node("MergeNode", "small_ones", ALL)
    workflow.add_node("MergeNode", "huge_ones", ALL)
    workflow.add_connection("few", "true_output", "small", "input")
    workflow.add_connection("few", "false_output", "large", "input")
    workflow.add_connection("never", "true_output", "huge", "input")
    workflow.add_connection("small", "said", "either", "small")
    workflow.add_connection("large", "said", "either", "large")
    workflow.add_connection("either", "result", "said", "said")
    workflow.add_connection("small", "said", "small_ones", "said")
    workflow.add_connection("huge", "said", "huge_ones", "said")
    results = await run(app, workflow)
    assert results["said"]["result"] == ["large", "large", "small"]
    assert results["small_ones"]["result"] == ["small"]
    assert results["small"]["pages"] == 1
    assert results["huge"] is None
    assert results["huge_ones"] is None, "no page took that way"


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_a_stream_on_a_way_that_is_not_taken(app: Nexus) -> None:
    workflow = stream(
        None, ("SwitchNode", "wanted", {"condition": "{{yes}}"}), ("ProductCountNode", "behind", {})
    )
    workflow.add_connection("wanted", "true_output", "read", "input")
    workflow.add_connection("all", "result", "behind", "input")
    results = await run(app, workflow, yes=False)
    assert [results[name] for name in ("read", "take", "all", "behind")] == [None] * 4
    results = await run(app, workflow, yes=True)
    assert (results["read"]["pages"], results["behind"]["count"]) == (3, 7)


@pytest.mark.usefixtures("seven")
async def test_what_is_no_page_is_the_same_for_all(app: Nexus) -> None:
    """Nodes before the stream, beside it, and behind it."""
    workflow = stream(
        None,
        ("ProductCreateNode", "first", {"name": "h"}),
        ("PythonCodeNode", "beside", {"code": "result = {'word': 'x'}"}),
        ("PythonCodeNode", "join", {"code": "words = [f'{word}{len(names)}{first}']"}),
        ("MergeNode", "words", ALL),
        ("ProductUpdateNode", "behind", {"id": "{{first.id}}", "fields": {"note": "{{words.result.2}}"}}),
    )
    workflow.add_connection("first", "id", "read", "input")
    workflow.add_connection("first", "name", "join", "first")
    workflow.add_connection("beside", "word", "join", "word")
    workflow.add_connection("take", "names", "join", "names")
    workflow.add_connection("join", "words", "words", "words")
    results = await run(app, workflow)
    assert results["all"]["result"] == list("abcdefgh"), "what the run has made itself is read"
    assert results["words"]["result"] == ["x3h", "x3h", "x2h"]
    assert results["behind"]["note"] == "x2h"


@pytest.mark.usefixtures("seven")
async def test_a_stream_inside_of_another(app: Nexus) -> None:
    workflow = nodes(
        ("ProductListNode", "outer", {"streaming": True, "batch_size": 4}),
        ("ProductListNode", "read", {**READ, "filter": {"id": {"$lte": "{{outer.count}}"}}}),
        ("PythonCodeNode", "take", NAMES),
        ("MergeNode", "page", ALL),
        ("ProductCreateNode", "make", {"name": "{{outer.page}} {{read.page}}"}),
        ("MergeNode", "all", ALL),
    )
    workflow.add_connection("take", "names", "page", "names")
    workflow.add_connection("read", "result", "take", "input")
    workflow.add_connection("page", "result", "all", "names")
    results = await run(app, workflow)
    assert results["all"]["result"] == list("abcdabc")
    assert results["outer"] == {"pages": 2, "count": 7}
    assert results["read"] == {"pages": 2, "last": {"pages": 1, "count": 3}}
    assert results["make"]["last"]["last"]["name"] == "2 1"
    assert await count(app) == 10


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_two_streams_meet_behind_their_last_pages(app: Nexus) -> None:
    workflow = stream()
    workflow.add_node("ProductListNode", "other", {"streaming": True, "batch_size": 5})
    workflow.add_node("MergeNode", "both", {"mode": "collect", "pages": True})
    workflow.add_connection("read", "count", "both", "first")
    workflow.add_connection("other", "count", "both", "second")
    results = await run(app, workflow)
    assert results["both"]["result"] == {"first": [3, 3, 1], "second": [5, 2]}


@pytest.mark.usefixtures("seven")
@pytest.mark.databases("memory")
async def test_no_more_nodes_work_at_once_than_may(app: Nexus) -> None:
    working, most = 0, 0

    @node
    async def busy_with_page(number: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0.001)
        working -= 1
        return number

    workflow = stream()
    for name in ("other", "third"):
        workflow.add_node("ProductListNode", name, {"streaming": True, "batch_size": 4})
    for name in ("read", "other", "third"):
        for number in range(4):
            workflow.add_node("busy_with_page", f"{name}_{number}", {"number": f"{{{{{name}.count}}}}"})
    for number in range(4):
        workflow.add_node("busy_with_page", f"beside_{number}", {"number": 1})
    results, _ = await AsyncLocalRuntime(app, max_concurrent_nodes=3).execute_async(workflow)
    assert results["third_3"] == {"pages": 2, "last": {"result": 3}}
    assert most == 3


@pytest.mark.usefixtures("seven")
async def test_a_page_is_told_of_again_each_time(app: Nexus) -> None:
    app.register("streamed", stream())
    await app.runtime.invoke("streamed", {}, LOCAL, channel="test")
    page = await app.runtime.invoke("runs.list", {}, LOCAL, channel="test")
    shown = await app.runtime.invoke("runs.get", {"id": page.records[0].id}, LOCAL, channel="test")
    times = {name: (one["status"], one["times"]) for name, one in shown.nodes.items()}
    assert times == {"read": ("done", 3), "take": ("done", 3), "all": ("done", 1)}


@pytest.mark.usefixtures("seven")
async def test_a_cancelled_stream_leaves_nothing(app: Nexus) -> None:
    reached = asyncio.Event()

    @operation
    async def hang(call: Call, page: int) -> int:
        if page == 2:
            reached.set()
            await asyncio.sleep(60)
        return page

    app.registry.add(hang)
    workflow = stream()
    workflow.add_node("ProductCreateNode", "make", {"name": "{{read.page}}"})
    workflow.add_node("hang", "hang", {"page": "{{read.page}}"})
    workflow.add_connection("make", "id", "hang", "input")
    task = asyncio.create_task(run(app, workflow))
    async with asyncio.timeout(20):
        await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(app) == 7


@pytest.mark.databases("memory")
async def test_one_page_is_held_at_a_time(app: Nexus, invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": str(number)} for number in range(50)])
    held: list[int] = []

    def records() -> int:
        gc.collect()
        found = (one for one in gc.get_objects() if type(one) is dict and one.keys() >= {"id", "price"})
        return sum(isinstance(one["id"], int) for one in found)

    before = records()

    @node
    def look_at_page(page: int) -> int:
        held.append(records() - before)
        return page

    workflow = nodes(
        ("ProductListNode", "read", {"streaming": True, "batch_size": 5}), ("look_at_page", "look", {})
    )
    workflow.add_connection("read", "page", "look", "page")
    results = await run(app, workflow)
    assert results["look"]["pages"] == 10
    assert held == [5] * 10


@pytest.mark.databases("memory")
@pytest.mark.parametrize(
    ("read", "more", "locked"),
    [
        ({}, ("ProductCountNode", {"filter": {"id": "{{read.count}}"}}), False),
        ({}, ("ProductUpdateNode", {"id": "{{read.page}}", "name": "x"}), True),
        ({"order_by": "-id"}, ("ProductDeleteNode", {"id": "{{read.page}}"}), True),
        ({"order_by": "name"}, ("ProductDeleteNode", {"id": "{{read.page}}"}), False),
        ({}, ("OtherCreateNode", {"number": "{{read.page}}"}), False),
        ({"filter": {"others": {"number": 1}}}, ("OtherCreateNode", {"number": "{{read.page}}"}), False),
    ],
)
async def test_records_are_locked_where_the_run_writes_them(
    app: Nexus, db: DataFlow, read: dict[str, Any], more: tuple[str, dict[str, Any]], locked: bool
) -> None:
    @db.model
    class Other:
        number: int

    plan = planned(app, stream(read, (more[0], "more", more[1])))
    (number,) = plan.streams
    assert plan.streams[number].locked is locked


@pytest.mark.databases("postgresql", "mysql")
@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("locks", [False, True])
async def test_others_wait_only_for_what_the_run_writes(
    app: Nexus, db: DataFlow, invoke: Invoke, locks: bool
) -> None:
    @db.model
    class Seen:
        number: int

    reached, going = asyncio.Event(), asyncio.Event()

    @node(pure=True)
    async def pause_on_page(page: int) -> int:
        reached.set()
        await going.wait()
        return page

    workflow = stream()
    workflow.add_node("SeenCreateNode", "note", {"number": "{{read.page}}"})
    workflow.add_node(pause_on_page, "pause", {"page": "{{read.page}}"})
    if locks:
        workflow.add_node("ProductUpdateNode", "mark", {"id": "{{pause.result}}", "note": "marked"})
    task = asyncio.create_task(run(app, workflow))
    async with asyncio.timeout(20):
        await reached.wait()
        other = asyncio.create_task(invoke("products.update", id=3, note="of another"))
        if locks:
            done, _ = await asyncio.wait([other], timeout=0.2)
            assert not done, "the record was read, and is written by the run"
            going.set()
        else:
            await other
            going.set()
        await task
        await other


def refused(app: Nexus, workflow: WorkflowBuilder, words: str) -> None:
    with pytest.raises(RegistrationError, match=words):
        planned(app, workflow)


@pytest.mark.databases("memory")
@pytest.mark.parametrize(
    ("read", "words"),
    [
        ({"batch_size": 0}, "'batch_size': expected int >= 1"),
        ({"batch_size": 1001}, "'batch_size': expected int <= 1000"),
        ({"batch_size": "many"}, "'batch_size': expected int"),
        ({"limit": 0}, "'limit': expected int >= 1"),
        ({"streaming": "{{yes}}"}, "'streaming' is True or False"),
        ({"streaming": 1}, "'streaming' is True or False"),
        ({"streaming": False}, "'batch_size' is for a list that is 'streaming'"),
        ({"offset": 5}, "'offset' of ProductListNode has no place beside 'streaming'"),
        ({"cursor": ""}, "'cursor' of ProductListNode has no place"),
        ({"count": True}, "'count' of ProductListNode has no place"),
        ({"aggregate": []}, "'aggregate' of ProductListNode has no place"),
        ({"on_error": "continue"}, "'on_error' cannot be honoured"),
        ({"batch_sise": 5}, "has no parameter 'batch_sise'"),
        ({"read_preference": "x"}, "is not available yet"),
    ],
)
async def test_parameters_that_cannot_be_honoured(app: Nexus, read: dict[str, Any], words: str) -> None:
    refused(app, stream(read), words)


@pytest.mark.databases("memory")
async def test_without_streaming_a_list_is_a_list(app: Nexus) -> None:
    workflow = nodes(("ProductListNode", "read", {"streaming": False}))
    assert (await run(app, workflow))["read"]["records"] == []
    refused(app, nodes(("ProductListNode", "read", {"batch_size": 5})), "'batch_size' is for a list")
    refused(app, nodes(("ProductListNode", "read", READ)), "nothing follows to be given its pages")
    refused(app, nodes(("ProductReadNode", "read", {"id": 1, "streaming": True})), "no parameter 'streaming'")


@pytest.mark.databases("memory")
async def test_connections_that_make_no_sense(app: Nexus) -> None:
    workflow = stream()
    workflow.add_node("ProductListNode", "other", READ)
    workflow.add_node("PythonCodeNode", "both", {"code": "result = one + two"})
    workflow.add_connection("take", "names", "both", "one")
    workflow.add_connection("other", "records", "both", "two")
    refused(app, workflow, "'both' comes after the pages of both")

    workflow = stream()
    workflow.add_node("PythonCodeNode", "again", {"code": "result = names + everything"})
    workflow.add_connection("take", "names", "again", "names")
    workflow.add_connection("all", "result", "again", "everything")
    refused(app, workflow, "each page of 'read' needs what comes after its last page")

    workflow = stream()
    workflow.add_node("ProductCountNode", "count", {})
    workflow.add_connection("count", "count", "all", "count")
    refused(app, workflow, "'all' gathers pages, and 'count' is not in a stream")

    refused(app, nodes(("MergeNode", "all", ALL)), "'all' gathers pages, and none are brought")
    refused(app, nodes(("MergeNode", "all", {"pages": 1})), "'pages' is True or False")
    refused(app, nodes(("MergeNode", "all", {"pages": True, "x": [1]})), "the parameter 'x' belongs to none")

    for change in ("ProductUpdateNode", "ProductCreateNode"):
        config = {"name": "x"} | ({"id": "{{read.page}}"} if change == "ProductUpdateNode" else {})
        workflow = stream({"order_by": ["-price"]}, (change, "change", config))
        workflow.add_connection("read", "page", "change", "input")
        refused(app, workflow, "'change' writes records that 'read' reads in another order")


@pytest.mark.databases("memory")
async def test_an_order_that_only_a_run_knows_may_be_any(app: Nexus) -> None:
    for given in ({"sort": "{{order}}"}, {"order_by": ":order"}, {}):
        workflow = stream(given, ("ProductUpdateNode", "change", {"id": "{{read.page}}", "name": "x"}))
        workflow.add_node("PythonCodeNode", "make", {"code": "result = {'order': 'name'}"})
        workflow.add_connection("make", "order", "read", "order" if "order_by" in given else "sort")
        if "sort" in given:
            workflow = stream(given, ("ProductUpdateNode", "change", {"id": "{{read.page}}", "name": "x"}))
        refused(app, workflow, "'change' writes records that 'read' reads in another order")


@pytest.mark.databases("memory")
@pytest.mark.usefixtures("seven")
async def test_an_output_is_of_what_remains(app: Nexus) -> None:
    output = {"records": "{{read.count}}", "names": "{{all.result}}", "pages": "{{take.pages}}"}
    app.register("told", stream().build(output=output))
    told = await app.runtime.invoke("told", {}, LOCAL, channel="test")
    assert told.output == {"records": 7, "names": list("abcdefg"), "pages": 3}
    for asked in ("{{read.records}}", "{{take.names}}"):
        with pytest.raises(RegistrationError, match="of which each page has its own") as caught:
            app.register("wrong", stream().build(output={"x": asked}))
        assert "'pages': True" in caught.value.remedy


@pytest.mark.databases("memory")
@pytest.mark.parametrize("name", ["streaming", "batch_size"])
async def test_elsewhere_it_is_refused_with_what_to_do_instead(
    invoke: Invoke, db: DataFlow, name: str
) -> None:
    given = {name: 5 if name == "batch_size" else True}
    for asked in (invoke("products.list", **given), db.products.list(**given)):
        with pytest.raises(
            InvalidArguments, match=f"'{name}' is for the node of a workflow.*'cursor'.*NDJSON"
        ):
            await asked
