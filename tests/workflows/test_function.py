"""Workflows declared as functions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nexus import Nexus
from nexus.errors import InvalidArguments, RegistrationError
from nexus_workflows import Flow, LocalRuntime, Reference, workflow
from tests.conftest import Invoke
from tests.workflows.support import nodes


async def test_a_function_is_a_workflow(app: Nexus, invoke: Invoke) -> None:
    @workflow
    def restock(flow: Flow, name: str, quantity: int = 2) -> dict[str, Reference]:
        """Make and fill.

        More."""
        made = flow.add("ProductCreateNode", "make", name=name, tags=[name])
        found = flow.add("ProductListNode", "find", filter={"id": made.id})
        change = {"stock": {"$inc": quantity}}
        added = flow.add("ProductUpdateNode", "add", id=found.records[0]["id"], fields=change)
        return {"id": made.id, "stock": added.stock}

    app.register("restock", restock)
    assert app.registry["restock"].summary == "Make and fill."
    assert (await invoke("restock", name="Lamp")).output == {"id": 1, "stock": 2}
    assert (await invoke("restock", name="Lamp", quantity=5)).output == {"id": 2, "stock": 5}
    with pytest.raises(InvalidArguments):
        await invoke("restock", name=5)


async def test_a_function_that_decides(app: Nexus, invoke: Invoke) -> None:
    @workflow(transaction="none")
    def decide(flow: Flow, wanted: bool) -> None:
        which = flow.add("SwitchNode", "which", condition="{{wanted}}")
        flow.add("ProductCreateNode", "yes", name="yes", after=which.true_output)
        flow.add("ProductCreateNode", "no", name="no", after=[which.false_output])

    app.register("decide", decide)
    made = await invoke("decide", wanted=False)
    assert (made.results["yes"], made.results["no"]["name"]) == (None, "no")


def test_what_a_function_cannot_do() -> None:
    def declare(body: Any) -> None:
        workflow(lambda flow, n: body(n))

    for body in (bool, list, lambda n: n == 1, lambda n: n < 1, lambda n: n.x > 2):
        with pytest.raises(RegistrationError, match="not known before the workflow runs"):
            declare(body)

    async def asynchronous(flow: Flow) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RegistrationError, match="must be 'def asynchronous"):
        workflow(asynchronous)


def test_parameters_without_end_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["endless"] = endless
    with pytest.raises(RegistrationError, match="nested without end"):
        nodes(("PythonCodeNode", "x", {"code": "result = 1", "deep": endless}))
    assert (
        LocalRuntime().execute(nodes(("PythonCodeNode", "x", {"code": "result = 1"})))[0]["x"]["result"] == 1
    )
