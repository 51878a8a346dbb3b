"""LocalRuntime and AsyncLocalRuntime: workflows in programs."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import Nexus, NexusError
from nexus.errors import (
    ConfigurationError,
    InvalidInput,
    NotFound,
    RegistrationError,
    TimedOut,
    UnknownOperation,
)
from nexus_workflows import AsyncLocalRuntime, ExecutionContext, LocalRuntime, WorkflowBuilder
from tests.workflows.support import nodes


def _shop(url: str = ":memory:", name: str | None = None) -> DataFlow:
    db = DataFlow(url, name=name)

    @db.model
    class Gadget:
        name: str
        stock: int = 0

    return db


MAKE = ("GadgetCreateNode", "make", {"name": "x"})


def test_nodes_are_found_without_an_application(database: str) -> None:
    db = _shop(database)
    runtime = LocalRuntime()
    workflow = nodes(MAKE, ("GadgetReadNode", "read", {"id": "{{make.id}}"})).build()
    results, run_id = runtime.execute(workflow)
    assert results["make"]["data"]["name"] == "x"
    assert results["read"]["id"] == results["make"]["id"]
    assert len(run_id) == 32
    assert runtime.execute(workflow)[1] != run_id
    assert db.sync.gadgets.count() == {"count": 2}
    db.sync.close()
    with pytest.raises(UnknownOperation, match="no node 'GadgetCreateNode'"):
        runtime.execute(workflow)


def test_a_node_of_two_instances_needs_to_be_chosen() -> None:
    left, right = _shop(name="left"), _shop(name="right")
    with pytest.raises(RegistrationError, match="several instances: 'left', 'right'"):
        LocalRuntime().execute(nodes(MAKE))
    LocalRuntime().execute(nodes(("GadgetCreateNode", "make", {"name": "x", "db_instance": "left"})))
    LocalRuntime().execute(nodes(("GadgetCreateNode", "make", {"name": "x", "database": "right"})))
    only = WorkflowBuilder(registry=right)
    only.add_node(*MAKE)
    LocalRuntime().execute(only)
    assert (left.sync.gadgets.count()["count"], right.sync.gadgets.count()["count"]) == (1, 2)
    with pytest.raises(RegistrationError, match=r"no instance 'lfet'. Did you mean 'left'"):
        LocalRuntime().execute(nodes(("GadgetCreateNode", "make", {"name": "x", "db_instance": "lfet"})))
    right.sync.close()
    del right, only
    LocalRuntime().execute(nodes(MAKE))
    assert left.sync.gadgets.count()["count"] == 2
    left.sync.close()


def test_instances_that_nobody_holds_are_not_found() -> None:
    first = _shop()
    del first
    gc.collect()
    kept = _shop()
    LocalRuntime().execute(nodes(MAKE))
    assert kept.sync.gadgets.count()["count"] == 1
    kept.sync.close()


def test_two_instances_of_one_file_are_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    first, second = _shop(url), _shop(url)
    LocalRuntime().execute(nodes(MAKE))
    assert first.sync.gadgets.count() == second.sync.gadgets.count() == {"count": 1}
    for each in (first, second):
        each.sync.close()


def test_two_instances_in_one_run(tmp_path: Path) -> None:
    db = _shop()
    other = DataFlow(f"sqlite:///{tmp_path / 'other.db'}", name="other")

    @other.model
    class Note:
        text: str

    workflow = nodes(MAKE, ("NoteCreateNode", "note", {"text": "x", "database": "other"}))
    LocalRuntime().execute(workflow)
    workflow.add_node("GadgetUpdateNode", "fail", {"id": 99, "name": "y"})
    workflow.add_connection("note", "id", "fail", "input")
    with pytest.raises(NotFound):
        LocalRuntime().execute(workflow)
    assert (db.sync.gadgets.count()["count"], other.sync.notes.count()["count"]) == (1, 1)
    for each in (db, other):
        each.sync.close()


def test_from_many_threads_at_once(database: str) -> None:
    db = _shop(database)
    runtime, workflow = LocalRuntime(), nodes(("GadgetCreateNode", "make", {"name": "{{name}}"})).build()
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda n: runtime.execute(workflow, {"name": f"n{n}"}), range(40)))
    assert {results["make"]["name"] for results, _ in runs} == {f"n{n}" for n in range(40)}
    assert db.sync.gadgets.count() == {"count": 40}
    db.sync.close()


async def test_under_a_running_loop(database: str) -> None:
    db = _shop(database)
    results, _ = LocalRuntime(persistent_mode=True).execute(nodes(MAKE))
    assert results["make"]["name"] == "x"
    results, _ = await AsyncLocalRuntime().execute_workflow_async(nodes(MAKE).build(), inputs={})
    assert results["make"]["id"] == 2
    await db.close()
    db.sync.close()


async def test_inside_of_a_transaction_it_is_a_part(database: str) -> None:
    db = _shop(database)
    runtime = AsyncLocalRuntime()
    with pytest.raises(ValueError):
        async with db.transaction():
            await runtime.execute_async(nodes(MAKE))
            raise ValueError
    assert (await db.gadgets.count())["count"] == 0
    await db.close()


def test_inside_of_a_synchronous_transaction_it_is_a_part(database: str) -> None:
    db = _shop(database)
    with pytest.raises(ValueError), db.sync.transaction():
        LocalRuntime().execute(nodes(MAKE))
        raise ValueError
    assert db.sync.gadgets.count()["count"] == 0
    db.sync.close()


async def test_time_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = nodes(("DelayNode", "wait", {"seconds": 30})).build()
    with pytest.raises(asyncio.TimeoutError) as caught:
        await AsyncLocalRuntime(execution_timeout=0.05).execute_async(slow)
    assert isinstance(caught.value, TimedOut)
    monkeypatch.setenv("DATAFLOW_EXECUTION_TIMEOUT", "120")
    assert AsyncLocalRuntime().execution_timeout == 120
    DataFlow(":memory:")
    assert LocalRuntime().execution_timeout is None
    monkeypatch.setenv("DATAFLOW_EXECUTION_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError):
        AsyncLocalRuntime()
    monkeypatch.delenv("DATAFLOW_EXECUTION_TIMEOUT")
    assert AsyncLocalRuntime().execution_timeout == 300


async def test_no_more_nodes_at_once_than_allowed() -> None:
    source = "import asyncio\nnow.append(1)\nmost.append(len(now))\nawait asyncio.sleep(0.005)\nnow.pop()"
    workflow = nodes(*(("AsyncPythonCodeNode", f"n{n}", {"code": source}) for n in range(20)))
    now: list[int] = []
    most: list[int] = []
    await AsyncLocalRuntime(max_concurrent_nodes=3).execute_async(workflow, {"now": now, "most": most})
    assert max(most) == 3


async def test_a_context_ends_what_still_runs(database: str) -> None:
    db = _shop(database)
    workflow = nodes(MAKE, ("DelayNode", "wait", {"seconds": 30}))
    workflow.add_connection("wait", "result", "make", "input")
    async with ExecutionContext() as context:
        results, _ = await context.execute(nodes(MAKE))
        task = context.start(workflow)
        await asyncio.sleep(0.02)
    assert task.cancelled()
    assert results["make"]["name"] == "x"
    assert (await db.gadgets.count())["count"] == 1
    await db.close()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="LoopNode"):
        LocalRuntime(enable_cycles=True)
    with pytest.raises(TypeError, match="did you mean 'execution_timeout'"):
        AsyncLocalRuntime(execution_timout=3)
    for wrong in ({"max_concurrent_nodes": 0}, {"execution_timeout": -1}):
        with pytest.raises(ConfigurationError):
            LocalRuntime(**wrong)
    with LocalRuntime() as runtime:
        assert runtime.execute(nodes(("PythonCodeNode", "x", {"code": "result = 1"})))[0]["x"]["result"] == 1
    with pytest.raises(InvalidInput, match="closed"):
        runtime.execute(nodes(("PythonCodeNode", "x", {"code": "result = 1"})))
    with pytest.raises(InvalidInput, match="WorkflowBuilder"):
        LocalRuntime().execute({"x": 1})  # type: ignore[arg-type]


def test_a_synchronous_run_inside_of_a_synchronous_run_is_refused() -> None:
    source = "from nexus_workflows import LocalRuntime\nresult = LocalRuntime().execute(inner)[1]"
    inner = nodes(("PythonCodeNode", "x", {"code": "result = 1"})).build()
    with pytest.raises(NexusError, match="would never end"):
        LocalRuntime().execute(nodes(("PythonCodeNode", "y", {"code": source})), {"inner": inner})


def test_replaced_and_removed_while_it_runs(db: DataFlow) -> None:
    app = Nexus(db)
    runtime = LocalRuntime(app)
    app.register("inner", nodes(("PythonCodeNode", "x", {"code": "result = 1"})))
    outer = nodes(("inner", "run", {})).build()
    assert runtime.execute(outer)[0]["run"]["results"]["x"]["result"] == 1
    with pytest.raises(RegistrationError, match="already"):
        app.register("inner", nodes(("PythonCodeNode", "x", {"code": "result = 2"})))
    app.register("outer", outer)
    app.register("inner", nodes(("PythonCodeNode", "x", {"code": "result = 2"})), replace=True)
    again = nodes(("outer", "run", {}))
    assert runtime.execute(again)[0]["run"]["results"]["run"]["results"]["x"]["result"] == 2
    with pytest.raises(RegistrationError, match=r"is the name of 'products.create' already"):
        app.register("ProductCreateNode", outer, replace=True)
    app.unregister("inner")
    with pytest.raises(UnknownOperation, match="inner"):
        runtime.execute(again)
    db.sync.close()  # where its runs were recorded


def test_discovery_is_asked_for(tmp_path: Path, db: DataFlow) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "a.py").write_text(
        "from nexus_workflows import WorkflowBuilder\n"
        "first = WorkflowBuilder()\n_other = first\n"
        "first.add_node('ProductCreateNode', 'make', {'name': '{{name}}'})\n"
    )
    (tmp_path / "second_workflow.py").write_text(
        "from nexus_workflows import WorkflowBuilder\n"
        "second = WorkflowBuilder()\nsecond.add_node('PythonCodeNode', 'x', {'code': 'result = 1'})\n"
    )
    (tmp_path / "other.py").write_text("raise SystemError\n")
    app = Nexus(db)
    assert app.discover(tmp_path) == ["second", "first"]
    assert {"first", "second"} <= {operation.name for operation in app.registry}
    (tmp_path / "bad_workflow.py").write_text("1 / 0\n")
    with pytest.raises(RegistrationError, match=r"bad_workflow.py' cannot be loaded: ZeroDivisionError"):
        Nexus(db).discover(tmp_path)
    with pytest.raises(RegistrationError, match="no folder"):
        app.discover(tmp_path / "nowhere")


SCRIPT = """
import sys
from kailash_dataflow import DataFlow
from kailash.nodes.base import Node, NodeParameter, register_node
from kailash.runtime import AsyncLocalRuntime
from kailash.runtime.async_local import ExecutionContext
from kailash.runtime.local import LocalRuntime
from kailash.servers.gateway import create_gateway
from kailash.workflow.builder import WorkflowBuilder
from kailash.workflows.workflow import Workflow

@register_node()
class Twice(Node):
    def get_parameters(self):
        return {"number": NodeParameter(name="number", type=int), "by": NodeParameter("by", int, False, 2)}

    def run(self, number, by):
        return {"twice": number * by}

db = DataFlow(":memory:")

@db.model
class User:
    name: str

workflow = WorkflowBuilder()
workflow.add_node("UserCreateNode", "create", {"name": sys.argv[1]})
workflow.add_node("Twice", "twice", {"number": 4})
results, run_id = LocalRuntime().execute(workflow.build())
assert isinstance(workflow.build(), Workflow)
print(results["create"]["name"], results["twice"]["twice"], create_gateway(dataflow_integration=db).title)
"""


@pytest.mark.parametrize("how", ["program", "import"])
def test_programs_with_older_imports(tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT if how == "program" else "import nexus_workflows.kailash\n" + SCRIPT)
    program = ["-m", "nexus_workflows.kailash"] if how == "program" else []
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *program, str(script), "Alice"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Alice 8 Nexus\n", "")


def test_threads_are_left_as_they_were() -> None:
    before = {thread.name for thread in threading.enumerate()}
    LocalRuntime().execute(nodes(("PythonCodeNode", "x", {"code": "result = 1"})))
    assert {thread.name for thread in threading.enumerate()} - before <= {"nexus-loop"}


def test_nodes_of_a_dataflows_own(database: str) -> None:
    db = _shop(database)
    assert LocalRuntime().execute(nodes(MAKE))[0]["make"]["id"] == 1

    @db.node
    async def restock_all(tx: Any, quantity: int) -> dict[str, int]:
        await tx.gadgets.update(1, stock=quantity)
        return {"to": quantity}

    results, _ = LocalRuntime().execute(nodes(("RestockAllNode", "all", {"quantity": 4})))
    assert results["all"]["to"] == 4
    assert db.sync.gadgets.get(1)["stock"] == 4
    db.sync.close()
