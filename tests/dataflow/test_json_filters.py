"""Filters that look into JSON mean the same in every database and in the predicate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import InvalidFilter
from tests.support.filters import (
    ENGINES,
    FLOATS,
    INTS,
    REGEXES,
    TEXTS,
    Things,
    combined,
    declare,
    opened,
    text_tests,
)

KEYS = st.sampled_from(
    [
        "a",
        "a",
        "a",
        "b",
        "b",
        "0",
        "0",
        "1",
        "A",
        "é",
        "a b",
        'q"',
        "q'",
        "$x",
        "*",
        "[0]",
        "\\",
        "\n",
        "😀",
        "k" * 200,
    ]
)
FEW = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -2.5, 2**53 + 1, 2.0**53, "", "a", "A", "é", "1", [], {}, [1], {"a": 1}]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), INTS, FLOATS, TEXTS, FEW.filter(lambda v: not isinstance(v, (list, dict)))
)
JSON = st.recursive(
    SCALARS | FEW,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.fixed_dictionaries(
    {
        "meta": st.none() | st.dictionaries(KEYS, JSON, max_size=3),
        "tags": st.none() | st.lists(JSON, max_size=4),
    }
)
PATHS = st.one_of(
    st.just("tags"),
    st.lists(KEYS, min_size=1, max_size=3).map(lambda keys: ".".join(["meta", *keys])),
    st.lists(KEYS, min_size=1, max_size=2).map(lambda keys: ".".join(["tags", *keys])),
)
PLAIN = FEW | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(KEYS.filter(lambda key: not key.startswith("$")), inner, max_size=2)
    ),
    max_leaves=3,
)
ORDERED = SCALARS


def some(operators: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.one_of(*(operand.map(lambda v, op=op: {op: v}) for op, operand in operators.items()))


SIMPLE = (
    some(
        {
            **dict.fromkeys(("$eq", "$ne"), PLAIN),
            **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), ORDERED),
            **dict.fromkeys(("$in", "$nin", "$overlap"), st.lists(PLAIN, max_size=3)),
            **dict.fromkeys(("$exists", "$null"), st.booleans()),
            **text_tests(),
            "$contains": PLAIN.filter(lambda value: value not in (None, [], {})),
            "$size": st.integers(0, 3),
            "$between": st.lists(ORDERED.filter(lambda value: value is not None), min_size=2, max_size=2),
            "$any": SCALARS,
        }
    )
    | REGEXES
)
TESTS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        inner.map(lambda test: {"$not": test}),
        inner.map(lambda test: {"$elemMatch": test}),
        inner.map(lambda test: {"$any": test}),
        st.tuples(KEYS.filter(lambda key: key != "$x"), inner).map(
            lambda two: {"$elemMatch": {two[0]: two[1]}}
        ),
        st.tuples(inner, inner).map(lambda two: {"$elemMatch": {"$or": [{"a": two[0]}, {"b": two[1]}]}}),
    ),
    max_leaves=3,
)
LEAVES = st.tuples(PATHS, TESTS | PLAIN).map(lambda pair: {pair[0]: pair[1]})
FILTERS = combined(LEAVES)


@pytest.fixture(scope="module", params=ENGINES)
def things(request: pytest.FixtureRequest) -> Iterator[Things]:
    yield from opened(request.param)


@given(records=st.lists(RECORDS, max_size=6), filters=st.lists(FILTERS, min_size=1, max_size=6))
def test_sql_and_predicate_mean_the_same(things: Things, records: list[Any], filters: list[Any]) -> None:
    good = []
    for document in filters:
        try:
            things.db.models["Thing"].parse_filter(document)
        except InvalidFilter as failure:
            if "pattern" not in str(failure).lower():  # nothing else is drawn that may be refused
                raise
        else:
            good.append(document)
    assume(good)
    things.run(things.compare(records, good))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"tags": "red"}, [1]),
        ({"tags": ["red", "blue"]}, [1]),
        ({"tags.0": "red"}, [1]),
        ({"tags": {"$ne": "red"}}, [2, 3]),
        ({"tags": {"$overlap": ["green", "blue"]}}, [1, 2]),
        ({"tags": {"$contains": ["blue", "red"]}}, [1]),
        ({"tags": {"$any": {"$gte": 90}}}, [2]),
        ({"tags": {"$elemMatch": {"$gt": 1, "$lt": 50}}}, []),
        ({"tags": {"$size": 0}}, [3]),
        ({"meta": {"b": 1.0, "a": {"d": [1], "c": "x"}}}, [1]),
        ({"meta.a.c": {"$regex": "^X$", "$options": "i"}}, [1]),
        ({"meta.a": {"$contains": {"c": "x"}}}, [1]),
        ({"meta.parts.n": {"$gt": 5}}, [2]),
        ({"meta.parts.1.n": 7}, [2]),
        ({"meta.parts": {"$elemMatch": {"n": 7, "k": "y"}}}, [2]),
        ({"meta.parts": {"$elemMatch": {"n": 1, "k": "y"}}}, []),
        ({"meta.none": None}, [1, 2, 3]),
        ({"meta.b": {"$exists": True}}, [1]),
        ({"meta.b": {"$gt": "0"}}, []),  # a text is not compared with a number
        ({"meta.parts.n": True}, []),  # nor is 1 true
        ({"meta.big": 2**53 + 1}, [3]),
        ({"meta.big": 2**53}, []),
    ],
)
def test_what_is_found(things: Things, document: Any, expected: list[int]) -> None:
    records = [
        {"tags": ["red", "blue"], "meta": {"a": {"c": "x", "d": [1]}, "b": 1}},
        {"tags": ["green", 95], "meta": {"parts": [{"n": 1, "k": "x"}, {"n": 7, "k": "y"}]}},
        {"tags": [], "meta": {"big": 2**53 + 1, "none": None}},
    ]

    async def check() -> None:
        stored = [await things.invoke("things.create", **record) for record in records]
        try:
            found = await things.invoke("things.list", filter=document)
            assert [record.id - stored[0].id + 1 for record in found.records] == expected
        finally:
            for record in stored:
                await things.invoke("things.delete", id=record.id)

    things.run(check())


async def test_a_subscription_looks_into_json_and_at_patterns() -> None:
    db = DataFlow(":memory:")
    declare(db)
    app = Nexus(db)
    async with app.running():

        async def create(**values: Any) -> None:
            await app.runtime.invoke("things.create", values, LOCAL, channel="test")

        where = {"meta.size.cm": {"$gte": 100}, "title": {"$regex": "^a", "$options": "i"}}
        async with app.feed.subscribe(LOCAL, "things", filter=where) as followed:
            await create(title="abc", meta={"size": {"cm": 99}})
            await create(title="xabc", meta={"size": {"cm": 100}})
            await create(title="Abc", meta={"size": {"cm": 100}})
            change = await anext(aiter(followed))
        assert (change.event, change.record["title"]) == ("enter", "Abc")
