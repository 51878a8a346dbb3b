"""Workflows: checked when they are registered, atomic when they run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus, NexusError
from nexus.errors import InvalidArguments, NotFound, RegistrationError, UnknownOperation
from nexus_workflows import WorkflowBuilder
from nexus_workflows.values import MissingValue
from tests.conftest import Invoke


@pytest.fixture
def restock(app: Nexus) -> Nexus:
    workflow = WorkflowBuilder("Add what has arrived.")
    workflow.add_input("quantity", Annotated[int, msgspec.Meta(gt=0)], "How many")
    workflow.add_node(
        "ProductUpdateNode",
        "add",
        {"id": "{{product_id}}", "fields": {"stock": {"$inc": "{{ quantity }}"}}},
    )
    app.register("restock", workflow)
    return app


async def test_a_workflow_is_an_operation(restock: Nexus, invoke: Invoke) -> None:
    operation = restock.registry["restock"]
    assert operation.summary == "Add what has arrived."
    types = {name: field.type for name, field in operation.arguments.fields.items()}
    assert set(types) == {"quantity", "product_id"}
    await invoke("products.create", name="Lamp", stock=1)
    run = await invoke("restock", product_id=1, quantity=4)
    assert run.results["add"]["stock"] == 5
    assert len(run.run_id) == 32
    for wrong, code in (
        ({"product_id": 1, "quantity": 0}, "DF-102"),
        ({"product_id": "1", "quantity": 1}, "DF-102"),
        ({"quantity": 1}, "DF-101"),
        ({"product_id": 1, "quantity": 1, "how": 1}, "DF-106"),
    ):
        with pytest.raises(InvalidArguments) as caught:
            await invoke("restock", **wrong)
        assert caught.value.code == code


async def test_a_single_write_is_one_statement_and_loses_nothing(restock: Nexus, invoke: Invoke) -> None:
    assert restock.registry["restock"].atomic is False
    await invoke("products.create", name="Lamp")
    await asyncio.gather(*(invoke("restock", product_id=1, quantity=1) for _ in range(100)))
    assert (await invoke("products.get", id=1)).stock == 100


async def test_a_failure_names_its_node(restock: Nexus, invoke: Invoke) -> None:
    with pytest.raises(NotFound) as caught:
        await invoke("restock", product_id=7, quantity=1)
    assert caught.value.describe()["node"] == "add"


async def test_values_flow_along_connections_and_templates(app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ProductCreateNode", "make", {"name": "{{kind}} no. {{number}}", "tags": ["{{kind}}"]})
    workflow.add_node("ProductListNode", "find", {"filter": {"id": "{{make.id}}"}})
    workflow.add_node("ProductUpdateNode", "rename", {"fields": {"name": ":wanted", "note": "{{make.name}}"}})
    workflow.add_connection("find", "records.0.id", "rename", "id")
    workflow.add_connection("make", "data.tags.0", "rename", "wanted")
    app.register("flow", workflow)
    run = await invoke("flow", kind="Lamp", number=3)
    assert run.results["make"]["name"] == "Lamp no. 3"
    assert run.results["rename"]["name"] == "Lamp"
    assert run.results["rename"]["note"] == "Lamp no. 3"


@pytest.mark.feed
async def test_what_fails_half_way_leaves_nothing(app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ProductCreateNode", "make", {"name": "half"})
    workflow.add_node("ProductUpdateNode", "fail", {"id": "{{other}}", "name": "x"})
    workflow.add_connection("make", "id", "fail", "input")
    app.register("half", workflow)
    async with app.feed.subscribe(LOCAL, "products") as followed:
        with pytest.raises(NotFound):
            await invoke("half", other=99)
        assert (await invoke("products.count")).count == 0
        await invoke("products.create", name="after")
        change = await anext(aiter(followed))
        assert change.record is not None
        assert change.record["name"] == "after"


async def test_read_and_write_in_one_workflow_lose_nothing(app: Nexus, invoke: Invoke) -> None:
    """Read a number, then write one that depends on it: at once, many times."""
    workflow = WorkflowBuilder()
    workflow.add_node("ProductReadNode", "read", {"id": 1})
    workflow.add_node("ProductUpdateNode", "write", {"id": 1, "note": "seen {{read.stock}}"})
    workflow.add_node("ProductUpdateNode", "count", {"id": 1, "fields": {"stock": {"$inc": 1}}})
    workflow.add_connection("write", "id", "count", "input")
    app.register("both", workflow)
    await invoke("products.create", name="Lamp")
    runs = await asyncio.gather(*(invoke("both") for _ in range(30)))
    assert sorted(run.results["read"]["stock"] for run in runs) == list(range(30))
    for run in runs:
        assert run.results["write"]["note"] == f"seen {run.results['read']['stock']}"


async def test_a_workflow_can_be_a_node(restock: Nexus, invoke: Invoke) -> None:
    outer = WorkflowBuilder()
    outer.add_node("ProductCreateNode", "make", {"name": "Lamp"})
    outer.add_node("restock", "more", {"product_id": "{{make.id}}", "quantity": 2})
    restock.register("outer", outer)
    run = await invoke("outer")
    assert run.results["more"]["results"]["add"]["stock"] == 2


async def test_an_output_that_is_not_there_is_named(app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ProductListNode", "find", {})
    workflow.add_node("ProductReadNode", "read", {"id": "{{find.records.0.id}}"})
    app.register("missing", workflow)
    with pytest.raises(MissingValue, match=r"find\.records\.0") as caught:
        await invoke("missing")
    assert caught.value.code == "DF-802"


def _with(*nodes: tuple[str, str, Any]) -> WorkflowBuilder:
    workflow = WorkflowBuilder()
    for node in nodes:
        workflow.add_node(*node)
    return workflow


READ = ("ProductReadNode", "read", {"id": 1})


@pytest.mark.parametrize(
    ("declare", "named"),
    [
        (lambda: WorkflowBuilder(), "at least one node"),
        (lambda: _with(READ, READ), "a node 'read' already"),
        (lambda: _with(("ProductReadNode", "r", {"id": "${x}"})), "not a template"),
        (lambda: _with(("ProductReadNode", "r", {"id": "{{a b}}"})), "a b}}' is not a template"),
        (lambda: _with(("ProductReadNode", "r", {"id": "{{env.HOME}}"})), "NEXUS_TEMPLATE_ENV"),
        (lambda: _with(("ProductReadNode", "r", {"id": ":x"})), "no connection brings ':x'"),
        (lambda: _with(("ProductReadNode", "r", {"di": 1})), "no parameter 'di'. Known: "),
        (
            lambda: _with(("ProductReadNode", "r", {"id": 1, "cache_ttl": 3})),
            "'cache_ttl' .* not available yet",
        ),
        (lambda: _with(("ProductBulkDeleteNode", "r", {})), "needs the parameter 'filter'"),
        (lambda: _with(("ProductReadNode", "r", 5)), "its type, its id and its parameters"),
        (lambda: _with(("ProductReadNode", "a b", {})), "cannot be the name of a node"),
        (
            lambda: _with(
                ("ProductReadNode", "a", {"id": "{{b.id}}"}), ("ProductReadNode", "b", {"id": "{{a.id}}"})
            ),
            "circle: .* → ",
        ),
    ],
)
def test_what_cannot_run_is_refused_when_declared(db: DataFlow, declare: Any, named: str) -> None:
    app = Nexus(db)
    with pytest.raises(RegistrationError, match=named):
        app.register("wrong", declare())
    assert "wrong" not in app.registry


def test_an_unknown_node_names_the_nearest(db: DataFlow) -> None:
    with pytest.raises(UnknownOperation, match="Did you mean 'ProductReadNode'"):
        Nexus(db).register("wrong", _with(("ProductRaedNode", "r", {"id": 1})))


def test_connections_of_another_order_are_refused_with_the_right_one(db: DataFlow) -> None:
    workflow = _with(READ, ("ProductUpdateNode", "write", {"name": "x"}))
    with pytest.raises(RegistrationError, match='add_connection\\("read", "id", "write", "id"\\)'):
        workflow.add_connection("read", "write", "id", "id")
    with pytest.raises(RegistrationError, match="four names"):
        workflow.add_connection("read", "id", "write")
    with pytest.raises(RegistrationError, match="Did you mean 'write'"):
        workflow.add_connection("read", "id", "wirte", "id")
    workflow.add_connection("read", "id", "write", "idd")
    with pytest.raises(RegistrationError, match="Did you mean 'id'"):
        Nexus(db).register("wrong", workflow)


def test_inputs_are_declared_once_and_used(db: DataFlow) -> None:
    workflow = _with(READ)
    workflow.add_input("spare", int)
    with pytest.raises(RegistrationError, match="declared twice"):
        workflow.add_input("spare", int)
    with pytest.raises(RegistrationError, match="'spare' is declared and not used"):
        Nexus(db).register("wrong", workflow)


async def test_an_input_with_a_default_is_optional(app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_input("name", str, default="Lamp")
    workflow.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
    app.register("make", workflow)
    assert (await invoke("make")).results["make"]["name"] == "Lamp"


async def test_templates_in_data_are_only_text(app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ProductCreateNode", "make", {"name": "{{name}}"})
    app.register("make", workflow)
    for name in ("{{make.id}}", ":name", "${x}"):
        assert (await invoke("make", name=name)).results["make"]["name"] == name
    with pytest.raises(NexusError):
        await invoke("make", name=5)
