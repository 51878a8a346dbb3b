"""The direct face: the same operations and rules, as methods."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Effect, Nexus, Operation, Session, operation
from nexus.errors import (
    Forbidden,
    InvalidArguments,
    InvalidInput,
    NexusError,
    NotFound,
    TimedOut,
    WriteInRead,
)
from nexus.results import Result

READER = Session(id="s1", user="ada", scopes=frozenset({"products.list", "products.get"}))


@pytest.fixture
async def shop(db: DataFlow):  # type: ignore[no-untyped-def]
    """A DataFlow that stands alone."""
    yield db
    await db.close()


async def test_a_record_from_its_creation_to_its_end(shop: DataFlow) -> None:
    made = await shop.products.create(name="Lamp", price=9.5)
    assert (made["id"], made["name"], made["price"], made["tags"]) == (1, "Lamp", 9.5, [])
    assert isinstance(made["created_at"], datetime.datetime)
    assert await shop.products.get(1) == made == await shop.products.get(id=1)
    assert (await shop.products.update(1, stock=3))["stock"] == 3
    assert (await shop.products.update(1, fields={"$inc": {"stock": 4}}))["stock"] == 7
    listed = await shop.products.list(filter={"stock": {"$gt": 5}})
    assert [record["name"] for record in listed["records"]] == ["Lamp"]
    assert await shop.products.count() == {"count": 1}
    assert await shop.products.delete(1) == {"deleted": 1, "id": 1}
    with pytest.raises(NotFound):
        await shop.products.get(1)


async def test_results_also_answer_data_and_result(shop: DataFlow) -> None:
    made = await shop.products.create(name="Lamp")
    assert made["data"] is made
    assert made.get("result") is made
    listed = await shop.products.list()
    assert listed["data"] == listed["result"] == listed["records"] == [made]
    assert "data" in listed, "programs ask before they use it"
    assert "data" not in list(listed)
    assert "nothing" not in listed
    assert listed.get("nothing", 7) == 7
    with pytest.raises(KeyError):
        listed["nothing"]


def test_a_key_that_is_there_comes_first() -> None:
    assert Result(data=1, records=[2])["data"] == 1
    assert Result(data=1, records=[2])["result"] == [2]


async def test_what_is_misspelt_is_named(shop: DataFlow) -> None:
    with pytest.raises(AttributeError, match="Did you mean 'products'"):
        shop.prodcts  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'create'"):
        shop.products.crate  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'Product'"):
        shop.model_face("Prodct")
    with pytest.raises(InvalidArguments, match="Did you mean 'name'"):
        await shop.products.create(nam="Lamp")
    with pytest.raises(TypeError, match="arguments with names"):
        await shop.products.list({"name": "Lamp"})
    with pytest.raises(TypeError, match="one id"):
        await shop.products.get(1, 2)


async def test_a_model_whose_route_is_taken_has_its_face(shop: DataFlow) -> None:
    @shop.model
    class Thing:
        __dataflow__ = {"route": "models"}
        name: str

    assert "Thing" in shop.models
    for name in ("Thing", "models", "things"):
        assert shop.model_face(name).create.operation.name == "models.create"
    assert (await shop.model_face("Thing").create(name="x"))["id"] == 1
    assert dir(shop.products) == sorted(shop.runtime.registry.verbs("products"))
    assert {"count", "create", "bulk_create", "upsert"} < set(dir(shop.products))


async def test_operations_that_come_later_are_there(shop: DataFlow) -> None:
    async def restock(call: Call, arguments: object) -> dict[str, int]:
        return {"restocked": 3}

    shop.runtime.registry.add(
        Operation("products.restock", restock, resource="products", verb="restock", effect=Effect.UPDATE)
    )
    assert await shop.products.restock() == {"restocked": 3}


async def test_it_runs_with_the_rights_of_its_session(shop: DataFlow) -> None:
    await shop.products.create(name="Lamp")
    ada = shop.as_session(READER)
    assert (await ada.products.get(1))["name"] == "Lamp"
    with pytest.raises(Forbidden, match=r"ada.*products.create"):
        await ada.products.create(name="Chair")
    with pytest.raises(Forbidden, match="may not use"):
        async with ada.transaction():
            await shop.products.create(name="Chair")
    assert await shop.products.count() == {"count": 1}


async def test_a_tenant_is_chosen_by_trusted_code(shop: DataFlow) -> None:
    @shop.model
    class Note:
        __dataflow__ = {"multi_tenant": True}
        text: str

    with pytest.raises(Forbidden):
        await shop.notes.create(text="x")
    with shop.tenant("acme"):
        await shop.notes.create(text="x")
        async with shop.transaction():
            assert await shop.notes.count() == {"count": 1}
    bound = shop.as_session(Session(id="s", user="ada", scopes=frozenset("*"), tenant="other"))
    assert await bound.notes.count() == {"count": 0}
    with pytest.raises(Forbidden, match="another tenant"), shop.tenant("acme"):
        await bound.notes.count()


@pytest.mark.feed
async def test_an_attached_one_uses_the_application(app: Nexus, db: DataFlow) -> None:
    await db.products.create(name="before")
    assert db.runtime is app.runtime
    async with app.feed.subscribe(LOCAL, "products") as changes:
        waiting = asyncio.ensure_future(anext(aiter(changes)))
        await asyncio.sleep(0.1)
        await db.products.create(name="Lamp")
        change = await asyncio.wait_for(waiting, 0.9)
    assert change.record is not None
    assert (change.record["name"], change.actor) == ("Lamp", "local")


async def test_inside_an_operation_it_is_a_part_of_it(app: Nexus, db: DataFlow) -> None:
    @app.operation
    async def pair(call: Call) -> None:
        await call.run("products.create", {"name": "first"})
        await db.products.create(name="second")
        raise NexusError("no")

    with pytest.raises(NexusError, match="no"):
        await app.runtime.invoke("pair", {}, LOCAL, channel="test")
    assert await db.products.count() == {"count": 0}


async def test_inside_an_operation_it_has_the_rights_of_its_caller(app: Nexus, db: DataFlow) -> None:
    @operation(effect=Effect.READ, permission="products.list")
    async def peek(call: Call) -> None:
        await db.products.create(name="Lamp")

    app.operation(peek)
    with pytest.raises(Forbidden):
        await app.runtime.invoke("peek", {}, READER, channel="test")
    with pytest.raises(WriteInRead):
        await app.runtime.invoke("peek", {}, LOCAL, channel="test")
    assert await db.products.count() == {"count": 0}


async def test_another_session_inside_of_a_transaction_is_refused(shop: DataFlow) -> None:
    with pytest.raises(InvalidInput, match="belongs to 'local'"):
        async with shop.transaction():
            await shop.as_session(READER).products.list()


async def test_a_time_limit(shop: DataFlow) -> None:
    async def slow(call: Call, arguments: object) -> None:
        await asyncio.sleep(60)

    shop.runtime.registry.add(Operation("products.slow", slow, resource="products", verb="slow"))
    with pytest.raises(TimedOut):
        await shop.within(0.05).products.slow()


async def test_install_makes_the_tables_on_purpose(shop: DataFlow) -> None:
    assert await shop.install() == ["products"]
    assert await shop.install() == ["products"]
    assert await shop.products.count() == {"count": 0}
