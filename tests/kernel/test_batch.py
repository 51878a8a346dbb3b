"""Several operations as one: in one transaction, under one run, and as the same on every database."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, Session, operation
from nexus.demands import Demands
from nexus.errors import (
    Conflict,
    Forbidden,
    InvalidArguments,
    InvalidInput,
    KeyReused,
    NexusError,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    TooManyAffected,
    UnknownOperation,
)
from nexus_workflows import WorkflowBuilder


async def batch(
    app: Nexus, *operations: Any, session: Session = LOCAL, demands: Demands | None = None
) -> Any:
    steps = [{"operation": name, "arguments": arguments} for name, arguments in operations]
    return await app.runtime.invoke("batch", {"operations": steps}, session, channel="test", demands=demands)


async def names(app: Nexus) -> list[str]:
    found = await app.runtime.invoke("products.list", {"order_by": "id"}, LOCAL, channel="test")
    return [record.name for record in found.records]


async def test_results_come_in_order_and_see_what_was_done_before(app: Nexus) -> None:
    done = await batch(
        app,
        ("products.create", {"name": "a"}),
        ("ProductBulkCreateNode", {"data": [{"name": "b"}, {"name": "c"}], "return_ids": True}),
        ("products.update", {"id": 1, "fields": {"$inc": {"stock": 5}}}),
        ("products.get", {"id": 1}),
        ("products_delete", {"id": 2}),
        ("products.count", {}),
    )
    assert [done.results[0].name, done.results[1].ids, done.results[3].stock] == ["a", [2, 3], 5]
    assert (done.results[4].deleted, done.results[5].count) == (1, 2)
    assert await names(app) == ["a", "c"]


async def test_is_one_transaction_in_the_log(app: Nexus) -> None:
    async with app.feed.subscribe(LOCAL, "products") as followed:
        done = await batch(
            app,
            ("products.create", {"name": "a"}),
            ("products.create", {"name": "b"}),
            ("products.update", {"id": 1, "stock": 1}),
            ("products.delete", {"id": 2}),
        )
        seen = []
        async with asyncio.timeout(10):
            async for change in followed:
                seen.append(change)
                if len(seen) == 4:
                    break
    assert [change.event for change in seen] == ["enter", "enter", "update", "leave"]
    assert {change.run for change in seen} == {done.run_id}
    assert [change.pos - seen[0].pos for change in seen] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("bad", "failure", "pointer"),
    [
        (("products.create", {"name": "x", "nmae": "x"}), InvalidArguments, "/operations/1/arguments/nmae"),
        (("products.create", {"name": "x", "id": 1}), Conflict, "/operations/1"),
        (("products.update", {"id": 99, "stock": 1}), NotFound, "/operations/1"),
        (("products.crate", {}), UnknownOperation, "/operations/1/operation"),
        (("batch", {"operations": []}), InvalidInput, "/operations/1/operation"),
        (("hidden", {}), UnknownOperation, "/operations/1/operation"),
        (("apart", {}), InvalidInput, "/operations/1/operation"),
        (("waiting", {}), InvalidInput, "/operations/1/operation"),
        (("runs.cancel", {"id": "x"}), InvalidInput, "/operations/1/operation"),
        (("broken", {}), NexusError, None),
    ],
)
async def test_a_failure_says_where_and_undoes_all(
    app: Nexus, bad: Any, failure: type[NexusError], pointer: str | None
) -> None:
    @operation
    async def apart(call: Call) -> None:
        """Something by itself."""

    @operation
    async def broken(call: Call) -> None:
        """Never works."""
        raise ValueError("a secret")

    app.operation(dataclasses.replace(apart, atomic=False))
    app.operation(broken)
    app.operation(dataclasses.replace(apart, name="hidden", internal=True))
    waiting = WorkflowBuilder("Wait.")
    waiting.add_node("DelayNode", "wait", {"seconds": 0})
    app.register("waiting", waiting)
    with pytest.raises(failure) as raised:
        await batch(app, ("products.create", {"id": 1, "name": "first"}), bad)
    assert [problem.pointer for problem in raised.value.problems] == ([pointer] if pointer else [])
    assert await names(app) == []


async def test_a_workflow_may_be_a_part_and_is_no_run_of_its_own(app: Nexus) -> None:
    flow = WorkflowBuilder("Make one.")
    flow.add_node("ProductCreateNode", "one", {"name": "{{name}}"})
    app.register("make", flow)
    done = await batch(app, ("make", {"name": "a"}), ("products.create", {"name": "b"}))
    assert done.results[0].results["one"]["name"] == "a"
    assert await names(app) == ["a", "b"]
    assert (await app.runtime.invoke("runs.list", {}, LOCAL, channel="test")).records == []
    assert [each.name for each in app.registry.standing()] == ["make"]


async def test_each_operation_needs_its_own_permission(app: Nexus) -> None:
    ada = Session(id="1", user="ada", scopes=frozenset({"products.create"}))
    assert len((await batch(app, ("products.create", {"name": "a"}), session=ada)).results) == 1
    with pytest.raises(Forbidden, match=r"products\.delete"):
        await batch(app, ("products.create", {"name": "b"}), ("products.delete", {"id": 1}), session=ada)
    assert await names(app) == ["a"]


async def test_demands_are_made_of_the_whole(app: Nexus) -> None:
    two = ("products.create", {"name": "a"}), ("products.create", {"name": "b"})
    tried = await batch(app, *two, demands=Demands(dry_run=True))
    assert [record.name for record in tried.results] == ["a", "b"]
    assert await names(app) == []
    with pytest.raises(TooManyAffected, match="2 records") as refused:
        await batch(app, *two, demands=Demands(max_affected=1))
    assert refused.value.problems[0].pointer == "/operations/1"
    assert await names(app) == []
    await batch(app, *two, demands=Demands(max_affected=2))
    assert await names(app) == ["a", "b"]


async def test_has_a_size(app: Nexus) -> None:
    for count in (0, 101):
        with pytest.raises(InvalidArguments, match="operations"):
            await batch(app, *[("products.create", {"name": "a"})] * count)
    assert len((await batch(app, *[("products.create", {"name": "a"})] * 100)).results) == 100


async def test_two_databases_cannot_be_kept_together(app: Nexus, tmp_path: Path) -> None:
    other = DataFlow(f"sqlite:///{tmp_path / 'other.db'}")

    @other.model
    class Letter:
        text: str

    app.attach(other)
    with pytest.raises(InvalidInput, match="more than one database"):
        await batch(app, ("products.create", {"name": "a"}), ("letters.create", {"text": "x"}))
    assert await names(app) == []
    assert (await app.runtime.invoke("letters.count", {}, LOCAL, channel="test")).count == 0
    await batch(app, ("products.list", {}), ("letters.create", {"text": "x"}))


async def test_batches_side_by_side_lose_nothing(app: Nexus) -> None:
    await batch(app, ("products.create", {"name": "a"}), ("products.create", {"name": "b"}))

    async def move(source: int, target: int) -> None:
        await batch(
            app,
            ("products.update", {"id": source, "fields": {"$inc": {"stock": -1}}}),
            ("products.update", {"id": target, "fields": {"$inc": {"stock": 1}}}),
        )

    outcomes = await asyncio.gather(
        *(move(1, 2) if number % 2 else move(2, 1) for number in range(12)), return_exceptions=True
    )
    failed = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(outcome, NexusError) and outcome.status == 503 for outcome in failed)
    found = await app.runtime.invoke("products.list", {}, LOCAL, channel="test")
    assert sum(record.stock for record in found.records) == 0


async def test_is_done_once_under_a_key(app: Nexus) -> None:
    two = ("products.create", {"name": "a"}), ("products.create", {"name": "b"})
    first = await batch(app, *two, demands=Demands(key="k"))
    again = await batch(app, *two, demands=Demands(key="k"))
    assert msgspec.json.encode(again) == msgspec.json.encode(first)
    with pytest.raises(KeyReused):
        await batch(app, *two[:1], demands=Demands(key="k"))
    assert await names(app) == ["a", "b"]


async def test_a_step_may_say_in_which_state_its_record_must_be(app: Nexus) -> None:
    made = await app.runtime.invoke("products.create", {"name": "a"}, LOCAL, channel="test")
    tag = app.registry["products.get"].tag(made, msgspec.json.encode(made))
    change = {"operation": "products.update", "arguments": {"id": 1, "stock": 5}, "if_match": tag}
    later = {"operation": "products.update", "arguments": {"id": 1, "stock": 6}}
    await app.runtime.invoke("batch", {"operations": [change, later]}, LOCAL, channel="test")
    with pytest.raises(PreconditionFailed) as refused:
        await app.runtime.invoke("batch", {"operations": [later, change]}, LOCAL, channel="test")
    assert refused.value.problems[0].pointer == "/operations/1"
    with pytest.raises(InvalidInput, match="if_match"):
        await app.runtime.invoke(
            "batch", {"operations": [change | {"operation": "products.create"}]}, LOCAL, channel="test"
        )


async def test_a_model_that_demands_a_state_demands_it_of_a_step(app: Nexus, db: DataFlow) -> None:
    @db.model
    class Guarded:
        name: str
        __dataflow__ = {"require_if_match": True}

    made = await app.runtime.invoke("guardeds.create", {"name": "a"}, LOCAL, channel="test")
    tag = app.registry["guardeds.get"].tag(made, msgspec.json.encode(made))
    change = {"operation": "guardeds.update", "arguments": {"id": 1, "name": "b"}}
    with pytest.raises(PreconditionRequired) as refused:
        await app.runtime.invoke("batch", {"operations": [change]}, LOCAL, channel="test")
    assert refused.value.problems[0].pointer == "/operations/0"
    change["if_match"] = tag
    done = await app.runtime.invoke("batch", {"operations": [change]}, LOCAL, channel="test")
    assert done.results[0].name == "b"
