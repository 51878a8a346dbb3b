"""Update operators: what the database makes of them is what a few lines of Python say."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.lists import add, pull, push
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, InvalidArguments
from tests.conftest import Invoke

TEXTS = st.text(alphabet="aAbBéß%_'\"\\ 0😀", max_size=3)
INTS = st.integers(-(2**31), 2**31)
FLOATS = st.sampled_from([0.0, 0.1, 0.30000000000000004, -1.5, 1e100, 1e-150, 3.0])  # no product underflows
DAYS = st.dates()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.1, 2**53 + 1]) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
RECORDS = st.fixed_dictionaries(
    {
        "name": st.none() | TEXTS,
        "amount": st.none() | INTS,
        "weight": st.none() | FLOATS,
        "day": st.none() | DAYS,
        "things": st.none() | st.lists(JSON, max_size=4),
    }
)
COMPARED: dict[str, st.SearchStrategy[Any]] = {"name": TEXTS, "amount": INTS, "weight": FLOATS, "day": DAYS}
NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "amount": st.integers(-1000, 1000),
    "weight": FLOATS,
}
ELEMENTS = JSON.filter(lambda value: not isinstance(value, dict))


def changes() -> st.SearchStrategy[tuple[str, str, Any]]:
    def pairs(names: dict[str, st.SearchStrategy[Any]], operators: list[str]) -> list[Any]:
        return [st.tuples(st.just(n), st.sampled_from(operators), v) for n, v in names.items()]

    return st.one_of(
        *pairs(COMPARED, ["$min", "$max", "$set"]),
        *pairs(NUMBERS, ["$inc", "$mul", "$multiply"]),
        st.tuples(st.sampled_from([*COMPARED, "things"]), st.just("$unset"), st.just("")),
        st.tuples(st.just("things"), st.sampled_from(["$push", "$addToSet", "$pull"]), ELEMENTS),
        st.tuples(
            st.just("things"),
            st.sampled_from(["$push", "$addToSet"]),
            st.lists(JSON, max_size=3).map(lambda items: {"$each": items}),
        ),
    )


def expected(stored: Any, op: str, value: Any) -> Any:
    """What MongoDB documents, where null is absent."""
    each = value["$each"] if isinstance(value, dict) else [value]
    match op:
        case "$set":
            return value
        case "$unset":
            return None
        case "$inc":
            return (stored or 0) + value
        case "$mul" | "$multiply":
            return (stored or 0) * value
        case "$min":
            return value if stored is None else min(stored, value)
        case "$max":
            return value if stored is None else max(stored, value)
        case "$push":
            return push(stored, each)
        case "$addToSet":
            return add(stored, each)
        case _:
            return pull(stored, each)


def test_every_operator_does_what_it_says_everywhere(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Item:
        name: str | None
        amount: int | None
        weight: float | None
        day: datetime.date | None
        things: list[Any] | None

    app = Nexus(db)

    async def run(name: str, /, **arguments: Any) -> Any:
        return await app.runtime.invoke(name, arguments, LOCAL, channel="test")

    with asyncio.Runner() as runner:

        @settings(max_examples=120)
        @given(record=RECORDS, change=changes(), keyed=st.booleans())
        def check(record: dict[str, Any], change: tuple[str, str, Any], keyed: bool) -> None:
            field, op, value = change
            made = runner.run(run("items.create", **record))
            document = {field: {op: value}} if keyed else {op: {field: value}}
            changed = runner.run(run("items.update", id=made.id, fields=document))
            want = expected(record[field], op, value)
            assert getattr(changed, field) == want
            for other in set(record) - {field}:
                assert getattr(changed, other) == record[other]

        check()
        runner.run(db.close())


async def test_operators_on_lists_keep_what_they_do_not_touch(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp", tags=["a", "B", "a"])
    pushed = await invoke("products.update", id=1, fields={"$push": {"tags": {"$each": ["a", "c"]}}})
    assert pushed.tags == ["a", "B", "a", "a", "c"]
    added = await invoke("products.update", id=1, fields={"tags": {"$addToSet": {"$each": ["b", "c", "b"]}}})
    assert added.tags == ["a", "B", "a", "a", "c", "b"]
    assert (await invoke("products.update", id=1, fields={"$pull": {"tags": "a"}})).tags == ["B", "c", "b"]


async def test_increments_at_the_same_time_are_all_kept(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp")
    document = {"$inc": {"stock": 1}, "$push": {"tags": "x"}}
    await asyncio.gather(*(invoke("products.update", id=1, fields=document) for _ in range(30)))
    lamp = await invoke("products.get", id=1)
    assert (lamp.stock, lamp.tags) == (30, ["x"] * 30)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"$unset": {"price": ""}}, "DF-102", "'price' cannot be null"),
        ({"$push": {"name": "x"}}, "DF-102", "'name' is not a list"),
        ({"$push": {"tags": 3}}, "DF-102", "'tags'"),
        ({"$push": {"tags": {"$each": ["a"], "$slice": 1}}}, "DF-106", "no more"),
        ({"tags": {"$pull": {"$in": ["a"]}}}, "DF-106", "not available yet"),
        ({"tags": {"$min": ["a"]}}, "DF-102", "'tags'"),
        ({"price": {"$min": None}}, "DF-102", "a value to compare"),
        ({"$incr": {"stock": 1}}, "DF-106", r"Did you mean '\$inc'"),
        ({"$rename": {"stock": "x"}}, "DF-106", "not available yet"),
        ({"$inc": {"stock": 0.5}}, "DF-102", "'stock'"),
        ({"$inc": {"stock": 1}, "stock": 3}, "DF-102", "assigned twice"),
        ({"$inc": 3}, "DF-106", "no field ''"),
    ],
)
async def test_what_no_operator_can_mean_is_refused(
    invoke: Invoke, fields: dict[str, Any], code: str, words: str
) -> None:
    await invoke("products.create", name="Lamp", tags=["a"])
    with pytest.raises(InvalidArguments, match=words) as refused:
        await invoke("products.update", id=1, fields=fields)
    assert refused.value.code == code


async def test_a_number_that_becomes_too_large_changes_nothing(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp", stock=2**62)
    await invoke("products.update", id=1, price=1e300)
    for document in ({"$mul": {"stock": 2}}, {"stock": {"$inc": 2**62}}, {"$mul": {"price": -1e300}}):
        with pytest.raises(Conflict, match="too large"):
            await invoke("products.update", id=1, fields=document)
        with pytest.raises(Conflict, match="too large"):
            await invoke("products.bulk_update", filter={"id": 1}, update=document)
    found = await invoke("products.get", id=1)
    assert (found.stock, found.price) == (2**62, 1e300)
