"""Nodes of one's own: reachable in workflows, inside of the call, and from nowhere else by accident."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from decimal import Decimal
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.nodes import BaseDataFlowNode
from nexus import LOCAL, Nexus, Session
from nexus.errors import (
    Conflict,
    Forbidden,
    InvalidArguments,
    InvalidInput,
    NexusError,
    RegistrationError,
    TimedOut,
    UnknownOperation,
    WriteInRead,
)
from nexus_workflows import WorkflowBuilder
from tests.conftest import Invoke


class CustomAnalyticsNode(BaseDataFlowNode):
    """Whatever is asked."""

    def __init__(self, node_id, custom_query):  # type: ignore[no-untyped-def]
        self.custom_query = custom_query
        super().__init__(node_id)

    def execute(self, input_data: dict[str, Any]) -> Any:
        return self.run_custom_query(self.custom_query)


class Stock(BaseDataFlowNode):
    def __init__(self, node_id: str, least: int = 0, fail: bool = False) -> None:
        super().__init__(node_id)
        self.least = least
        self.fail = fail

    def execute(self, input_data: dict[str, Any]) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        sql = "UPDATE products SET stock = stock + :more WHERE stock >= :least"
        self.run_custom_query(sql, {"more": input_data.get("more", 1), "least": self.least})
        rows = self.run_custom_query("SELECT name, stock FROM products ORDER BY id")
        if self.fail:
            raise ValueError("no")
        return {"rows": rows, "total": sum(row["stock"] for row in rows)}


class Awaiting(BaseDataFlowNode):
    async def execute(self, input_data: dict[str, Any]) -> Any:
        rows = await self.run_custom_query("SELECT count(*) AS n FROM products")
        return {"n": rows[0]["n"]}


@pytest.fixture
def nodes(db: DataFlow, app: Nexus) -> DataFlow:
    for node in (CustomAnalyticsNode, Stock, Awaiting):
        db.register_node(node)
    return db


async def test_a_class_is_a_node_of_a_workflow(nodes: DataFlow, app: Nexus, invoke: Invoke) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ProductCreateNode", "made", {"name": "Lamp", "stock": 4})
    workflow.add_node("Stock", "stock", {"least": 3, "input_data": {"more": "{{made.stock}}"}})
    workflow.add_node("CustomAnalyticsNode", "all", {"custom_query": "SELECT name FROM products"})
    workflow.add_node("Awaiting", "count", {"input_data": {"after": "{{stock.total}}"}})
    app.register("analyse", workflow)
    run = await invoke("analyse")
    assert run.results["stock"] == {"rows": [{"name": "Lamp", "stock": 8}], "total": 8}
    assert run.results["count"] == {"n": 1}
    assert run.results["all"] == [{"name": "Lamp"}]


async def test_what_it_writes_is_kept_or_undone_with_the_rest(
    nodes: DataFlow, app: Nexus, invoke: Invoke
) -> None:
    await invoke("products.create", name="Lamp", stock=4)
    workflow = WorkflowBuilder()
    workflow.add_node("ProductCreateNode", "made", {"name": "Chair"})
    workflow.add_node("Stock", "stock", {"fail": True, "input_data": {"id": "{{made.id}}"}})
    app.register("analyse", workflow)
    with pytest.raises(NexusError, match="'stock' failed"):
        await invoke("analyse")
    listed = (await invoke("products.list")).records
    assert [(record.name, record.stock) for record in listed] == [("Lamp", 4)]


async def test_it_cannot_be_reached_from_outside(nodes: DataFlow, app: Nexus) -> None:
    assert "CustomAnalyticsNode" not in [operation.name for operation in app.registry.public()]
    with pytest.raises(UnknownOperation):
        app.registry.outside("CustomAnalyticsNode")
    reader = Session(id="1", user="ada", scopes=frozenset({"products.list"}))
    with pytest.raises((Forbidden, UnknownOperation)):
        await app.runtime.invoke("Awaiting", {}, reader, channel="test")


async def test_parameters_are_checked(nodes: DataFlow, app: Nexus) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("Stock", "stock", {"leest": 1})
    with pytest.raises(RegistrationError, match="no parameter 'leest'"):
        app.register("one", workflow)
    with pytest.raises(InvalidArguments):
        app.registry["Stock"].arguments.accept({"least": "many"})
    with pytest.raises(InvalidArguments):
        app.registry["CustomAnalyticsNode"].arguments.accept({})


async def test_a_function_is_a_node(db: DataFlow, app: Nexus, invoke: Invoke) -> None:
    @db.node
    async def restock(tx: Any, product_id: int, amount: int = 1) -> dict[str, Any]:
        """Add what has arrived."""
        before = await tx.products.get(product_id)
        await tx.products.update(product_id, fields={"$inc": {"stock": amount}})
        rows = await tx.query("SELECT stock FROM products WHERE id = :id", {"id": product_id})
        return {"before": before["stock"], "after": rows[0]["stock"]}

    @db.node(effect="read", internal=False, name="count_all")
    async def count(tx: Any) -> int:
        with pytest.raises(WriteInRead):
            await tx.query("SELECT 1 AS one")
        return int((await tx.products.count())["count"])

    await invoke("products.create", name="Lamp", stock=1)
    workflow = WorkflowBuilder()
    workflow.add_node("RestockNode", "add", {"product_id": "{{id}}", "amount": 5})
    app.register("more", workflow)
    assert (await invoke("more", id=1)).results["add"] == {"before": 1, "after": 6}
    assert app.registry["restock"].internal
    assert app.registry["restock"].summary == "Add what has arrived."
    assert app.registry.outside("count_all").node == "CountAllNode"
    assert await invoke("count_all") == 1
    with pytest.raises(UnknownOperation):
        app.registry.outside("restock")


async def test_they_keep_to_the_rights_of_the_caller(db: DataFlow, app: Nexus) -> None:
    @db.node(internal=False)
    async def take(tx: Any) -> None:
        await tx.products.create(name="x")

    session = Session(id="1", user="ada", scopes=frozenset({"take", "products.list"}))
    with pytest.raises(Forbidden):
        await app.runtime.invoke("take", {}, session, channel="test")


async def test_parameters_of_every_type_are_bound(db: DataFlow, app: Nexus, invoke: Invoke) -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)

    @db.model
    class Sample:
        text: str
        number: int
        weight: float
        flag: bool
        moment: datetime.datetime
        day: datetime.date
        price: Decimal
        raw: bytes
        meta: dict  # type: ignore[type-arg]

    values = {
        "text": 'it\'s :x % %s \\ "q"; DROP TABLE samples --',
        "number": -(2**62),
        "weight": 0.1,
        "flag": True,
        "moment": moment,
        "day": moment.date(),
        "price": Decimal("1.5"),
        "raw": b"\0\xff'",
        "meta": {"a": [1, None]},
    }
    await db.samples.create(**values)
    found: list[dict[str, Any]] = []

    exact = {name: value for name, value in values.items() if name not in ("meta", "weight")}

    @db.node(internal=False)
    async def look(tx: Any) -> None:
        tests = " AND ".join(f"{name} = :{name}" for name in exact)
        found.extend(await tx.query(f"SELECT id FROM samples WHERE {tests}", exact))
        sql = "SELECT '10:30' AS t, 5 % 3 AS m, '\\:a' AS c FROM samples WHERE number IN :few"
        found.extend(await tx.query(sql, {"few": [values["number"], 7]}))
        with pytest.raises(InvalidInput, match="':few' is empty"):
            await tx.query("SELECT id FROM samples WHERE text IN :few", {"few": []})
        assert await tx.query("DELETE FROM samples WHERE weight > :least", {"least": 0.5}) == []

    await invoke("look")
    assert found == [{"id": 1}, {"t": "10:30", "m": 2, "c": ":a"}]


@pytest.mark.parametrize(
    ("sql", "parameters", "said"),
    [
        ("COMMIT", None, "begins with COMMIT"),
        ("  -- note\n /* x */ rollback", None, "begins with ROLLBACK"),
        ("CREATE TABLE x (id int)", None, "begins with CREATE"),
        ("DROP TABLE products", None, "begins with DROP"),
        ("", None, "begins with nothing"),
        (7, None, "is a text, not int"),
        ("SELECT :a AS a", None, "has ':a', for which there is no value"),
        ("SELECT 1 AS one", {"a": 1}, "has no ':a'"),
        ("SELECT :a AS a", [1], "are a dict, not list"),
        ("SELECT :a AS a", {"a": object()}, "':a' cannot be a object"),
        ("SELECT id, id FROM products", None, "named 'id'"),
        ("SELECT 1 AS a; DELETE FROM products", None, "cannot read the statement"),
        ("SELECT FORM products WHERE", None, "cannot read the statement"),
        ("SELECT * FROM nothing_there", None, "no table or column 'nothing_there'"),
    ],
)
async def test_statements_that_are_refused(
    db: DataFlow, app: Nexus, invoke: Invoke, sql: Any, parameters: Any, said: str
) -> None:
    await invoke("products.create", name="Lamp")

    @db.node(internal=False)
    async def look(tx: Any) -> Any:
        return await tx.query(sql, parameters)

    with pytest.raises(NexusError, match=said) as caught:
        await invoke("look")
    assert caught.value.code == ("DF-301" if "nothing_there" in said else "NX-400")
    assert (await invoke("products.count")).count == 1


async def test_tables_are_there_before_the_first_use(db: DataFlow, app: Nexus, invoke: Invoke) -> None:
    @db.node(internal=False)
    async def look(tx: Any) -> Any:
        return await tx.query("SELECT count(*) AS n FROM products")

    assert await invoke("look") == [{"n": 0}]


async def test_a_time_limit_ends_a_node_in_a_thread(db: DataFlow, app: Nexus, invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp")
    after: list[object] = []

    class Slow(BaseDataFlowNode):
        internal = False

        def execute(self, input_data: dict[str, Any]) -> Any:
            self.run_custom_query("UPDATE products SET stock = 9")
            time.sleep(0.6)
            try:
                self.run_custom_query("UPDATE products SET stock = 10")
            except BaseException as failure:
                after.append(failure)
            return None

    db.register_node(Slow)
    with pytest.raises(TimedOut):
        await app.runtime.invoke("Slow", {}, LOCAL, channel="test", timeout=0.2)
    assert (await invoke("products.get", id=1)).stock == 0
    for _ in range(40):
        if after:
            break
        await asyncio.sleep(0.05)
    assert [type(failure) for failure in after] == [NexusError]
    assert (await invoke("products.get", id=1)).stock == 0


async def test_a_failure_of_the_database_is_ours(db: DataFlow, app: Nexus, invoke: Invoke) -> None:
    @db.model
    class Unique:
        name: str
        __indexes__ = [{"fields": ["name"], "unique": True}]

    @db.node(internal=False)
    async def twice(tx: Any) -> None:
        await tx.uniques.create(name="secret value")
        columns = "name, created_at, updated_at"
        await tx.query(f"INSERT INTO uniques ({columns}) SELECT {columns} FROM uniques")

    with pytest.raises(Conflict, match="same name") as caught:
        await invoke("twice")
    assert "secret" not in str(caught.value)


def test_what_is_no_node(db: DataFlow) -> None:
    class Unfinished(BaseDataFlowNode):
        pass

    class Loose(BaseDataFlowNode):
        def __init__(self, node_id: str, **rest: Any) -> None:
            super().__init__(node_id)

        def execute(self, input_data: dict[str, Any]) -> Any:
            return None

    for wrong in (int, "Node", Unfinished, lambda: None):
        with pytest.raises(RegistrationError, match="derives from BaseDataFlowNode"):
            db.register_node(wrong)  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="'rest' must have a name"):
        db.register_node(Loose)
    with pytest.raises(RegistrationError, match="must be 'async def"):
        db.node(lambda tx: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(RegistrationError, match="no effect 'destroy'"):
        db.node(effect="destroy")(None)
    db.register_node(Awaiting)
    with pytest.raises(RegistrationError, match="a node 'Awaiting' already"):
        db.register_node(Awaiting)
    with pytest.raises(NexusError, match="does not run"):
        Stock("s").run_custom_query("SELECT 1")
