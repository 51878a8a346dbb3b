"""Merge patches (RFC 7396): the same on every database and wherever operators are taken; nothing is lost."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.merging import merge_patch
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, InvalidArguments, NotFound
from tests.conftest import Invoke

APPENDIX: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def reference(target: Any, patch: Any) -> Any:
    """Line by line what section 2 of the RFC says."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = reference(target.get(name), value)
        return target
    return patch


NAMES = st.sampled_from(["a", "b", "é", "$c", "0"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "null"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("target", "patch", "expected"), APPENDIX)
def test_the_examples_of_the_rfc(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected == reference(target, patch)


@given(JSON, JSON)
def test_is_what_the_rfc_says(target: Any, patch: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == reference(copy.deepcopy(target), patch)
    assert target == before


@pytest.fixture
async def papers(database: str) -> AsyncIterator[tuple[DataFlow, Nexus]]:
    db = DataFlow(database)

    @db.model
    class Paper:
        __dataflow__ = {"versioned": True}
        title: str = ""
        about: dict[str, Any] | None = None
        counts: dict[str, int] = {}
        marks: list[int] = []

    app = Nexus(db)
    async with app.running():
        yield db, app


@pytest.fixture
def run(papers: tuple[DataFlow, Nexus]) -> Invoke:
    async def invoke(name: str, /, **arguments: Any) -> Any:
        return await papers[1].runtime.invoke(f"papers.{name}", arguments, LOCAL, channel="test")

    return invoke


async def test_every_place_that_takes_operators_merges_alike(run: Invoke) -> None:
    @settings(max_examples=12)
    @given(st.dictionaries(NAMES, JSON, max_size=3), st.dictionaries(NAMES, JSON, max_size=3))
    def collect(target: Any, patch: Any) -> None:
        pairs.append((target, patch))

    pairs: list[Any] = [
        pair[:2] for pair in APPENDIX if isinstance(pair[0], dict) and isinstance(pair[1], dict)
    ]
    pairs.append((None, {"a": {"b": None}}))
    collect()
    for target, patch in pairs:
        expected = reference(copy.deepcopy(target), patch)
        made = await run("create", about=target)
        here = {"filter": {"id": made.id}}
        ways: list[tuple[str, dict[str, Any]]] = [
            ("update", {"id": made.id, "fields": {"$merge": {"about": patch}}}),
            ("update", {"id": made.id, "fields": {"about": {"$merge": patch}}}),
            ("update", {**here, "fields": {"$merge": {"about": patch}}}),
            ("bulk_update", {**here, "update": {"$merge": {"about": patch}}}),
            ("bulk_update", {**here, "update": {"$merge": {"about": patch}}, "batch_size": 1}),
            ("bulk_update", {"data": [{"id": made.id, "$merge": {"about": patch}}]}),
            ("upsert", {"where": {"id": made.id}, "update": {"$merge": {"about": patch}}}),
        ]
        for name, arguments in ways:
            await run("update", id=made.id, fields={"$set": {"about": target}})
            await run(name, **arguments)
            assert (await run("get", id=made.id)).about == expected, (name, arguments, target)


async def test_a_record_may_be_merged_into_twice(run: Invoke) -> None:
    await run("bulk_create", data=[{"about": {"n": 0}}, {}, {"about": {"n": 2}}])
    patches = [{"id": 1, "$merge": {"about": {"a": 1}}}, {"id": 2, "$merge": {"about": {"x": {"y": None}}}}]
    patches += [{"id": 1, "$merge": {"about": {"b": {"c": 1}}}}, {"id": 1, "title": "new"}]
    patches += [{"id": 1, "$merge": {"about": {"b": {"c": None, "d": 2}}, "counts": {"k": 1}}}]
    done = await run("bulk_update", data=patches)
    assert done.success_count == 5
    first = await run("get", id=1)
    assert (first.about, first.counts, first.title) == ({"n": 0, "a": 1, "b": {"d": 2}}, {"k": 1}, "new")
    assert (await run("get", id=2)).about == {"x": {}}
    assert (await run("get", id=3)).about == {"n": 2}


async def test_plain_fields_are_set_and_null_is_for_those_that_may_be_null(run: Invoke) -> None:
    await run("create", title="old", about={"a": 1})
    changed = await run("update", id=1, fields={"$merge": {"title": "new", "about": None, "marks": [1, 2]}})
    assert (changed.title, changed.about, changed.marks, changed.version) == ("new", None, [1, 2], 2)
    with pytest.raises(InvalidArguments) as refused:
        await run("update", id=1, fields={"$merge": {"title": None, "nowhere": 1}})
    assert [(p.code, p.pointer) for p in refused.value.problems] == [
        ("DF-102", "/fields/$merge/title"),
        ("DF-106", "/fields/$merge/nowhere"),
    ]


async def test_what_comes_of_it_must_fit_the_field(run: Invoke) -> None:
    deep: Any = {}
    for _ in range(29):
        deep = {"d": deep}
    await run("create", counts={"a": 1}, about=deep)
    for fields in (
        {"counts": {"b": "many"}},
        {"counts": {"b": {"c": 1}}},
        {"marks": {"a": 1}},
        {"about": {"x": "\0"}},
        {"about": {"x": {"y": deep}}},
        {"about": {"x": 2**64}},
    ):
        with pytest.raises(InvalidArguments) as refused:
            await run("update", id=1, fields={"$merge": fields})
        assert refused.value.code == "DF-102", fields
        with pytest.raises(InvalidArguments):
            await run("bulk_update", filter={}, update={"$merge": fields})
    kept = await run("get", id=1)
    assert (kept.counts, kept.about, kept.version) == ({"a": 1}, deep, 1)


async def test_who_is_not_there_or_has_changed(run: Invoke) -> None:
    with pytest.raises(NotFound):
        await run("update", id=1, fields={"$merge": {"about": {"a": 1}}})
    await run("create")
    with pytest.raises(Conflict):
        await run("update", id=1, version=7, fields={"$merge": {"about": {"a": 1}}})
    assert (await run("update", id=1, version=1, fields={"$merge": {"about": {"a": 1}}})).version == 2
    assert (await run("update", id=1, fields={"$merge": {}})).about == {"a": 1}


async def test_nothing_is_lost_between_those_who_merge_at_once(
    database: str, papers: tuple[DataFlow, Nexus]
) -> None:
    db, _ = papers
    await db.papers.create(about={})
    other = DataFlow(database) if database != ":memory:" else db
    if other is not db:

        @other.model
        class Paper:
            __dataflow__ = {"versioned": True}
            title: str = ""
            about: dict[str, Any] | None = None
            counts: dict[str, int] = {}
            marks: list[int] = []

    async def write(number: int) -> None:
        mine = (db, other)[number % 2].papers
        patch = {"about": {f"n{number}": number, "deep": {str(number): True}}}
        if number % 3:
            await mine.update(1, fields={"$merge": patch})
        else:
            await mine.bulk_update(filter={"id": 1}, update={"$merge": patch})

    await asyncio.gather(*(write(number) for number in range(24)))
    about = (await db.papers.get(1))["about"]
    assert {key for key in about if key != "deep"} == {f"n{number}" for number in range(24)}
    assert len(about["deep"]) == 24
