"""Switches, joins, handlers: which nodes run."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import NotFound, RegistrationError
from nexus_workflows import WorkflowBuilder
from nexus_workflows.errors import MissingValue, NodeFailed
from nexus_workflows.expression import Expression
from tests.workflows.support import nodes, run


@pytest.fixture
def plain() -> Nexus:
    return Nexus(channels=[])


def code(text: str) -> dict[str, str]:
    return {"code": text}


def _branches(condition: str = "{{n}} > 3") -> WorkflowBuilder:
    workflow = nodes(
        ("SwitchNode", "which", {"condition": condition}),
        ("PythonCodeNode", "big", code("result = 'big'")),
        ("PythonCodeNode", "small", code("result = 'small'")),
        ("PythonCodeNode", "last", code("result = get_input_data('big') or get_input_data('small')")),
        ("MergeNode", "join", {"mode": "first"}),
        ("PythonCodeNode", "joined", code("result = said")),
    )
    workflow.add_connection("which", "true_output", "big", "input")
    workflow.add_connection("which", "false_output", "small", "input")
    workflow.add_connection("big", "result", "last", "input")
    workflow.add_connection("small", "result", "last", "input")
    workflow.add_connection("big", "result", "join", "one")
    workflow.add_connection("small", "result", "join", "other")
    workflow.add_connection("join", "result", "joined", "said")
    return workflow


@pytest.mark.parametrize(("n", "taken", "left"), [(5, "big", "small"), (1, "small", "big")])
async def test_only_the_taken_branch_runs_and_joins_know_it(
    plain: Nexus, n: int, taken: str, left: str
) -> None:
    results = await run(plain, _branches(), n=n)
    assert results[taken]["result"] == taken
    assert results[left] is None
    assert results["last"]["result"] == taken
    assert results["joined"]["result"] == taken


async def test_what_follows_a_branch_that_is_not_taken_does_not_run(plain: Nexus) -> None:
    workflow = nodes(
        ("PythonCodeNode", "first", code("result = 1")),
        ("SwitchNode", "which", {"condition": "ok"}),
        ("PythonCodeNode", "a", code("result = 1")),
        ("PythonCodeNode", "b", code("result = 2")),
        ("PythonCodeNode", "c", {"code": "result = seen", "seen": "{{b.result}}"}),
    )
    workflow.add_connection("which", "true_output", "a", "input")
    workflow.add_connection("first", "result", "a", "input")
    workflow.add_connection("a", "result", "b", "input")
    results = await run(plain, workflow, ok=False)
    assert (results["a"], results["b"], results["c"]) == (None, None, None)
    assert (await run(plain, workflow, ok=True))["c"]["result"] == 2


@pytest.mark.parametrize(
    ("cases", "value", "taken"),
    [
        (["a", "b"], "b", "case_b"),
        (["a", "b"], "z", "default"),
        ({"cheap": "small", "dear": ["large", "huge"]}, "huge", "dear"),
    ],
)
async def test_a_switch_by_value(plain: Nexus, cases: Any, value: str, taken: str) -> None:
    workflow = nodes(("SwitchNode", "which", {"value": "{{size}}", "cases": cases}))
    for route in ("default", "case_b", "dear"):
        if route in (taken, "default"):
            workflow.add_node("PythonCodeNode", route, code(f"result = {route!r}"))
            workflow.add_connection("which", route, route, "input")
    results = await run(plain, workflow, size=value)
    assert results["which"]["taken"] == taken
    assert results[taken]["result"] == taken


def test_a_node_behind_both_ways_is_refused(plain: Nexus) -> None:
    workflow = _branches()
    workflow.add_node("PythonCodeNode", "never", code("result = a"))
    workflow.add_connection("big", "result", "never", "a")
    workflow.add_connection("small", "result", "never", "b")
    with pytest.raises(RegistrationError, match="'never' can never run"):
        plain.register("x", workflow)


async def test_a_handler_runs_when_its_node_fails_and_only_then(app: Nexus) -> None:
    workflow = nodes(
        (
            "ProductUpdateNode",
            "change",
            {"id": "{{id}}", "name": "x", "on_error": {"action": "goto", "goto": "help"}},
        ),
        ("PythonCodeNode", "help", code("result = {'code': get_input_data('change')['code']}")),
        ("PythonCodeNode", "then", {"code": "result = name", "name": "{{change.name}}"}),
        ("ProductCreateNode", "made", {"name": "kept"}),
    )
    results = await run(app, workflow, id=77)
    assert results["help"] == {"code": "DF-404"}
    assert results["then"] is None
    results = await run(app, workflow, id=1)
    assert results["help"] is None
    assert results["then"]["result"] == "x"


async def test_going_on_with_other_data(app: Nexus) -> None:
    said = {"action": "log_and_continue", "fallback_data": {"created": False, "for": "{{id}}"}}
    workflow = nodes(
        ("ProductReadNode", "find", {"id": "{{id}}", "on_error": said}),
        ("PythonCodeNode", "after", code("result = get_input_data('find')['created']")),
    )
    workflow.add_connection("find", "created", "after", "input")
    results = await run(app, workflow, id=9)
    assert results["find"] == {"created": False, "for": 9}
    assert results["after"]["result"] is False
    strict = nodes(("ProductReadNode", "find", {"id": "{{id}}", "on_error": "fail"}))
    with pytest.raises(NotFound):
        await run(app, strict, id=9)


@pytest.mark.parametrize("mode", ["collect", "concat", "merge"])
async def test_merging(plain: Nexus, mode: str) -> None:
    value = "[1, 2]" if mode == "concat" else "{'x': 1}"
    workflow = nodes(
        ("PythonCodeNode", "a", code(f"data = {value}")),
        ("PythonCodeNode", "b", code(f"data = {value}")),
        ("MergeNode", "m", {"mode": mode}),
    )
    workflow.add_connection("a", "data", "m", "one")
    workflow.add_connection("b", "data", "m", "two")
    expected = {"collect": {"one": {"x": 1}, "two": {"x": 1}}, "concat": [1, 2, 1, 2], "merge": {"x": 1}}
    assert (await run(plain, workflow))["m"]["result"] == expected[mode]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a > 1 and not b", True),
        ("a in [1, 2, 3]", True),
        ("user is not None and user.name == 'x'", True),
        ("user['tags'][0] == 't' if a else false", True),
        ("len(user.tags) * 2 == 2 and upper('x') == 'X'", True),
        ("1 < a <= 2", True),
        ("-a + 3 // 2 == -1", True),
        ("b or missing", None),
    ],
)
def test_conditions(text: str, value: object) -> None:
    variables = {"a": 2, "b": 0, "user": {"name": "x", "tags": ["t"]}}
    if value is None:
        with pytest.raises(MissingValue, match="missing"):
            Expression(text).evaluate(variables, {})
    else:
        assert Expression(text).evaluate(variables, {}) is value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "().__class__",
        "user.__class__",
        "open('/etc/passwd')",
        "[x for x in a]",
        "lambda: 1",
        "a := 1",
        "a ** 9999999",
        "'x' % a if",
        "",
        "a; b",
        "f'{a}'",
        "print(a)",
        "(" * 300 + ")" * 300,
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(RegistrationError):
        Expression(text)


def test_a_template_in_a_condition_is_a_variable() -> None:
    condition = Expression("{{name}} == 'x'")
    assert condition.evaluate({}, {"name": "x"}) is True
    assert condition.evaluate({}, {"name": "' or 1 == 1 or '"}) is False


def test_a_condition_that_cannot_be_evaluated_says_so() -> None:
    for text in ("a < b", "a / 0", "'x' * 999999999", "b.c"):
        with pytest.raises((NodeFailed, MissingValue)):
            Expression(text).evaluate({"a": 1, "b": "x"}, {})


async def test_a_loop_runs_each_in_order(app: Nexus) -> None:
    workflow = nodes(
        (
            "LoopNode",
            "each",
            {
                "items": "{{names}}",
                "node": "ProductCreateNode",
                "parameters": {"name": "{{item.name}}", "stock": "{{index}}", "note": "{{why}}"},
            },
        ),
        ("PythonCodeNode", "sum", code("result = sum(r['stock'] for r in made)")),
    )
    workflow.add_connection("each", "results", "sum", "made")
    results = await run(app, workflow, names=[{"name": "a"}, {"name": "b"}, {"name": "c"}], why="test")
    assert [made["name"] for made in results["each"]["results"]] == ["a", "b", "c"]
    assert results["each"]["results"][2]["note"] == "test"
    assert results["sum"]["result"] == 3


async def test_a_loop_that_fails_keeps_nothing(app: Nexus) -> None:
    loop = {
        "items": "{{ids}}",
        "node": "ProductCreateNode",
        "parameters": {"id": "{{item}}", "name": "x"},
        "concurrency": 3,
    }
    with pytest.raises(Exception, match="id") as caught:
        await run(app, nodes(("MapNode", "each", loop)), ids=[5, 6, 7, 5])
    assert getattr(caught.value, "node", "").startswith("each[")
    counted = await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
    assert counted.count == 0


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        ("SwitchNode", {}, "either 'condition' or 'value'"),
        ("SwitchNode", {"value": "a"}, "needs 'cases'"),
        ("MergeNode", {"mode": "frist"}, "Did you mean 'first'"),
        ("LoopNode", {"items": [1]}, "needs 'node'"),
        (
            "LoopNode",
            {"items": [1], "node": "ProductCreateNode", "parameters": {"nmae": 1}},
            "Did you mean 'name'",
        ),
        (
            "LoopNode",
            {"node": "ProductCreateNode", "parameters": {"name": "x"}},
            "needs the parameter 'items'",
        ),
        ("LoopNode", {"items": [], "node": "ProductCountNode", "concurrency": 0}, "from 1 to"),
        ("DelayNode", {"secnds": 1}, "Did you mean 'seconds'"),
        ("ProductReadNode", {"id": 1, "on_error": "ignore"}, "no action 'ignore'"),
        ("ProductReadNode", {"id": 1, "on_error": {"action": "goto"}}, "names a node"),
        ("ProductReadNode", {"id": 1, "on_error": {"goto": "nowhere"}}, "no node 'nowhere' to go to"),
        ("ProductReadNode", {"id": 1, "retry": {"max_atempts": 3}}, "Did you mean 'max_attempts'"),
        ("ProductReadNode", {"id": 1, "retry": {"retry_on": ["timeouts"]}}, "Did you mean 'timeout'"),
        ("ProductReadNode", {"id": 1, "timeout": -1}, "positive number"),
        ("ProductReadNode", {"id": 1, "monitoring": {"track_memory_usage": True}}, "cannot be honoured"),
        ("ProductReadNode", {"id": 1, "model_name": "Other"}, "about the model 'Product'"),
        ("ReadNode", {"id": 1}, "needs the parameter 'model'"),
        ("PythonCodeNode", {"code": "result = 1", "timeout": 1}, "cannot be stopped"),
        ("PythonCodeNode", {"code": "x = (1,\ny = 2"}, "not Python"),
        ("PythonCodeNode", {}, "must be a text"),
        ("PythonCodeNode", {"code": "await x()"}, "AsyncPythonCodeNode may await"),
    ],
)
def test_what_cannot_be_is_refused_when_declared(db: DataFlow, kind: str, config: Any, named: str) -> None:
    app = Nexus(db)
    with pytest.raises(RegistrationError, match=named):
        app.register("x", nodes((kind, "n", config)))
