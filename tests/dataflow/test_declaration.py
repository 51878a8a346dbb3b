"""Declarations: defaults, validation, relations, and what is dropped with a warning."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import uuid
from decimal import Decimal
from typing import Any, Literal

import msgspec
import pytest

from dataflow import DataFlow
from dataflow.keys import uuid7
from dataflow.validation import ModelValidationError
from dataflow.warnings import ModelWarning
from nexus import LOCAL, Nexus
from nexus.errors import NexusError, RegistrationError
from nexus.schema import json_schema


@pytest.fixture
def db() -> DataFlow:
    return DataFlow(":memory:")


def make(name: str, annotations: dict[str, Any] | None = None, /, **members: Any) -> type:
    return type(name, (), {"__module__": __name__, "__annotations__": annotations or {}, **members})


async def test_defaults_are_made_for_each_record(db: DataFlow) -> None:
    numbers = itertools.count(1)

    @db.model
    class Thing:
        id: str = lambda: uuid.uuid4().hex
        number: int = lambda: next(numbers)
        when: datetime.datetime = datetime.datetime.utcnow
        tags: list[str] = ["new"]
        parts: dict[str, list[int]] = {"a": [1]}
        plain: list = []
        token: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)
        price: Decimal = msgspec.field(default=Decimal("1.50"))
        size: Literal["s", "m"] = "m"
        note: str = None

    app = Nexus(db)
    async with app.running():
        one, two = [await app.runtime.invoke("things.create", {}, LOCAL, channel="test") for _ in range(2)]
    assert (one.number, two.number) == (1, 2)
    assert one.id != two.id
    assert one.token != two.token
    assert (one.tags, one.parts, one.plain) == (["new"], {"a": [1]}, [])
    assert (one.price, one.size, one.note) == (Decimal("1.5"), "m", None)
    assert one.when.tzinfo is datetime.UTC
    schema = json_schema(app.registry["things.create"].input)
    assert schema.get("required", []) == []
    assert schema["properties"]["size"]["default"] == "m"


async def test_a_default_that_fails_is_ours_and_named(db: DataFlow) -> None:
    db.model(make("Bad", {"x": int}, x=lambda: "one"))
    db.model(make("Worse", {"x": int}, x=lambda: 1 // 0))
    app = Nexus(db)
    async with app.running():
        for name, named in (("bads", "Expected `int`"), ("worses", "ZeroDivisionError")):
            with pytest.raises(NexusError, match=f"default of 'x' cannot be made.*{named}"):
                await app.runtime.invoke(f"{name}.create", {}, LOCAL, channel="test")


def test_uuid7_is_in_order_and_of_its_version() -> None:
    made = [uuid7() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {(key.version, key.variant) for key in made} == {(7, uuid.RFC_4122)}
    age = datetime.datetime.now(datetime.UTC).timestamp() - (made[0].int >> 80) / 1000
    assert -0.1 < age < 60


FINDINGS = [
    ("VAL-003", make("Thing", {"pk": str}), "'pk' is a field like others"),
    ("VAL-003", make("Thing", {"thing_id": str}), "'thing_id'"),
    ("VAL-004", make("Thing", {"id": int, "created_at": datetime.datetime}), "'created_at' is filled"),
    ("VAL-006", make("Thing", {"id": int, "type": str}), "'type'"),
    ("VAL-007", make("Thing", {"id": int, "firstName": str}), "As in 'first_name'"),
    ("VAL-007", make("my_thing", {"id": int}), "PascalCase"),
    ("VAL-008", make("Thing", {"id": int, "thing_id": int}), "Thing → Thing"),
]


@pytest.mark.parametrize(
    ("code", "cls", "named"),
    FINDINGS,
    ids=[f"{code}-{number}" for number, (code, _, _) in enumerate(FINDINGS)],
)
def test_findings_are_warned_of_refused_or_skipped(code: str, cls: type, named: str) -> None:
    db = DataFlow(":memory:")
    with pytest.warns(ModelWarning, match=f"{code}: .*{named}") as caught:
        db.model(cls)
    assert caught[-1].filename == __file__
    assert len(db.models) == 1
    strict = DataFlow(":memory:")
    with pytest.raises(ModelValidationError, match=rf"\[{code}\]") as refused:
        strict.model(strict=True)(cls)
    assert code in {finding.code for finding in refused.value.findings}
    assert strict.models == {}
    DataFlow(":memory:").model(skip_validation=True)(cls)


def test_strict_mode_wants_an_id_and_known_targets(db: DataFlow) -> None:
    with pytest.raises(ModelValidationError, match=r"\[VAL-002\].*Add a field 'id'"):
        db.model(strict=True)(make("Order", {"total": float}))
    with pytest.raises(ModelValidationError, match=r"\[VAL-009\].*'Nobody'"):
        db.model(strict=True)(make("Order", {"id": int}, __relations__={"buyer": "Nobody"}))
    db.model(strict=True)(make("Order", {"id": int, "total": float}))
    with pytest.raises(NexusError, match="strictly, or not at all"):
        db.model(strict=True, skip_validation=True)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"__relations__": ["Customer"]}, "VAL-010.*must be a dict"),
        ({"__relations__": {"x": {"modle": "Customer"}}}, "VAL-010.*Did you mean 'model'"),
        ({"__relations__": {"x": {"model": 3}}}, "VAL-010.*name of a model"),
        ({"__relations__": {"x": {"model": "Customer", "many": "yes"}}}, "VAL-010.*needs"),
        ({"__relations__": {"id": "Customer"}}, "VAL-010.*both a field and a relation"),
        ({"__indexes__": [{"fields": ["nmae"]}]}, "Did you mean 'name'"),
        ({"__indexes__": [{"fields": ["tags"]}]}, "json field 'tags' cannot be in an index"),
        ({"__indexes__": [{"fields": []}]}, "at least one field"),
        ({"__indexes__": [{"fields": ["name"], "type": "gin"}]}, "no part 'type'"),
        ({"__indexes__": [{"fields": ["name"], "unique": 1}]}, "True or False"),
        ({"__indexes__": [{"name": 'x"; DROP TABLE y', "fields": ["name"]}]}, "name of an index"),
        ({"__indexes__": [["name"], ["name"]]}, "two indexes are named"),
        ({"__indexes__": "name"}, "must be a list"),
        ({"__dataflow__": {"foreign_keys": "yes"}}, "True or False"),
        ({"name": b"x"}, "default of 'name'"),
        ({"__tablename__": "DataFlow_changes"}, "platform's own"),
    ],
)
def test_what_cannot_be_is_refused(db: DataFlow, members: dict[str, Any], named: str) -> None:
    with pytest.raises(RegistrationError, match=named):
        db.model(skip_validation=True)(make("Thing", {"name": str, "tags": list[str]}, **members))


NO_COLUMN = [
    list[complex],
    dict[str, slice],
    set[str],
    tuple[int, int],
    int | str,
    Literal["a", 1],
    Literal[True],
]


@pytest.mark.parametrize("annotation", NO_COLUMN, ids=str)
def test_types_that_no_column_has_are_refused(db: DataFlow, annotation: Any) -> None:
    with pytest.raises(RegistrationError, match="'x'"):
        db.model(make("Thing", {"x": annotation}))


def test_relations_follow_from_names_and_declarations(db: DataFlow) -> None:
    db.model(make("Order", {"customer_id": int, "seller_id": int, "item_id": str, "note_id": int}))
    assert dict(db.models["Order"].relations) == {}
    for name in ("Customer", "Item", "User"):
        db.model(make(name))
    assert list(db.models["Order"].relations) == ["customer"]  # an Item's key is of another type
    forward, reverse = db.models["Order"].relations["customer"], db.models["Customer"].relations["orders"]
    assert (forward.field, forward.target.name, forward.key, forward.many) == (
        "customer_id",
        "Customer",
        "id",
        False,
    )
    assert (reverse.field, reverse.target.name, reverse.key, reverse.many) == (
        "id",
        "Order",
        "customer_id",
        True,
    )
    db.model(
        make(
            "Letter",
            {"user_id": int, "to_id": int, "mail_code": str, "letter_id": int | None},
            __relations__={
                "sender": {"model": "User", "field": "user_id", "reverse": "sent"},
                "to": "User",
                "post": {"model": "Mail", "field": "mail_code", "key": "code"},
                "answers": {"model": "Letter", "field": "letter_id", "many": True},
            },
        )
    )
    with pytest.raises(RegistrationError, match=r"VAL-009.*'Mail'"):
        _ = db.models["Letter"].relations
    db.model(make("Mail", {"code": str}))
    found = db.models["Letter"].relations
    assert sorted(found) == ["answers", "letter", "letters", "post", "sender", "to"]
    assert (found["post"].field, found["post"].key) == ("mail_code", "code")
    assert sorted(db.models["User"].relations) == ["sent", "to_letters"]


async def test_a_model_that_was_refused_leaves_no_relation(db: DataFlow) -> None:
    """Relations are resolved once for all models, and anew when the last one is another."""

    class Product:
        name: str

    class Vendor:
        name: str
        product_id: int | None = None
        __indexes__ = [{"name": "of_product", "fields": ["product_id"]}]

    class Refused:
        vendor_id: int | None = None
        __indexes__ = [{"name": "of_product", "fields": ["vendor_id"]}]

    db.model(Product)
    db.model(Vendor)
    assert list(db.models["Product"].relations) == ["vendors"]
    with pytest.raises(RegistrationError, match="of_product"):
        db.model(Refused)
    assert list(db.models["Vendor"].relations) == ["product"]

    class Stock:
        vendor_id: int | None = None

    db.model(Stock)
    assert list(db.models["Vendor"].relations) == ["product", "stocks"]
    assert db.models["Stock"].related is db.models["Product"].related


def test_instances_do_not_see_each_others_models(db: DataFlow) -> None:
    other = DataFlow(":memory:")
    order = make("Order", {"customer_id": int})
    customer = make("Customer")
    db.model(order)
    other.model(order)
    other.model(customer)
    assert dict(db.models["Order"].relations) == {}
    assert list(other.models["Order"].relations) == ["customer"]
    assert other.models["Order"].relations["customer"].target is other.models["Customer"]
