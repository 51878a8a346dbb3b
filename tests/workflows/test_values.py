"""Templates, and values of another type than the one wanted."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import Nexus
from nexus.errors import RegistrationError
from nexus_workflows.conversion import converter
from nexus_workflows.errors import MissingValue
from nexus_workflows.values import fill, parse
from tests.conftest import Invoke
from tests.workflows.support import nodes, run

DAY = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
KEY = uuid.UUID(int=5)


@pytest.mark.parametrize(
    ("wanted", "value", "made"),
    [
        (str, DAY, "2026-01-31T12:00:00+00:00"),
        (str, 5, "5"),
        (str, KEY, str(KEY)),
        (str, decimal.Decimal("1.50"), "1.50"),
        (str, True, True),
        (str | None, None, None),
        (int, "12", 12),
        (int, "012", "012"),
        (int, "1e3", "1e3"),
        (int, 3.0, 3),
        (int, 3.5, 3.5),
        (int, float("nan"), None),
        (int, decimal.Decimal("7.00"), 7),
        (float, "1.5", 1.5),
        (float, "x", "x"),
        (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
        (decimal.Decimal, "0.30", decimal.Decimal("0.30")),
        (datetime.date, datetime.datetime(2026, 1, 31), datetime.date(2026, 1, 31)),
        (datetime.date, DAY, DAY),
        (int | str, 5, 5),
        (list[str], 5, 5),
    ],
)
def test_conversion_loses_nothing(wanted: Any, value: object, made: object) -> None:
    convert = converter(wanted)
    found = value if convert is None else convert(value)
    if made is None and value is not None:
        assert found is value
    else:
        assert found == made
        assert type(found) is type(made)


@given(
    st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.decimals(), st.none(), st.datetimes())
)
def test_conversion_never_fails_and_numbers_stay_equal(value: object) -> None:
    for wanted in (int, float, decimal.Decimal, str, datetime.date, bool):
        convert = converter(wanted)
        assert convert is not None
        made = convert(value)
        if isinstance(made, (int, float)) and isinstance(value, (int, float)) and value == value:
            assert made == value


def test_now_and_later() -> None:
    before = datetime.datetime.now(datetime.UTC)
    for text, later in (
        ("{{now}}", 0),
        ("{{ now + 1h }}", 3600),
        ("{{now-2m}}", -120),
        ("{{now + 30d}}", 2592000),
    ):
        found = fill(parse(text), {}, {})
        assert 0 <= (found - before).total_seconds() - later < 5
    assert fill(parse("at {{now}}"), {}, {}).startswith("at 20")
    for wrong in ("{{now + 1y}}", "{{now + h}}", "{{now 1h}}", "{{now + 999999999w}}"):
        with pytest.raises(RegistrationError):
            parse(wrong)


def test_the_environment_is_read_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "eu")
    with pytest.raises(RegistrationError, match="may not be read"):
        parse("{{env.REGION}}")
    monkeypatch.setenv("NEXUS_TEMPLATE_ENV", "OTHER, REGION")
    assert fill(parse("Bearer {{env.REGION}}"), {}, {}) == "Bearer eu"
    with pytest.raises(MissingValue, match="not set"):
        fill(parse("{{env.OTHER}}"), {}, {})


async def test_values_take_the_type_of_their_field(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Token:
        user_id: str
        expires_at: str
        at: datetime.datetime | None = None

    @db.model
    class Person:
        name: str

    workflow = nodes(
        ("PersonCreateNode", "person", {"name": "x"}),
        (
            "TokenBulkCreateNode",
            "tokens",
            {"data": [{"user_id": "{{person.id}}", "expires_at": "{{now + 1h}}", "at": "{{now}}"}]},
        ),
        ("TokenCreateNode", "one", {"expires_at": "{{now}}"}),
        ("TokenListNode", "list", {"filter": {"user_id": "{{person.id}}"}}),
    )
    workflow.add_connection("person", "id", "one", "user_id")
    workflow.add_connection("one", "id", "list", "input")
    workflow.add_connection("tokens", "success_count", "list", "input")
    app = Nexus(db)
    async with app.running():
        results = await run(app, workflow)
    assert results["one"]["user_id"] == "1"
    assert results["list"]["count"] == 2
    assert datetime.datetime.fromisoformat(results["one"]["expires_at"]).tzinfo is not None


async def test_what_a_node_was_given_can_be_used(app: Nexus) -> None:
    workflow = nodes(
        ("PythonCodeNode", "prepare", {"code": "output_data = {'n': len(input_data['name'])}"}),
        ("ProductCreateNode", "make", {"name": "{{prepare.input_data.name}}", "stock": "{{prepare.n}}"}),
        ("ProductReadNode", "read", {"id": "{{make.id}}"}),
        ("PythonCodeNode", "last", {"code": "result = asked", "asked": "{{read.input_data.id}}"}),
    )
    results = await run(app, workflow, name="Lamp")
    assert (results["make"]["name"], results["make"]["stock"]) == ("Lamp", 4)
    assert results["last"]["result"] == 1


@pytest.mark.parametrize(
    ("source", "output", "target", "named"),
    [
        ("find", "recrods", "make", "Did you mean 'records'"),
        ("find", "records", "name", "another type"),
        ("make", "on_sale", "name", "another type"),
        ("make", "tags", "stock", "another type"),
    ],
)
def test_connections_are_checked_when_declared(
    db: DataFlow, source: str, output: str, target: str, named: str
) -> None:
    workflow = nodes(
        ("ProductListNode", "find", {}),
        ("ProductCreateNode", "make", {"name": "x"}),
        ("ProductUpdateNode", "last", {"id": 1, "note": "x"}),
    )
    workflow.add_connection(source, output, "last", "name" if target == "make" else target)
    with pytest.raises(RegistrationError, match=named):
        Nexus(db).register("x", workflow)


def test_templates_are_checked_when_declared(db: DataFlow) -> None:
    workflow = nodes(
        ("ProductListNode", "find", {}), ("ProductReadNode", "read", {"id": "{{find.recrods.0.id}}"})
    )
    with pytest.raises(RegistrationError, match=r"'find' has no output 'recrods'. Did you mean 'records'"):
        Nexus(db).register("x", workflow)
    for config, named in (
        ({"name": 5}, "'name': expected str"),
        ({"name": "x", "stock": "many"}, "expected int"),
    ):
        with pytest.raises(RegistrationError, match=named):
            Nexus(db).register("x", nodes(("ProductCreateNode", "make", config)))


async def test_an_output_at_run_says_what_there_was(app: Nexus, invoke: Invoke) -> None:
    workflow = nodes(
        ("PythonCodeNode", "make", {"code": "result = {'total': 1}"}),
        ("PythonCodeNode", "use", {"code": "result = 1", "seen": "{{make.totl}}"}),
    )
    with pytest.raises(MissingValue, match=r"make.totl.*Did you mean 'total'"):
        await run(app, workflow)


async def test_declared_inputs_and_output(app: Nexus, invoke: Invoke) -> None:
    workflow = nodes(("ProductCreateNode", "make", {"name": "{{name}}", "stock": "{{stock}}"}))
    built = workflow.build(
        inputs={"name": str, "stock": (int, 3)},
        output={"id": "{{make.id}}", "said": "made {{name}}"},
        output_type=dict[str, Any],
    )
    app.register("make", built)
    made = await invoke("make", name="Lamp")
    assert made.output == {"id": 1, "said": "made Lamp"}
    assert not hasattr(made, "results")
    types = {name: field.type for name, field in app.registry["make"].arguments.fields.items()}
    assert types == {"name": str, "stock": int}
    with pytest.raises(RegistrationError, match="asks for 'mkae'"):
        app.register("wrong", workflow.build(output="{{mkae.id}}"))


def test_what_is_wrong_has_a_code(db: DataFlow) -> None:
    for config, code in (({}, "DF-101"), ({"name": 5}, "DF-102"), ({"name": "x", "prise": 1}, "DF-106")):
        with pytest.raises(RegistrationError) as caught:
            Nexus(db).register("x", nodes(("ProductCreateNode", "make", config)))
        assert caught.value.code == code
    with pytest.raises(RegistrationError) as caught:
        nodes(("ProductCreateNode", "make", {})).add_connection("make", "id", "nowhere", "id")
    assert caught.value.code == "DF-201"
