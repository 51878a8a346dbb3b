"""Lists as the database's own arrays: the same meaning as lists in JSON, and an index that finds elements."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dataflow import DataFlow
from dataflow.query import Where
from nexus.errors import InvalidArguments, InvalidFilter, RegistrationError, SchemaMismatch
from nexus.filters import matches
from tests.dataflow.test_json_filters import TESTS
from tests.support.databases import empty_database
from tests.support.filters import FLOATS, INTS, TEXTS, combined

ARRAYS = {"use_native_arrays": True}


def declare(db: DataFlow, *, native: bool) -> None:
    class Memo:
        tags: list[str] | None = None
        scores: list[int] | None = None
        ratings: list[float] | None = None
        flags: list[bool] = []
        __dataflow__ = ARRAYS if native else {}
        __indexes__ = (
            [{"fields": [name]} for name in ("tags", "scores", "ratings", "flags")] if native else []
        )

    db.model(Memo)


class Memos:
    """One model twice: its lists as arrays and as JSON."""

    def __init__(self, folder: Path) -> None:
        self.native = DataFlow(empty_database("postgresql", folder))
        self.json = DataFlow(":memory:")
        declare(self.native, native=True)
        declare(self.json, native=False)
        self.runner = asyncio.Runner()


@pytest.fixture(scope="module")
def memos() -> Iterator[Memos]:
    with tempfile.TemporaryDirectory() as folder:
        made = Memos(Path(folder))
        yield made
        for db in (made.native, made.json):
            made.runner.run(db.close())
        made.runner.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_database("postgresql", tmp_path)


@pytest.fixture
async def db(url: str) -> AsyncIterator[DataFlow]:
    made = DataFlow(url)
    declare(made, native=True)
    yield made
    await made.close()


def lists(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(elements, max_size=4)


LISTS = {
    "tags": lists(TEXTS | st.sampled_from(["a", "A", "1"])),
    "scores": lists(INTS | st.sampled_from([0, 1, 2**53 + 1])),
    "ratings": lists(FLOATS | st.sampled_from([0.0, 1.0, 2.0**53, -2.5])),
    "flags": lists(st.booleans()),
}
RECORDS = st.fixed_dictionaries(
    {name: values if name == "flags" else st.none() | values for name, values in LISTS.items()}
)
PATHS = st.sampled_from([*LISTS, *LISTS, "tags.0", "scores.1", "ratings.0", "tags.a", "flags.0"])
FILTERS = combined(st.tuples(PATHS, TESTS | st.one_of(*LISTS.values())).map(lambda pair: {pair[0]: pair[1]}))


@given(records=st.lists(RECORDS, max_size=6), filters=st.lists(FILTERS, min_size=1, max_size=6))
def test_filters_find_what_they_find_in_json(memos: Memos, records: list[Any], filters: list[Any]) -> None:
    async def compare() -> None:
        both = (
            [
                (await db.memos.bulk_create(data=records, return_ids=True))["ids"]
                for db in (memos.native, memos.json)
            ]
            if records
            else [[], []]
        )
        try:
            read = (await memos.native.memos.list(order_by="id"))["records"]
            for document in filters:
                try:
                    tree = memos.native.models["Memo"].parse_filter(document)
                except InvalidFilter:
                    assume(False)
                found = [
                    [
                        ids.index(record["id"])
                        for record in (await db.memos.list(filter=document, order_by="id"))["records"]
                    ]
                    for db, ids in zip((memos.native, memos.json), both, strict=True)
                ]
                assert found[0] == found[1], document
                assert found[0] == [place for place, record in enumerate(read) if matches(tree, record)]
        finally:
            for db in (memos.native, memos.json):
                await db.memos.bulk_delete(filter={}, confirmed=True)

    memos.runner.run(compare())


CHANGES = st.sampled_from([*LISTS]).flatmap(
    lambda name: st.tuples(
        st.just(name), st.sampled_from(["$push", "$pull", "$addToSet"]), LISTS[name], st.booleans()
    )
)


@given(record=RECORDS, changes=st.lists(CHANGES, min_size=1, max_size=4))
def test_operators_do_what_they_do_in_json(memos: Memos, record: Any, changes: list[Any]) -> None:
    async def compare() -> None:
        keys = [(await db.memos.create(**record))["id"] for db in (memos.native, memos.json)]
        for name, op, values, many in changes:
            operand = {"$each": values} if many and op != "$pull" else (values or [None])[0]
            if operand is None:
                continue
            for db, key in zip((memos.native, memos.json), keys, strict=True):
                await db.memos.update(key, fields={op: {name: operand}})
        one, other = [
            await db.memos.get(key) for db, key in zip((memos.native, memos.json), keys, strict=True)
        ]
        assert {name: one[name] for name in LISTS} == {name: other[name] for name in LISTS}
        assert [type(value) for value in one["ratings"] or []] == [float] * len(one["ratings"] or [])

    memos.runner.run(compare())


async def test_columns_are_arrays(db: DataFlow) -> None:
    made = await db.memos.create(tags=["a", 'q"{}', "\\", ""], scores=[1, -(2**63)], ratings=[1, 5e-324])
    assert made["tags"] == ["a", 'q"{}', "\\", ""]
    assert made["ratings"] == [1.0, 5e-324]
    assert made["flags"] == []
    many = [{"tags": None, "flags": [True, False]}, {"tags": [], "scores": []}, {"tags": ["x", "NULL"]}]
    await db.memos.bulk_create(data=many)
    found = (await db.memos.list(order_by="id"))["records"][1:]
    assert [record["tags"] for record in found] == [None, [], ["x", "NULL"]]
    assert found[0]["flags"] == [True, False]
    connection = await db.database.pools.readers.take()
    kinds = await connection.fetch(
        "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = 'memos'"
    )
    db.database.pools.readers.give(connection)
    assert dict(kinds) | {"tags": "_text", "scores": "_int8", "ratings": "_float8", "flags": "_bool"} == dict(
        kinds
    )


@pytest.mark.parametrize(
    "document",
    [
        {"tags": {"$contains": "t7"}},
        {"tags": "t7"},
        {"tags": {"$any": "t7"}},
        {"tags": {"$overlap": ["t7", "no"]}},
        {"tags": {"$in": ["t7", "no"]}},
        {"scores": {"$contains": 7}},
        {"$and": [{"tags": {"$contains": ["t7", "all"]}}]},
    ],
)
async def test_an_index_finds_elements(db: DataFlow, document: Any) -> None:
    rows = [{"tags": [f"t{n % 100}", "all"], "scores": [n % 100]} for n in range(500)]
    await db.memos.bulk_create(data=rows)
    assert (await db.memos.count(filter=document))["count"] == 5
    statement = next(s for shape, s in db.store._statements.items() if shape[0] == "count")
    table = await db.database.table(db.models["Memo"])
    where = Where(db.models["Memo"].parse_filter(document), table, db.database.dialect)
    connection = await db.database.pools.readers.take()
    try:
        await connection.fetch("SET enable_seqscan = off")
        plan = await connection.fetch(f"EXPLAIN {statement.sql}", statement.bind(where.values))
        await connection.fetch("RESET enable_seqscan")
    finally:
        db.database.pools.readers.give(connection)
    assert any("Bitmap Index Scan on ix_memos_" in line for (line,) in plan), plan


async def test_nulls_are_no_elements(db: DataFlow) -> None:
    for wrong in ([None], ["a", None], [1], "a"):
        with pytest.raises(InvalidArguments):
            await db.memos.create(tags=wrong)
    with pytest.raises(InvalidArguments):
        await db.memos.create(scores=[2**63])


async def test_a_column_is_added_with_its_default(url: str) -> None:
    first = DataFlow(url)
    first.model(type("Memo", (), {"__annotations__": {"name": str}}))
    await first.memos.create(name="old")
    second = DataFlow(url)

    @second.model
    class Memo:
        name: str
        tags: list[str] = ["it's", "\\", 'q"']
        scores: list[int] = [1, -2]
        ratings: list[float] = [0.5, 1e300]
        flags: list[bool] = [True]
        empty: list[str] = []
        __dataflow__ = ARRAYS

    read = (await second.memos.list())["records"][0]
    assert read["tags"] == ["it's", "\\", 'q"']
    assert (read["scores"], read["ratings"], read["flags"], read["empty"]) == (
        [1, -2],
        [0.5, 1e300],
        [True],
        [],
    )
    for db in (first, second):
        await db.close()


@pytest.mark.parametrize("first", [True, False])
async def test_a_column_is_not_converted(url: str, first: bool) -> None:
    one, other = DataFlow(url), DataFlow(url)
    for db, native in ((one, first), (other, not first)):
        members: dict[str, Any] = {"__annotations__": {"tags": list[str]}}
        db.model(type("Memo", (), {**members, "__dataflow__": ARRAYS if native else {}}))
    await one.memos.create(tags=["a"])
    with pytest.raises(SchemaMismatch, match=r"'tags' of the table 'memos' is .*Convert the column"):
        await other.memos.list()
    assert await one.memos.count(filter={"tags": "a"}) == {"count": 1}
    for db in (one, other):
        await db.close()


async def test_lists_of_anything_else_stay_json(url: str) -> None:
    db = DataFlow(url)

    @db.model
    class Memo:
        tags: list[str]
        parts: list[dict[str, Any]] = []
        grid: list[list[int]] = []
        holes: list[int | None] = []
        plain: list = []  # type: ignore[type-arg]
        __dataflow__ = ARRAYS

    await db.memos.upsert(
        where={"id": 1},
        create={"tags": ["a"], "grid": [[1], []], "holes": [None, 1], "plain": [{}]},
        update={},
    )
    read = await db.memos.upsert(where={"id": 1}, create={"tags": []}, update={"tags": {"$push": "b"}})
    assert read["record"]["tags"] == ["a", "b"]
    assert (read["record"]["grid"], read["record"]["holes"]) == ([[1], []], [None, 1])
    await db.close()


@pytest.mark.parametrize("other", [":memory:", "mysql://root@127.0.0.1:1/none"])
def test_other_databases_refuse_at_registration(other: str) -> None:
    with pytest.raises(RegistrationError, match=r"has no arrays for 'use_native_arrays'\. Leave it out"):
        declare(DataFlow(other), native=True)


def test_what_cannot_be_is_refused() -> None:
    db = DataFlow("postgresql://localhost:1/none")
    with pytest.raises(RegistrationError, match="no field is a list of"):
        db.model(type("Memo", (), {"__annotations__": {"a": list, "b": str}, "__dataflow__": ARRAYS}))
    for index in ({"fields": ["tags", "name"]}, {"fields": ["tags"], "unique": True}):
        members = {
            "__annotations__": {"tags": list[str], "name": str},
            "__dataflow__": ARRAYS,
            "__indexes__": [index],
        }
        with pytest.raises(RegistrationError, match="on nothing else, and not unique"):
            db.model(type("Memo", (), members))
    with pytest.raises(
        RegistrationError, match=r"'indexes' is not available yet\. Write them as __indexes__"
    ):
        db.model(type("Memo", (), {"__annotations__": {"a": str}, "__dataflow__": {"indexes": []}}))
