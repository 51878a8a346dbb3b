"""Orders and pages: every record once, in the order that was asked for, on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus.errors import InvalidCursor, InvalidFilter
from tests.conftest import Invoke
from tests.support.filters import ENGINES, FLOATS, INTS, MOMENTS, TEXTS, Things, opened

RECORDS = st.fixed_dictionaries(
    {
        "title": st.none() | TEXTS,
        "amount": st.none() | st.sampled_from([0, 1]) | INTS,
        "weight": st.none() | FLOATS,
        "flag": st.none() | st.booleans(),
        "moment": st.none() | MOMENTS,
        "day": st.none() | st.dates(),
    }
)
FIELDS = ["title", "amount", "weight", "flag", "moment", "day", "id"]
ORDERS = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.booleans()), max_size=3, unique_by=lambda pair: pair[0]
)


@pytest.fixture(scope="module", params=ENGINES)
def things(request: pytest.FixtureRequest) -> Iterator[Things]:
    yield from opened(request.param)


def _sorted(records: list[Any], order: list[tuple[str, bool]]) -> list[int]:
    records = sorted(records, key=lambda record: record.id)
    for name, descending in reversed(order):
        records.sort(
            key=lambda record: (
                (value := getattr(record, name)) is not None,
                value if value is not None else 0,
            ),
            reverse=descending,
        )
    return [record.id for record in records]


@given(records=st.lists(RECORDS, max_size=8), order=ORDERS, limit=st.integers(1, 4))
def test_pages_make_up_the_list(
    things: Things, records: list[Any], order: list[tuple[str, bool]], limit: int
) -> None:
    async def check() -> None:
        stored = [await things.invoke("things.create", **record) for record in records]
        order_by = [f"-{name}" if descending else name for name, descending in order]
        sort = [{name: -1 if descending else 1} for name, descending in order]
        where = {"id": {"$gte": 0}}
        try:
            whole = await things.invoke("things.list", filter=where, order_by=order_by)
            assert [record.id for record in whole.records] == _sorted(stored, order)
            paged: list[Any] = []
            cursor: str | None = ""
            while cursor is not None:
                page = await things.invoke("things.list", filter=where, sort=sort, limit=limit, cursor=cursor)
                paged += page.records
                cursor = page.next
                assert len(page.records) == limit or cursor is None
            assert paged == whole.records
        finally:
            for record in stored:
                await things.invoke("things.delete", id=record.id)

    things.run(check())


async def test_a_page_goes_on_where_records_came_and_went(invoke: Invoke) -> None:
    made = [await invoke("products.create", name=name) for name in "bdfh"]
    first = await invoke("products.list", order_by="name", limit=2, cursor="")
    await invoke("products.delete", id=made[1].id)
    await invoke("products.create", name="a")
    await invoke("products.create", name="e")
    rest = await invoke("products.list", order_by="name", limit=9, cursor=first.next)
    assert [record.name for record in rest.records] == ["e", "f", "h"]
    assert rest.next is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"sort": [{"name": 2}]},
        {"sort": [{"name": True}]},
        {"sort": ["name", {"price": 1}]},
        {"sort": "[{"},
        {"sort": '[{"name": 2}]'},
        {"sort": [{"name": 1}], "order_by": "name"},
        {"sort": [{"nmae": 1}]},
        {"order_by": ["name", "-name"]},
        {"order_by": "tags"},
        {"order_by": "name; DROP TABLE products"},
        {"cursor": "", "offset": 3},
    ],
)
async def test_an_order_that_cannot_be_meant_is_refused(invoke: Invoke, arguments: dict[str, Any]) -> None:
    with pytest.raises(Exception) as caught:
        await invoke("products.list", **arguments)
    assert getattr(caught.value, "status", None) == 422, caught.value


@pytest.mark.parametrize(
    "arguments",
    [
        {"sort": "-name,stock"},
        {"sort": ["-name", "stock"]},
        {"sort": [{"name": -1}, {"stock": 1}]},
        {"sort": '[{"name": -1}, {"stock": 1}]'},
        {"order_by": "-name,stock"},
        {"order_by": '["-name", "stock"]'},
    ],
)
async def test_an_order_is_spelt_in_several_ways(invoke: Invoke, arguments: dict[str, Any]) -> None:
    for stock, name in enumerate("baba"):
        await invoke("products.create", name=name, stock=stock)
    listed = await invoke("products.list", **arguments)
    assert [(record.name, record.stock) for record in listed.records] == [
        ("b", 0),
        ("b", 2),
        ("a", 1),
        ("a", 3),
    ]


async def test_a_cursor_belongs_to_one_list(invoke: Invoke) -> None:
    for name in "abc":
        await invoke("products.create", name=name)
    page = await invoke("products.list", order_by="name", limit=1, cursor="")
    for arguments in (
        {"order_by": "-name", "cursor": page.next},
        {"order_by": "name", "cursor": page.next, "filter": {"stock": 0}},
        {"order_by": "name", "cursor": page.next[:-3]},
        {"order_by": "name", "cursor": "%%%"},
        {"order_by": "name", "cursor": "é"},
        {"order_by": "name", "cursor": "x" * 20_000},
    ):
        with pytest.raises(InvalidCursor):
            await invoke("products.list", **arguments)
    with pytest.raises(InvalidFilter):
        await invoke("products.list", cursor=page.next, offset=1)
