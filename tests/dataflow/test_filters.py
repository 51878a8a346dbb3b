"""One grammar, two backends: for any records and any filter, SQL and the predicate mean the same."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import InvalidFilter, NexusError
from nexus.filters import matches
from tests.conftest import Invoke

# Small alphabets, so that values meet: case, accents, an astral character, quotes, wildcards, the empty text.
TEXTS = st.text(alphabet="aAbBéß%_'\"\\ 0😀", max_size=3)
INTS = st.one_of(st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]))
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.30000000000000004, 0.3, 1.0, -1.5, 1e300, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
MOMENTS = st.datetimes(
    min_value=datetime.datetime(1, 1, 2),
    max_value=datetime.datetime(9999, 12, 30),
    timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))]),
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
        operators |= {"$startswith": TEXTS, "$endswith": TEXTS}
    single = st.one_of(*(operand.map(lambda v, op=op: {op: v}) for op, operand in operators.items()))
    combined = st.tuples(single, single).map(lambda two: two[0] | two[1])
    negated = single.map(lambda test: {"$not": test})
    return st.one_of(st.none() | value, single, combined, negated)


LEAVES = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: operators_on(name).map(lambda test: {name: test})
)
FILTERS = st.recursive(
    LEAVES | st.just({}),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
        inner.map(lambda part: {"$not": part}),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
    ),
    max_leaves=6,
)


def _thing(db: DataFlow) -> None:
    @db.model
    class Thing:
        title: str | None = None
        amount: int | None = None
        weight: float | None = None
        flag: bool | None = None
        moment: datetime.datetime | None = None
        day: datetime.date | None = None


@pytest.fixture(scope="module")
def things() -> Any:
    """Runs an async function against a Thing model in one event loop that lasts."""
    db = DataFlow(":memory:")
    _thing(db)
    app = Nexus(db)
    with asyncio.Runner() as runner:

        def run(work: Any) -> Any:
            return runner.run(work(app, db))

        yield run

        async def close(app: Nexus, db: DataFlow) -> None:
            await db.close()

        run(close)


@given(records=st.lists(RECORDS, max_size=8), filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_sql_and_predicate_mean_the_same(things: Any, records: list[Any], filters: list[Any]) -> None:
    async def compare(app: Nexus, db: DataFlow) -> None:
        async def run(name: str, arguments: dict[str, Any]) -> Any:
            return await app.runtime.invoke(name, arguments, LOCAL, channel="test")

        stored = [await run("things.create", record) for record in records]
        plain = [msgspec.structs.asdict(record) for record in stored]
        try:
            for document in filters:
                tree = db.models["Thing"].parse_filter(document)
                expected = [record["id"] for record in plain if matches(tree, record)]
                listed = await run("things.list", {"filter": document})
                assert [record.id for record in listed.records] == expected, document
                assert (await run("things.count", {"filter": document})).count == len(expected)
        finally:
            for record in stored:
                await run("things.delete", {"id": record.id})

    things(compare)


@given(records=st.lists(RECORDS, max_size=6))
def test_what_is_written_is_read_and_published_alike(things: Any, records: list[Any]) -> None:
    async def compare(app: Nexus, db: DataFlow) -> None:
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

    things(compare)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"titel": "x"}, "Did you mean 'title'"),
        ({"title": {"$qe": "x"}}, "no operator '$qe'"),
        ({"title": {"$regex": "x"}}, "not available yet"),
        ({"$or": []}, "non-empty list"),
        ({"$or": {"title": "x"}}, "non-empty list"),
        ({"$eq": 1}, "belongs to a field"),
        ({"$adn": [{}]}, "Did you mean '$and'"),
        ({"amount": {"$in": 3}}, "takes a list"),
        ({"amount": {"$exists": "yes"}}, "true or false"),
        ({"amount": {"$between": [1]}}, "two values"),
        ({"amount": {"$startswith": "1"}}, "cannot be compared"),
        ({"amount": "many"}, "cannot be compared"),
        ({"amount": True}, "cannot be compared"),
        ({"amount": 2**63}, "cannot be compared"),
        ({"weight": float("nan")}, "cannot be compared"),
        ({"flag": 1}, "cannot be compared"),
        ({"moment": "yesterday"}, "cannot be compared"),
        ({"title": "a\0b"}, "cannot be compared"),
        ({"title; DROP TABLE things": 1}, "has no field"),
    ],
)
async def test_a_filter_that_cannot_be_meant_is_refused(document: Any, named: str) -> None:
    db = DataFlow(":memory:")
    _thing(db)
    app = Nexus(db)
    async with app.running():
        with pytest.raises(InvalidFilter) as caught:
            await app.runtime.invoke("things.list", {"filter": document}, LOCAL, channel="test")
        assert named in str(caught.value)
        with pytest.raises(InvalidFilter):
            app.feed.subscribe(LOCAL, "things", where=document)


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
