"""One record, by its id, by a filter, or by some of its fields."""

from __future__ import annotations

from typing import Any

import pytest

from nexus.errors import Conflict, InvalidArguments, NotFound
from tests.conftest import Invoke


@pytest.fixture
async def lamps(invoke: Invoke) -> None:
    rows = [{"name": n, "price": p} for n, p in (("a", 1), ("b", 2), ("a", 3))]
    await invoke("products.bulk_create", data=rows)


@pytest.mark.usefixtures("lamps")
async def test_read(invoke: Invoke) -> None:
    assert (await invoke("products.get", filter={"price": {"$gt": 1}})).id == 2
    assert (await invoke("products.get", conditions={"id": 3})).price == 3.0
    assert (await invoke("products.get", name="a", price=3)).id == 3
    nothing = await invoke("products.get", filter={"name": "zzz"})
    assert (nothing.id, nothing.name, nothing.created_at) == (None, None, None)
    assert (await invoke("products.get", id=9, return_null_if_not_found=True)).id is None
    assert (await invoke("products.get", id=9, raise_on_not_found=False)).id is None
    with pytest.raises(NotFound, match="No record of products matches"):
        await invoke("products.get", name="zzz", raise_on_not_found=True)
    with pytest.raises(NotFound, match="the id 9"):
        await invoke("products.get", id=9)


@pytest.mark.usefixtures("lamps")
@pytest.mark.parametrize(
    "shape",
    [
        {"filter": {"name": "b"}, "fields": {"price": 7, "note": "x"}},
        {"conditions": {"name": "b"}, "updates": {"$inc": {"price": 5}, "note": "x"}},
        {"filter": {"id": 2}, "price": 7, "note": "x"},
        {"id": 2, "price": 7, "updates": {"note": "x"}},
    ],
)
async def test_update(invoke: Invoke, shape: dict[str, Any]) -> None:
    changed = await invoke("products.update", **shape)
    assert (changed.id, changed.price, changed.note) == (2, 7.0, "x")
    assert await invoke("products.get", id=2) == changed


@pytest.mark.usefixtures("lamps")
async def test_it_is_about_one_record(invoke: Invoke) -> None:
    for verb, arguments in (("update", {"stock": 1}), ("delete", {})):
        with pytest.raises(NotFound, match="No record"):
            await invoke(f"products.{verb}", filter={"name": "zzz"}, **arguments)
        with pytest.raises(Conflict, match=f"products.bulk_{verb}"):
            await invoke(f"products.{verb}", filter={"name": "a"}, **arguments)
    gone = await invoke("products.delete", conditions={"name": "b"})
    assert (gone.deleted, gone.id) == (1, 2)
    assert (await invoke("products.count")).count == 2
    assert (await invoke("products.count", filter={"stock": 1})).count == 0


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("get", {}, "missing argument 'id'"),
        ("delete", {}, "missing argument 'id'"),
        ("update", {"stock": 1}, "missing argument 'id'"),
        ("get", {"id": 1, "filter": {"name": "a"}}, "'id' and 'filter' both"),
        ("get", {"id": 1, "name": "a"}, "'id' and the fields both"),
        ("delete", {"filter": {}}, "is empty"),
        ("delete", {"id": 1, "read_preference": "primary"}, "'read_preference' is not available yet"),
        ("list", {"streaming": True}, "'streaming' is for the node of a workflow"),
        ("update", {"filter": {"id": 1}, "conditions": {"id": 1}, "stock": 1}, "both"),
        ("update", {"id": 1, "fields": {"stock": 1}, "updates": {"stock": 2}}, "'stock' is given twice"),
        ("get", {"name": "zzz", "raise_on_not_found": True, "return_null_if_not_found": True}, "contradict"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    invoke: Invoke, verb: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArguments, match=words):
        await invoke(f"products.{verb}", **arguments)
