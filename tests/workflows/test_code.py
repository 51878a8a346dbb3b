"""Code in workflows: what it is given, what it gives, and how it fails."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from typing import Any

import pytest

from nexus import LOCAL, Nexus
from nexus.errors import InvalidArguments, InvalidInput, RegistrationError
from nexus_workflows import AsyncLocalRuntime, LocalRuntime, WorkflowBuilder, node
from nexus_workflows.errors import NodeFailed
from tests.workflows.support import Heard, nodes, run


@pytest.fixture
def plain() -> Nexus:
    return Nexus(channels=[])


async def one(app: Nexus, source: str, kind: str = "PythonCodeNode", **inputs: object) -> Any:
    return (await run(app, nodes((kind, "it", {"code": source})), **inputs))["it"]


async def test_inputs_are_variables_and_input_data(plain: Nexus) -> None:
    assert await one(plain, "result = n + input_data['n'] + input_data.get('m', 1)", n=2) == {"result": 5}
    assert await one(plain, "result = n + input_data['n'] + input_data.get('m', 1)", n=2, m=3) == {
        "result": 7
    }
    with pytest.raises(InvalidArguments, match="missing argument 'n'"):
        await one(plain, "result = n", m=3)
    with pytest.raises(InvalidArguments, match="unknown argument 'o'"):
        await one(plain, "result = input_data.get('m', 1)", o=3)


async def test_a_name_of_pythons_own_is_an_input_when_declared(plain: Nexus) -> None:
    workflow = nodes(("PythonCodeNode", "it", {"code": "result = id"}))
    built = workflow.build(inputs={"id": int}, max_concurrent_nodes=1)
    assert (await run(plain, built, id=7))["it"]["result"] == 7
    with pytest.raises(RegistrationError, match="1 or more"):
        workflow.build(max_concurrent_nodes=0)


async def test_parameters_beside_the_code_are_inputs(plain: Nexus) -> None:
    workflow = nodes(("PythonCodeNode", "it", {"code": "xs.append(n)\nresult = xs", "xs": [1], "n": "{{n}}"}))
    for number in (2, 3):
        assert (await run(plain, workflow, n=number))["it"]["result"] == [1, number], "made anew for each run"


async def test_several_outputs(plain: Nexus) -> None:
    source = (
        "import json\nname = 'x'\n_hidden = 1\ndef f(): pass\nclient = object()\nparts = [c for c in 'ab']"
    )
    assert await one(plain, source) == {"name": "x", "parts": ["a", "b"]}
    workflow = nodes(
        ("PythonCodeNode", "make", {"code": "filter_data = {'id': 1}\nresult = {'a': 1}"}),
        ("PythonCodeNode", "use", {"code": "result = [got, a]"}),
    )
    workflow.add_connection("make", "filter_data.id", "use", "got")
    workflow.add_connection("make", "a", "use", "a")
    assert (await run(plain, workflow))["use"]["result"] == [1, 1]


async def test_output_data_is_a_result(plain: Nexus) -> None:
    assert await one(plain, "output_data = {'a': datetime.now().tzinfo is not None}") == {"a": True}
    assert await one(plain, "pass") == {}


async def test_the_code_of_a_node_is_no_template(plain: Nexus) -> None:
    assert await one(plain, "result = 'Hello {{name}} ${x}'.replace('{{name}}', 'you')") == {
        "result": "Hello you ${x}"
    }


async def test_asynchronous_code(plain: Nexus) -> None:
    source = """
import asyncio

async def fetch(number):
    await asyncio.sleep(0.001)
    return {"id": number}

user = await fetch(n)
ok = True
"""
    assert await one(plain, source, "AsyncPythonCodeNode", n=4) == {"user": {"id": 4}, "ok": True}
    assert await one(plain, "result = 1", "AsyncPythonCodeNode") == {"result": 1}


async def test_a_connected_dictionary_is_the_input_data(plain: Nexus) -> None:
    workflow = nodes(
        ("PythonCodeNode", "make", {"code": "result = {'a': 1, 'b': 2}"}),
        ("PythonCodeNode", "use", {"code": "result = [input_data['a'], b, get_input_data('make')['b']]"}),
    )
    workflow.add_connection("make", "result", "use", "input")
    assert (await run(plain, workflow))["use"]["result"] == [1, 2, 2]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n\ny = x / 0", r"line 3 \(y = x / 0\): ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['k']\nf()", r"line 2 .*KeyError"),
        ("import sys\nsys.exit(3)", "line 2 .*SystemExit"),
        ("import asyncio\nraise asyncio.CancelledError", "line 2 .*CancelledError"),
        ("result = get_input_data('other')", "not connected to 'other'"),
        ("result = object()", "'result' is not data"),
        ("result = x = []\nx.append(x)", "'result' is not data: RecursionError"),
        (
            "class E(Exception):\n  def __str__(self): raise ValueError\nraise E",
            "E: its message cannot be read, ValueError",
        ),
        ("class E(Exception):\n  def __str__(self): return 'x' * 10**6\nraise E", "E: x{300}…"),
    ],
)
async def test_failures_name_the_node_the_line_and_the_cause(source: str, said: str) -> None:
    with pytest.raises(NodeFailed, match=f"'it'.*{said}") as caught:
        await AsyncLocalRuntime().execute_async(nodes(("PythonCodeNode", "it", {"code": source})))
    assert caught.value.node == "it"
    assert len(str(caught.value)) < 600


async def test_callers_from_outside_are_not_shown_the_message(plain: Nexus) -> None:
    with pytest.raises(NodeFailed) as caught:
        await one(plain, "raise ValueError('the password is 123')")
    assert "123" not in str(caught.value.describe())
    assert "ValueError" in caught.value.detail


async def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(RegistrationError, match="line 2"):
        WorkflowBuilder().add_node("PythonCodeNode", "it", {"code": "x = 1\ny = = 2"})


async def test_who_holds_the_event_loop_is_named(plain: Nexus, caplog: pytest.LogCaptureFixture) -> None:
    @node(name="holds")
    async def holds() -> None:
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - which is the fault that is looked for

    with caplog.at_level(logging.WARNING, "nexus.workflows"):
        await one(plain, "import time\ntime.sleep(0.15)")
        await run(plain, nodes(("holds", "culprit", {})))
    assert [("'it' held" in m, "'culprit' held" in m) for m in caplog.messages] == [
        (True, False),
        (False, True),
    ]


async def test_own_nodes(plain: Nexus) -> None:
    @node(pure=True)
    def slug(title: str, limit: int = 4) -> str:
        return title.lower()[:limit]

    @node(name="Counter")
    class Counting:
        def __init__(self) -> None:
            self.count = 0

        async def run(self, by: int) -> dict[str, int]:
            self.count += by
            return {"count": self.count}

    workflow = nodes(("slug", "s", {"title": "{{title}}"}))
    workflow.add_node(Counting, "c", {"by": 2})
    results = await run(plain, workflow, title="Hello")
    assert results["s"]["result"] == "hell"
    assert results["c"] == {"count": 2}
    for config, named in (
        ({}, "needs the parameter 'title'"),
        ({"title": 5}, "'title': expected str"),
        ({"titel": 1}, "Did you mean"),
    ):
        with pytest.raises(RegistrationError, match=named):
            plain.register("x", nodes(("slug", "s", config)))
    with pytest.raises(RegistrationError, match="a node 'slug' already"):
        node(lambda: 1, name="slug")
    with pytest.raises(RegistrationError, match="is not a node"):
        WorkflowBuilder().add_node(object(), "x", {})


async def test_own_nodes_fail_with_their_name(plain: Nexus) -> None:
    @node(name="leaves")
    def leaves(how: str) -> object:
        if how == "exit":
            raise SystemExit
        return object()

    for how, said in (("exit", "tried to end the program"), ("object", "is not data")):
        with pytest.raises(NodeFailed, match=said):
            await run(plain, nodes(("leaves", "l", {"how": how})))


async def test_code_is_no_operation(plain: Nexus) -> None:
    for name in ("PythonCodeNode", "slug", "SwitchNode"):
        with pytest.raises(Exception, match="There is no operation"):
            await plain.runtime.invoke(name, {"code": "1"}, LOCAL, channel="rest")


async def test_a_workflow_that_is_its_own_node_ends(plain: Nexus) -> None:
    plain.register("again", nodes(("PythonCodeNode", "x", {"code": "result = 1"})))
    plain.register("again", nodes(("again", "x", {})), replace=True)
    with pytest.raises(InvalidInput, match=r"inside of each other without end: .*again → again"):
        await plain.runtime.invoke("again", {}, LOCAL, channel="test")


async def test_ten_thousand_nodes(plain: Nexus) -> None:
    workflow = WorkflowBuilder()
    for number in range(10_000):
        workflow.add_node("slug_step", f"n{number}", {})
        if number:
            workflow.add_connection(f"n{number - 1}", "result", f"n{number}", "input")

    @node(name="slug_step")
    def step() -> int:
        return 1

    assert len(await run(plain, workflow)) == 10_000
    workflow.add_connection("n9999", "result", "n0", "input")
    with pytest.raises(RegistrationError, match=r"circle: n.* → … → n"):
        workflow.build()


async def test_those_who_listen_hear_of_each_node(app: Nexus) -> None:
    workflow = nodes(
        (
            "ProductReadNode",
            "find",
            {
                "id": 1,
                "on_error": "continue",
                "retry": {"max_attempts": 2, "base_delay": 0, "retry_on": ["NotFound"]},
            },
        ),
        ("SwitchNode", "which", {"condition": "false"}),
        ("PythonCodeNode", "never", {"code": "result = 1"}),
    )
    workflow.add_connection("which", "true_output", "never", "input")
    operation = workflow.build().as_operation("heard", app.registry)
    heard = Heard()
    inner = operation.handler

    async def listened(call: Any, arguments: Any) -> Any:
        call.progress = heard
        return await inner(call, arguments)

    object.__setattr__(operation, "handler", listened)
    await app.runtime.invoke(operation, {}, LOCAL, channel="test")
    assert sorted(heard.started) == ["find", "which"]
    assert sorted(heard.ended) == [
        ("find", "failed"),
        ("find", "retrying"),
        ("never", "skipped"),
        ("which", "done"),
    ]
    assert heard.errors["find"].code == "DF-404"


def test_dates_in_code_are_aware() -> None:
    workflow = nodes(("PythonCodeNode", "it", {"code": "result = (datetime.now() - then).days"}))
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    assert LocalRuntime().execute(workflow, {"then": then})[0]["it"]["result"] == 3


async def test_what_is_imported_is_not_asked_for(plain: Nexus) -> None:
    source = "from math import *\nimport os.path as p, json\n"
    source += "result = [floor(2.5), p.basename('a/b'), json.dumps(1)]"
    assert await one(plain, source) == {"result": [2, "b", "1"]}
    source = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    result = [str(e) for _ in range(1)]\n"
    assert await one(plain, source) == {"result": ["division by zero"]}
    source = "match [1, 2]:\n    case [a, *b]:\n        result = (lambda c: c + a)(b[0])\n"
    source += "with open(os.devnull) as f: pass"
    assert await one(plain, source) == {"result": 3}
