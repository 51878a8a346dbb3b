"""One grammar, two backends: for any records and any filter, SQL and the predicate mean the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import InvalidFilter, NexusError
from tests.conftest import Invoke
from tests.support.filters import (
    ENGINES,
    FLOATS,
    INTS,
    MOMENTS,
    OPTIONS,
    PATTERNS,
    TEXTS,
    Things,
    combined,
    opened,
    text_tests,
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "title": TEXTS,
    "amount": INTS,
    "weight": FLOATS,
    "flag": st.booleans(),
    "moment": MOMENTS,
    "day": st.dates(),
}
NUMBERS = {"amount": st.one_of(INTS, st.sampled_from([0.5, -1.5, 2.0])), "weight": st.one_of(FLOATS, INTS)}

RECORDS = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})


def operators_on(name: str) -> st.SearchStrategy[Any]:
    value = NUMBERS.get(name, VALUES[name])
    pair = st.lists(value, min_size=2, max_size=2)
    operators: dict[str, st.SearchStrategy[Any]] = {
        "$eq": st.none() | value,
        "$ne": st.none() | value,
        "$gt": st.none() | value,
        "$gte": st.none() | value,
        "$lt": value,
        "$lte": st.none() | value,
        "$in": st.lists(st.none() | value, max_size=4),
        "$nin": st.lists(st.none() | value, max_size=4),
        "$exists": st.booleans(),
        "$null": st.booleans(),
        "$between": pair,
    }
    if name == "title":
        operators |= text_tests()
    single = st.one_of(*(operand.map(lambda v, op=op: {op: v}) for op, operand in operators.items()))
    combined = st.tuples(single, single).map(lambda two: two[0] | two[1])
    negated = single.map(lambda test: {"$not": test})
    return st.one_of(st.none() | value, single, combined, negated)


LEAVES = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: operators_on(name).map(lambda test: {name: test})
)
FILTERS = combined(LEAVES)


@pytest.fixture(scope="module", params=ENGINES)
def things(request: pytest.FixtureRequest) -> Iterator[Things]:
    yield from opened(request.param)


@pytest.fixture(scope="module")
def followed_things() -> Iterator[Things]:
    yield from opened("memory")


@given(records=st.lists(RECORDS, max_size=8), filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_sql_and_predicate_mean_the_same(things: Things, records: list[Any], filters: list[Any]) -> None:
    things.run(things.compare(records, filters))


@given(
    texts=st.lists(TEXTS, max_size=8),
    pattern=PATTERNS,
    options=OPTIONS,
)
def test_patterns_mean_the_same(things: Things, texts: list[str], pattern: str, options: str) -> None:
    document = {"title": {"$regex": pattern, "$options": options}}
    try:
        things.db.models["Thing"].parse_filter(document)
    except InvalidFilter:
        assume(False)
    things.run(
        things.compare(
            [{"title": text} for text in texts], [document, {"title": {"$not": document["title"]}}]
        )
    )


@given(records=st.lists(RECORDS, max_size=6))
def test_what_is_written_is_read_and_published_alike(followed_things: Things, records: list[Any]) -> None:
    app = followed_things.app

    async def compare() -> None:
        async with app.feed.subscribe(LOCAL, "things") as followed:
            changes = aiter(followed)
            for record in records:
                made = await app.runtime.invoke("things.create", record, LOCAL, channel="test")
                read = await app.runtime.invoke("things.get", {"id": made.id}, LOCAL, channel="test")
                change = await anext(changes)
                assert read == made
                assert change.record == msgspec.structs.asdict(made)
                for name, value in record.items():
                    assert getattr(made, name) == value
                await app.runtime.invoke("things.delete", {"id": made.id}, LOCAL, channel="test")
                assert (await anext(changes)).old == msgspec.structs.asdict(made)

    followed_things.run(compare())


@pytest.mark.parametrize("deep", [101, 1000, 100_000])
async def test_a_filter_nested_without_end_is_refused(invoke: Invoke, deep: int) -> None:
    document: dict[str, Any] = {}
    for _ in range(deep):
        document = {"$not": document}
    with pytest.raises(NexusError) as caught:
        await invoke("products.count", filter=document)
    assert caught.value.status in (400, 422)


async def test_a_very_long_list_is_one_parameter(invoke: Invoke) -> None:
    await invoke("products.create", name="Lamp", stock=77)
    listed = await invoke("products.list", filter={"stock": {"$in": list(range(200_000))}})
    assert listed.count == 1


async def test_statements_are_compiled_once_for_each_shape(app: Nexus, db: DataFlow, invoke: Invoke) -> None:
    await invoke("products.list", filter={"stock": {"$in": [1]}})
    known = len(db.store._statements)
    for number in range(50):
        await invoke("products.list", filter={"stock": {"$in": [number, number + 1]}}, limit=number + 1)
    assert len(db.store._statements) == known
    operators = ("$eq", "$gt", "$gte", "$lt", "$lte")
    for four in itertools.islice(itertools.product(operators, repeat=5), 1100):
        values: tuple[object, ...] = (1, 1.0, 1, "x", False)
        fields = zip(("stock", "price", "id", "name", "on_sale"), four, values, strict=True)
        await invoke("products.count", filter={name: {op: value} for name, op, value in fields})
    assert len(db.store._statements) == 1000
