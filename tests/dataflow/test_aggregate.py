"""Aggregation: what a database makes of it is what a few lines of Python say, with MongoDB's meaning."""

from __future__ import annotations

import asyncio
import datetime
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, NexusError
from tests.conftest import Invoke

TEXTS = st.sampled_from(["", "a", "A", "b", "é", "a ", "😀"])
INTS = st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])
# Halves: their sums are exact in any order.
FLOATS = st.integers(-1000, 1000).map(lambda n: n / 2)
RECORDS = st.fixed_dictionaries(
    {
        "kind": st.none() | TEXTS,
        "flag": st.none() | st.booleans(),
        "amount": st.none() | INTS,
        "weight": st.none() | FLOATS,
        "day": st.none() | st.dates(),
    }
)
ACCUMULATORS = st.one_of(
    st.sampled_from([{"$count": "*"}, {"$count": {}}, {"$sum": 1}, {"$sum": 2.5}, {"$avg": 3}]),
    st.tuples(st.sampled_from(["$sum", "$avg"]), st.sampled_from(["amount", "weight"])).map(
        lambda pair: {pair[0]: pair[1]}
    ),
    st.tuples(
        st.sampled_from(["$min", "$max", "$count"]), st.sampled_from(["kind", "flag", "amount", "day"])
    ).map(lambda pair: {pair[0]: pair[1]}),
)


def model_of(accumulator: dict[str, Any], records: list[dict[str, Any]]) -> Any:
    ((op, what),) = accumulator.items()
    if op == "$count" and what in ("*", {}):
        return len(records)
    if not isinstance(what, str):
        return float(what) if op == "$avg" else what * len(records)
    values = [record[what] for record in records if record[what] is not None]
    match op:
        case "$count":
            return len(values)
        case "$min" | "$max":
            return (min if op == "$min" else max)(values, default=None)
        case "$avg":
            return sum(values) / len(values) if values else None
    total = sum(values) if what == "amount" else math.fsum(values)
    return float(total) if isinstance(total, int) and not -(2**63) <= total < 2**63 else total


def types(rows: list[dict[str, Any]]) -> list[type]:
    return [type(value) for row in rows for value in row.values()]


def rank(value: Any) -> Any:
    return (0,) if value is None else (1, value)


def test_groups_are_what_python_makes_of_them(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Item:
        kind: str | None
        flag: bool | None
        amount: int | None
        weight: float | None
        day: datetime.date | None

    app = Nexus(db)

    async def run(name: str, /, **arguments: Any) -> Any:
        return await app.runtime.invoke(name, arguments, LOCAL, channel="test")

    with asyncio.Runner() as runner:

        @settings(max_examples=60)
        @given(
            records=st.lists(RECORDS, max_size=12),
            keys=st.lists(st.sampled_from(["kind", "flag", "amount", "day"]), unique=True, max_size=2),
            wanted=st.dictionaries(st.sampled_from(["x", "y z", "select"]), ACCUMULATORS, min_size=1),
        )
        def check(records: list[dict[str, Any]], keys: list[str], wanted: dict[str, Any]) -> None:
            runner.run(run("items.bulk_delete", filter={}))
            runner.run(run("items.bulk_create", data=records))
            got = runner.run(run("items.aggregate", group_by=keys, aggregate=wanted))
            groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
            for record in records:
                groups.setdefault(tuple(record[key] for key in keys), []).append(record)
            expected = [
                dict(zip(keys, key, strict=True)) | {n: model_of(a, groups[key]) for n, a in wanted.items()}
                for key in sorted(groups, key=lambda key: [rank(value) for value in key])
            ]
            assert got.records == expected
            types = [
                [type(value) for row in rows for value in row.values()] for rows in (got.records, expected)
            ]
            assert types[0] == types[1]
            assert got.count == len(expected)

        check()
        runner.run(db.close())


@pytest.fixture
async def orders(invoke: Invoke) -> None:
    rows = [
        {"name": "a", "price": 10, "stock": 1, "on_sale": True},
        {"name": "a", "price": 20, "stock": 2},
        {"name": "b", "price": 5, "stock": 3},
        {"name": "c", "price": 50, "stock": 4, "note": "x"},
    ]
    await invoke("products.bulk_create", data=rows)


@pytest.mark.usefixtures("orders")
async def test_groups_can_be_chosen_sorted_and_paged(invoke: Invoke) -> None:
    aggregate = {"total": {"$sum": "price"}, "n": {"$count": "*"}, "mean": {"$avg": "price"}}
    done = await invoke(
        "products.aggregate",
        filter={"stock": {"$lt": 4}},
        group_by=["name"],
        aggregate=aggregate,
        having={"total": {"$gt": 1}, "name": {"$ne": "zzz"}},
        order_by="-total",
    )
    assert done.records == [
        {"name": "a", "total": 30.0, "n": 2, "mean": 15.0},
        {"name": "b", "total": 5.0, "n": 1, "mean": 5.0},
    ]
    done = await invoke(
        "products.aggregate",
        group_by="name",
        aggregate={"top": {"$max": "price"}},
        sort=[{"top": -1}],
        limit=1,
        offset=1,
    )
    assert (done.records, done.count) == ([{"name": "a", "top": 20.0}], 1)
    assert (await invoke("products.aggregate", group_by=["on_sale"])).records == [
        {"on_sale": False},
        {"on_sale": True},
    ]


@pytest.mark.usefixtures("orders")
async def test_pipelines(invoke: Invoke) -> None:
    async def run(*stages: dict[str, Any], **filter: Any) -> Any:
        return (await invoke("products.aggregate", filter=filter, aggregate=list(stages))).records

    group = {"$group": {"_id": "$name", "sold": {"$sum": "$stock"}}}
    assert await run(group, {"$sort": {"sold": -1}}, {"$skip": 1}, {"$limit": 2}) == [
        {"_id": "a", "sold": 3},
        {"_id": "b", "sold": 3},
    ]
    assert await run(
        {"$match": {"price": {"$lt": 50}}}, group, {"$match": {"sold": 3}}, stock={"$gt": 1}
    ) == [{"_id": "b", "sold": 3}]
    assert await run(
        {"$sort": {"price": -1}}, {"$limit": 2}, {"$group": {"_id": None, "n": {"$sum": "$price"}}}
    ) == [{"_id": None, "n": 70.0}]
    both = {"$group": {"_id": {"n": "$name", "s": "$on_sale"}, "c": {"$count": {}}}}
    assert await run(
        both, {"$sort": {"c": -1, "_id.n": -1}}, {"$project": {"_id": 0, "who": "$_id.n", "c": 1}}
    ) == [
        {"who": "c", "c": 1},
        {"who": "b", "c": 1},
        {"who": "a", "c": 1},
        {"who": "a", "c": 1},
    ]
    assert await run(group, {"$project": {"sold": 0}}, {"$limit": 1}) == [{"_id": "a"}]
    assert await run({"$match": {"name": "a"}}, {"$count": "many"}) == [{"many": 2}]
    assert await run({"$match": {"name": "zzz"}}, {"$count": "many"}) == []


async def test_no_records_make_no_group(invoke: Invoke) -> None:
    done = await invoke("products.aggregate", aggregate={"n": {"$count": "*"}, "s": {"$sum": "price"}})
    assert (done.records, done.count) == ([], 0)


async def test_a_sum_too_large_for_a_float_is_refused(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": "a", "price": 1.7e308}] * 2)
    with pytest.raises(Conflict, match="too large"):
        await invoke("products.aggregate", aggregate={"s": {"$sum": "price"}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "nothing to aggregate"),
        ({"group_by": ["nmae"]}, "Did you mean 'name'"),
        ({"group_by": ["name", "name"]}, "twice"),
        ({"group_by": ["tags"]}, "not available yet"),
        ({"aggregate": {"x": {"$summ": "price"}}}, r"Did you mean '\$sum'"),
        ({"aggregate": {"x": {"$sum": "prcie"}}}, "Did you mean 'price'"),
        ({"aggregate": {"x": {"$sum": "name"}}}, "takes a number field"),
        ({"aggregate": {"x": {"$max": "tags"}}}, "'tags' has none"),
        ({"aggregate": {"x": {"$first": "name"}}}, "not available yet"),
        ({"aggregate": {"x": "price"}}, "an object such as"),
        ({"aggregate": {"$x": {"$sum": 1}}}, "cannot be the name"),
        ({"group_by": ["name"], "aggregate": {"name": {"$sum": 1}}}, "name of a field and of an aggregate"),
        ({"aggregate": {"x": {"$sum": 1}}, "having": {"y": 1}}, "no field 'y'"),
        ({"aggregate": {"x": {"$sum": 1}}, "having": {"x": "a"}}, "cannot be compared"),
        ({"aggregate": {"x": {"$sum": 1}}, "order_by": "y"}, "the groups have no 'y'"),
        ({"aggregate": {"x": {"$sum": 1}}, "order_by": "x", "sort": "x"}, "give one"),
        ({"aggregate": {"x": {"$sum": 1}}, "groupby": ["name"]}, "Did you mean 'group_by'"),
        ({"aggregate": []}, "without '\\$group'"),
        ({"aggregate": [{"$group": {"n": {"$sum": 1}}}]}, "needs '_id'"),
        ({"aggregate": [{"$group": {"_id": "name"}}]}, "expressions"),
        ({"aggregate": [{"$gruop": {}}]}, r"Did you mean '\$group'"),
        ({"aggregate": [{"$lookup": {}}]}, "not available yet"),
        ({"aggregate": [{"$limit": 0}, {"$count": "n"}]}, "at least 1"),
        ({"aggregate": [{"$limit": 1}, {"$match": {}}, {"$count": "n"}]}, "not available yet"),
        ({"aggregate": [{"$group": {"_id": None}}], "group_by": ["name"]}, "belongs into the pipeline"),
        ({"aggregate": [{"$group": {"_id": None}}, {"$sort": {"x": 1}}]}, "the groups have no 'x'"),
        ({"aggregate": [{"$group": {"_id": None}}, {"$project": {"x": {"$add": [1, 2]}}}]}, "expressions"),
    ],
)
async def test_what_cannot_be_meant_is_refused(invoke: Invoke, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(NexusError, match=words) as refused:
        await invoke("products.aggregate", **arguments)
    assert refused.value.status == 422
