"""Models: what a class may declare, and what it is told when it may not."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from dataflow import DataFlow
from dataflow.fields import Kind
from dataflow.naming import plural, snake_case
from nexus import Nexus
from nexus.errors import DatabaseUrlError, RegistrationError


@pytest.fixture
def db() -> DataFlow:
    return DataFlow(":memory:")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("Product", "products"),
        ("OrderItem", "order_items"),
        ("Category", "categories"),
        ("HTTPRequest", "http_requests"),
        ("Box", "boxes"),
        ("Day", "days"),
        ("Person", "people"),
        ("News", "news"),
        ("SalesPerson", "sales_people"),
        ("Address", "addresses"),
        ("Match", "matches"),
    ],
)
def test_tables_are_named_by_the_plural(name: str, table: str) -> None:
    assert plural(snake_case(name)) == table


def test_a_class_is_read_once_into_plain_values(db: DataFlow) -> None:
    @db.model
    class Everything:
        """All there is."""

        text: str
        count: int = 3
        ratio: float | None = None
        done: bool = False
        when: datetime.datetime | None
        day: datetime.date | None = None
        data: dict[str, Any] = {}
        tags: list[str] = ["new"]

    model = db.models["Everything"]
    assert model.table_name == "everythings"
    assert list(model.fields) == [
        "id", "text", "count", "ratio", "done", "when", "day", "data", "tags", "created_at", "updated_at",
    ]  # fmt: skip
    assert [f.name for f in model.fields.values() if f.nullable] == ["ratio", "when", "day"]
    assert [f.name for f in model.fields.values() if f.required] == ["text"]
    assert model.fields["data"].kind is Kind.JSON
    assert model.description == "All there is."


def test_calling_a_model_says_what_to_do_instead(db: DataFlow) -> None:
    @db.model
    class Product:
        name: str

    with pytest.raises(TypeError, match=r"products\.create.*ProductCreateNode"):
        Product()
    with pytest.raises(TypeError, match="a schema, not an object"):
        Product(name="x")  # type: ignore[call-arg]


def _declare(**members: Any) -> type:
    return type("Thing", (), {"__module__": __name__, **members})


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"__annotations__": {"x": complex}}, "'complex' of the field 'x'"),
        ({"__annotations__": {"x": "Missing"}}, "Missing"),
        ({"__annotations__": {"_x": int}}, "'_x'"),
        ({"__annotations__": {"ä": int}}, "'ä'"),
        ({"__annotations__": {'x"; DROP TABLE y': int}}, "DROP TABLE"),
        ({"__annotations__": {"x" * 64: int}}, "xxx"),
        ({"__annotations__": {"x": int, "X": int}}, "differ only in case"),
        ({"__annotations__": {"x": int}, "x": "one"}, "the default of 'x'"),
        ({"__annotations__": {"fields": int}}, "'fields'"),
        ({"__annotations__": {"id": float}}, "'float'"),
        ({"__tablename__": 'a"b'}, "cannot be the name of a table"),
        ({"__tablename__": "dataflow_changes"}, "platform's own"),
        ({"__tablename__": "x" * 64}, "cannot be the name of a table"),
        ({"__dataflow__": {"audit_log": True}}, "'audit_log' is not available yet"),
        ({"__dataflow__": {"soft_delete": 1}}, "'soft_delete' is True or False"),
        ({"__dataflow__": {"versioned": True}, "__annotations__": {"version": int}}, "an option makes it"),
        ({"__dataflow__": {"ruote": "x"}}, "Did you mean 'route'"),
        ({"__dataflow__": {"route": "a/b"}}, "'route' must be a name"),
        ({"__dataflow__": {"route": "workflows"}}, "taken by the platform"),
        ({"__indexes__": [{"fields": ["x"]}]}, "no field 'x' for an index"),
    ],
)
def test_what_cannot_be_declared_is_refused(db: DataFlow, members: dict[str, Any], named: str) -> None:
    with pytest.raises(RegistrationError, match=named):
        db.model(_declare(**members))
    assert db.models == {}


def test_two_models_cannot_share_a_name_a_table_or_a_route(db: DataFlow) -> None:
    db.model(_declare())
    with pytest.raises(RegistrationError, match="'Thing' already"):
        db.model(_declare(__tablename__="others"))
    with pytest.raises(RegistrationError, match="same table or route"):
        db.model(type("Other", (), {"__tablename__": "things"}))


def test_a_model_that_an_application_refuses_is_not_half_there(db: DataFlow) -> None:
    app, other = Nexus(db), Nexus(db)

    @other.operation
    async def things_list(call: Any) -> None: ...

    with pytest.raises(RegistrationError):
        db.model(_declare())
    assert "things.create" not in app.registry
    assert db.models == {}


def test_one_class_can_be_a_model_of_several_databases(db: DataFlow) -> None:
    other = DataFlow(":memory:")
    other.model(db.model(_declare(__annotations__={"x": int})))
    assert db.models["Thing"] is not other.models["Thing"]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://root:hunter2@127.0.0.1", "names no database"),
        ("postgresql://root:hunter2@127.0.0.1/x?sslmod=require", "Did you mean 'sslmode'"),
        ("postgresql://root:hunter2@127.0.0.1/x?sslmode=maybe", "no sslmode 'maybe'"),
        ("postgresql://root:hunter2@127.0.0.1:port/x", "cannot be read"),
        ("mysql://root:hunter2@127.0.0.1/x?charset=latin1", "utf8mb4"),
        ("mysql://root:hunter2@127.0.0.1/x?pool_size=none", "positive number"),
        ("oracle://scott:hunter2@127.0.0.1/x", "not the URL of a database"),
        ("shop.db", "not the URL of a database"),
        ("sqlite:/shop.db", "not the URL of a database"),
        ("sqlite://shop.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:///shop.db?mode=ro", "no options"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, named: str) -> None:
    with pytest.raises(DatabaseUrlError, match=named) as caught:
        DataFlow(url)
    assert "hunter2" not in str(caught.value)


def test_without_a_url_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/env.db")
    assert DataFlow().database.dialect.location == f"{tmp_path}/env.db"
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.chdir(tmp_path)
    assert DataFlow().database.dialect.location == f"{tmp_path}/data.db"
