"""What a filter cannot mean is refused before any statement, alike in lists and in subscriptions."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import InvalidFilter
from tests.support.filters import declare


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"titel": "x"}, "Did you mean 'title'"),
        ({"title": {"$qe": "x"}}, "no operator '$qe'"),
        ({"title": {"$regex": "(x"}}, "not closed"),
        ({"title": {"$regex": 3}}, "takes a text"),
        ({"title": {"$regex": "x", "$options": "g"}}, "no 'g'"),
        ({"title": {"$options": "i"}}, "belongs to a '$regex'"),
        ({"title": {"$regex": "x(a+)+y"}}, "very long time"),
        ({"amount": {"$regex": "1"}}, "works on texts"),
        ({"title": {"$like": "a\\b"}}, "stands before"),
        ({"title": {"$like": "%" * 3 + "a" * 1001}}, "at most 1000"),
        ({"title": {"$like": None}}, "takes a text"),
        ({"amount": {"$contains": 1}}, "takes a text"),
        ({"title": {"$contains": None}}, "not null"),
        ({"title": {"$size": 1}}, "works on lists"),
        ({"title": {"$overlap": ["a"]}}, "works on lists"),
        ({"title": {"$any": "a"}}, "works on lists"),
        ({"tags": {"$size": -1}}, "a number of elements"),
        ({"tags": {"$size": True}}, "a number of elements"),
        ({"tags": {"$overlap": "a"}}, "takes a list"),
        ({"meta.a": {"$in": [1] * 1001}}, "at most 1000 values"),
        ({"tags": {"$elemMatch": "a"}}, "tests for an element"),
        ({"tags": {"$elemMatch": {}}}, "tests for an element"),
        ({"tags": {"$elemMatch": {"$gt": 1, "a": 2}}}, "belongs to a field"),
        ({"tags": {"$elemMatch": {"a..b": 1}}}, "step of a path"),
        ({"tags": {"$gt": [1]}}, "a number or a text"),
        ({"tags": {"$contains": []}}, "means nothing"),
        ({"meta.a": {"$gt": {"b": 1}}}, "a number or a text"),
        ({"meta.a": 2**63}, "at most 64 bits"),
        ({"meta.a": [float("nan")]}, "finite"),
        ({"meta.a": {"b": ["x\0"]}}, "NUL"),
        ({"meta": {"$set": 1}}, "no operator '$set'"),
        ({"meta": {"$gt": 1, "a": 2}}, "side by side"),
        ({"meta..a": 1}, "step of a path"),
        ({"meta.": 1}, "dot"),
        ({"meta." + "k" * 1001: 1}, "step of a path"),
        ({"meta" + ".a" * 17: 1}, "at most 16 steps"),
        ({"title.a": 1}, "holds no JSON"),
        ({"titel.a": 1}, "Did you mean 'title'"),
        ({"title": {"$and": [{}]}}, "beside fields"),
        ({"$and": [{"title": "x"}] * 2001}, "more than 2000 tests"),
        ({"title": {"$startswith": "\ud800"}}, "cannot be compared"),
        ({"meta.a": "\ud800"}, "cannot be compared"),
        ({"$or": []}, "non-empty list"),
        ({"$or": {"title": "x"}}, "non-empty list"),
        ({"$eq": 1}, "belongs to a field"),
        ({"$adn": [{}]}, "Did you mean '$and'"),
        ({"amount": {"$in": 3}}, "takes a list"),
        ({"amount": {"$exists": "yes"}}, "true or false"),
        ({"amount": {"$between": [1]}}, "two values"),
        ({"amount": {"$startswith": "1"}}, "works on texts"),
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
    declare(db)
    app = Nexus(db)
    async with app.running():
        with pytest.raises(InvalidFilter) as caught:
            await app.runtime.invoke("things.list", {"filter": document}, LOCAL, channel="test")
        assert named in str(caught.value)
        with pytest.raises(InvalidFilter):
            app.feed.subscribe(LOCAL, "things", filter=document)


NAMES = [
    '"; DROP TABLE things; --',
    "' OR 1=1 --",
    "$",
    "select",
    "größe",
    "k" * 200,
    ":w1",
    "%s",
    "a]b",
    '"',
    "`",
    "$1",
]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_may_be_a_key_of_an_object(database: str, name: str) -> None:
    db = DataFlow(database)
    declare(db)
    app = Nexus(db)
    async with app.running():

        async def invoke(operation: str, **arguments: Any) -> Any:
            return await app.runtime.invoke(operation, arguments, LOCAL, channel="test")

        await invoke("things.create", meta={name: {name: 1}}, tags=[{name: 2}])
        await invoke("things.create", meta={"other": 1}, tags=[])
        for document in (
            {f"meta.{name}.{name}": 1},
            {f"tags.{name}": {"$gt": 1}},
            {"meta": {name: {name: 1.0}}}
            if not name.startswith("$")
            else {"meta": {"$eq": {name: {name: 1}}}},
            {"tags": {"$contains": {name: 2}}},
        ):
            assert (await invoke("things.count", filter=document)).count == 1, document
