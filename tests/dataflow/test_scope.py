"""Tenants, soft deletion and versions: what a session may see, on every path to the records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, Session
from nexus.errors import Conflict, Forbidden, InvalidArguments, NotFound
from nexus_workflows import WorkflowBuilder

ACME = Session(id="a", user="ada", scopes=frozenset({"*"}), tenant="acme")
OTHER = Session(id="o", user="otto", scopes=frozenset({"*"}), tenant="other")


class Client:
    """Runs operations as one session."""

    def __init__(self, app: Nexus, session: Session) -> None:
        self.app = app
        self.session = session

    async def __call__(self, name: str, /, **arguments: Any) -> Any:
        return await self.app.runtime.invoke(name, arguments, self.session, channel="test")


@pytest.fixture
async def app(database: str) -> AsyncIterator[Nexus]:
    db = DataFlow(database)

    @db.model
    class Order:
        item: str
        amount: int = 1
        number: str | None = None
        __dataflow__ = {"multi_tenant": True}
        __indexes__ = [{"fields": ["number"], "unique": True}]

    @db.model
    class Note:
        text: str
        __dataflow__ = {"soft_delete": True, "versioned": True}

    made = Nexus(db)
    async with made.running():
        yield made


async def test_a_record_of_another_tenant_is_not_there(app: Nexus) -> None:
    acme, other = Client(app, ACME), Client(app, OTHER)
    made = await acme("orders.create", item="lamp")
    assert made.tenant_id == "acme"
    await other("orders.create", item="pen")
    assert [r.item for r in (await acme("orders.list")).records] == ["lamp"]
    assert (await other("orders.count", filter={"$or": [{"item": "lamp"}, {"amount": 1}]})).count == 1
    assert (await other("orders.list", filter={"tenant_id": "acme"})).records == []
    assert (await other("orders.list", filter={"$nor": [{"item": "x"}]})).count == 1
    for name, arguments in (
        ("orders.get", {}),
        ("orders.update", {"item": "mine"}),
        ("orders.update", {"fields": {"$inc": {"amount": 1}}}),
        ("orders.delete", {}),
    ):
        with pytest.raises(NotFound):
            await other(name, id=made.id, **arguments)
    assert await acme("orders.get", id=made.id) == made


async def test_the_tenant_is_never_an_argument(app: Nexus) -> None:
    acme = Client(app, ACME)
    await acme("orders.create", item="lamp")
    for name, arguments in (
        ("orders.create", {"item": "x", "tenant_id": "other"}),
        ("orders.update", {"id": 1, "tenant_id": "other"}),
        ("orders.update", {"id": 1, "fields": {"tenant_id": "other"}}),
    ):
        with pytest.raises(InvalidArguments):
            await acme(name, **arguments)


async def test_what_is_unique_is_so_for_each_tenant(app: Nexus) -> None:
    acme, other = Client(app, ACME), Client(app, OTHER)
    await acme("orders.create", item="lamp", number="1")
    await other("orders.create", item="pen", number="1")
    made = await other("orders.upsert", where={"number": "1"}, create={"item": "x"}, update={"item": "pens"})
    assert (made.created, made.record.item, made.record.tenant_id) == (False, "pens", "other")
    with pytest.raises(Conflict, match="number"):
        await acme("orders.create", item="again", number="1")


async def test_many_at_once_are_the_tenants_own(app: Nexus) -> None:
    acme, other = Client(app, ACME), Client(app, OTHER)
    await acme("orders.bulk_create", data=[{"item": "lamp"}, {"item": "pen"}])
    assert (await other("orders.bulk_update", filter={}, update={"amount": 9}, confirmed=True)).updated == 0
    assert (await other("orders.bulk_delete", filter={}, confirmed=True)).deleted == 0
    assert (await other("orders.aggregate", aggregate={"n": {"$sum": "$amount"}})).records == []
    assert (await acme("orders.aggregate", aggregate={"n": {"$sum": "$amount"}})).records == [{"n": 2}]


async def test_rows_by_id_reach_the_tenants_own_only(app: Nexus) -> None:
    acme, other = Client(app, ACME), Client(app, OTHER)
    ids = (await acme("orders.bulk_create", data=[{"item": "lamp"}, {"item": "pen"}], return_ids=True)).ids
    rows = [{"id": key, "item": "mine", "amount": 9} for key in ids]
    with pytest.raises(NotFound, match=r"\(data 0\)"):
        await other("orders.bulk_update", data=rows)
    for resolution in ("update", "skip"):
        with pytest.raises(Conflict, match="same id"):
            await other("orders.bulk_upsert", data=rows, conflict_resolution=resolution)
    assert [r.item for r in (await acme("orders.list", order_by="id")).records] == ["lamp", "pen"]
    done = await acme("orders.bulk_upsert", data=[*rows, {"id": 50, "item": "new", "amount": 2}])
    assert (done.created, done.updated) == (1, 2)
    assert (await acme("orders.bulk_update", data=[{"id": 50, "amount": 3}])).updated == 1
    listed = (await acme("orders.list", order_by="id")).records
    assert [(r.item, r.amount, r.tenant_id) for r in listed] == [
        ("mine", 9, "acme"),
        ("mine", 9, "acme"),
        ("new", 3, "acme"),
    ]


async def test_rows_by_id_do_not_reach_what_is_softly_deleted(app: Nexus) -> None:
    run = Client(app, LOCAL)
    await run("notes.bulk_create", data=[{"text": "a"}, {"text": "b"}])
    await run("notes.delete", id=2)
    rows = [{"id": 1, "text": "x"}, {"id": 2, "text": "y"}]
    with pytest.raises(NotFound, match=r"the id 2 \(data 1\)"):
        await run("notes.bulk_update", data=rows)
    with pytest.raises(Conflict, match="same id"):
        await run("notes.bulk_upsert", data=rows)
    assert (await run("notes.get", id=1)).text == "a"
    assert (await run("notes.bulk_update", data=rows, include_deleted=True)).updated == 2
    assert (await run("notes.bulk_upsert", data=rows, include_deleted=True)).updated == 2
    listed = (await run("notes.list", order_by="id", include_deleted=True)).records
    assert [(r.text, r.version) for r in listed] == [("x", 3), ("y", 4)]


async def test_without_a_tenant_nothing_is_there(app: Nexus) -> None:
    local = Client(app, LOCAL)
    for name, arguments in (
        ("orders.create", {"item": "x"}),
        ("orders.get", {"id": 1}),
        ("orders.list", {}),
        ("orders.count", {}),
        ("orders.aggregate", {"aggregate": {"n": {"$count": {}}}}),
        ("orders.upsert", {"where": {"item": "x"}, "create": {}, "update": {"amount": 1}}),
        ("orders.bulk_create", {"data": [{"item": "x"}]}),
        ("orders.bulk_update", {"filter": {}, "update": {"amount": 1}, "confirmed": True}),
        ("orders.bulk_delete", {"filter": {}, "confirmed": True}),
        ("orders.bulk_upsert", {"data": [{"id": 1, "item": "x"}]}),
        ("orders.update", {"id": 1, "item": "x"}),
        ("orders.delete", {"id": 1}),
    ):
        with pytest.raises(Forbidden, match=r"db\.tenant"):
            await local(name, **arguments)


async def test_trusted_code_chooses_a_tenant(app: Nexus) -> None:
    local, acme = Client(app, LOCAL), Client(app, ACME)
    with DataFlow.tenant("acme"):
        await local("orders.create", item="lamp")
        assert (await acme("orders.count")).count == 1
        with pytest.raises(Forbidden, match="another tenant than 'acme'"):
            await Client(app, OTHER)("orders.count")
        with pytest.raises(Forbidden, match="no other"), DataFlow.tenant("other"):
            pass
    with pytest.raises(Forbidden):
        await local("orders.count")


async def test_a_workflow_sees_what_its_caller_sees(app: Nexus) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("OrderCreateNode", "make", {"item": "lamp"})
    workflow.add_node("OrderCountNode", "count", {})
    workflow.add_connection("make", "id", "count", "input")
    app.register("both", workflow)
    await Client(app, OTHER)("orders.create", item="pen")
    assert (await Client(app, ACME)("both")).results["count"] == {"count": 1}


@pytest.mark.feed
async def test_the_feed_shows_each_tenant_its_own(app: Nexus) -> None:
    with pytest.raises(Forbidden):
        app.feed.subscribe(LOCAL, "orders")
    await Client(app, OTHER)("orders.create", item="earlier")
    async with app.feed.subscribe(ACME, "orders", filter={"amount": 1}, snapshot=True) as followed:
        assert followed.records == []
        await Client(app, OTHER)("orders.create", item="unseen")
        await Client(app, OTHER)("orders.delete", id=1)
        await Client(app, ACME)("orders.create", item="seen")
        change = await anext(aiter(followed))
    assert change.record is not None
    assert (change.record["item"], change.record["tenant_id"], change.actor) == ("seen", "acme", "ada")


async def test_what_is_softly_deleted_is_gone_until_asked_for(app: Nexus) -> None:
    local = Client(app, LOCAL)
    made = await local("notes.create", text="a")
    await local("notes.create", text="b")
    assert (made.deleted_at, made.version) == (None, 1)
    await local("notes.delete", id=made.id)
    for name in ("notes.get", "notes.delete"):
        with pytest.raises(NotFound):
            await local(name, id=made.id)
    with pytest.raises(NotFound):
        await local("notes.update", id=made.id, text="c")
    assert [r.text for r in (await local("notes.list")).records] == ["b"]
    assert (await local("notes.count", filter={"text": {"$in": ["a", "b"]}})).count == 1
    kept = await local("notes.get", id=made.id, include_deleted=True)
    assert kept.deleted_at == kept.updated_at > made.updated_at
    assert kept.version == 2
    assert (await local("notes.count", include_deleted=True)).count == 2
    assert (await local("notes.count", filter={"deleted_at": {"$null": False}})).count == 1
    assert (await local("notes.update", id=made.id, text="c", include_deleted=True)).text == "c"
    await local("notes.delete", id=made.id, include_deleted=True, soft_delete=False)
    assert (await local("notes.count", include_deleted=True)).count == 1


@pytest.mark.feed
async def test_a_soft_deletion_is_a_leave(app: Nexus) -> None:
    local = Client(app, LOCAL)
    async with app.feed.subscribe(LOCAL, "notes") as followed:
        await local("notes.create", text="a")
        await local("notes.delete", id=1)
        await local("notes.delete", id=1, include_deleted=True, soft_delete=False)
        await local("notes.create", text="b")
        changes = aiter(followed)
        seen = [await anext(changes) for _ in range(3)]
    assert [(change.event, change.key) for change in seen] == [("enter", 1), ("leave", 1), ("enter", 2)]


async def test_a_version_that_is_not_the_stored_one_is_a_conflict(app: Nexus) -> None:
    local = Client(app, LOCAL)
    await local("notes.create", text="a")
    assert (await local("notes.update", id=1, text="b", version=1)).version == 2
    with pytest.raises(Conflict, match="not at version 1 any more"):
        await local("notes.update", id=1, text="c", version=1)
    with pytest.raises(NotFound):
        await local("notes.update", id=9, text="c", version=1)
    assert (await local("notes.get", id=1)).text == "b"


async def test_of_many_who_change_one_version_one_succeeds(app: Nexus) -> None:
    local = Client(app, LOCAL)
    await local("notes.create", text="a")
    tries = (local("notes.update", id=1, text=str(n), version=1) for n in range(20))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
    assert (await local("notes.get", id=1)).version == 2


async def test_a_call_of_another_tenant_inside_a_call_is_not_possible(app: Nexus) -> None:
    @app.operation
    async def peek(call: Call) -> int:
        with DataFlow.tenant("other"):
            return int((await call.run("orders.count", {})).count)

    with pytest.raises(Forbidden):
        await Client(app, ACME)("peek")
