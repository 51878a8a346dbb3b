"""What a caller may demand of a write as a whole: to be only tried, and to write so many records at most."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, Session, operation
from nexus.demands import Demands
from nexus.errors import Conflict, InvalidInput, NotFound, TooManyAffected
from nexus_workflows import WorkflowBuilder
from tests.support.programs import run_sql

DRY = Demands(dry_run=True)


async def ask(app: Nexus, name: str, demands: Demands, /, **arguments: Any) -> Any:
    return await app.runtime.invoke(name, arguments, LOCAL, channel="test", demands=demands)


async def stored(app: Nexus) -> list[tuple[str, int]]:
    found = await app.runtime.invoke("products.list", {"order_by": "id"}, LOCAL, channel="test")
    return [(record.name, record.stock) for record in found.records]


@pytest.fixture
async def lamps(app: Nexus) -> None:
    rows = [{"name": f"Lamp {number}", "stock": number} for number in range(5)]
    await app.runtime.invoke("products.bulk_create", {"data": rows}, LOCAL, channel="test")


class TestDryRun:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("create", {"name": "New"}),
            ("update", {"id": 1, "stock": 9}),
            ("update", {"filter": {"name": "Lamp 1"}, "fields": {"$inc": {"stock": 1}}}),
            ("delete", {"id": 1}),
            ("upsert", {"where": {"name": "New"}, "create": {"name": "New"}}),
            ("bulk_create", {"data": [{"name": "a"}, {"name": "b"}]}),
            ("bulk_update", {"filter": {}, "update": {"stock": 0}}),
            ("bulk_delete", {"filter": {}}),
            ("bulk_upsert", {"data": [{"id": 1, "stock": 7}, {"name": "New"}]}),
        ],
    )
    @pytest.mark.usefixtures("lamps")
    async def test_answers_as_if_it_were_kept(self, app: Nexus, name: str, arguments: Any) -> None:
        before = await stored(app)
        tried = await ask(app, f"products.{name}", DRY, **arguments)
        assert await stored(app) == before
        done = await ask(app, f"products.{name}", Demands(), **arguments)
        assert await stored(app) != before
        assert _without_chance(tried) == _without_chance(done)

    async def test_nobody_hears_of_it(self, app: Nexus) -> None:
        async with app.feed.subscribe(LOCAL, "products") as followed:
            await ask(app, "products.create", DRY, name="Tried")
            await ask(app, "products.create", Demands(), name="Kept")
            async with asyncio.timeout(10):
                change = await anext(aiter(followed))
            assert change.record is not None
            assert change.record["name"] == "Kept"

    @pytest.mark.usefixtures("lamps")
    async def test_fails_as_it_would(self, app: Nexus) -> None:
        with pytest.raises(Conflict):
            await ask(app, "products.create", DRY, id=1, name="Again")
        with pytest.raises(NotFound):
            await ask(app, "products.update", DRY, id=99, stock=1)

    async def test_of_a_workflow_is_no_run(self, app: Nexus) -> None:
        flow = WorkflowBuilder("Make two.")
        flow.add_node("ProductCreateNode", "one", {"name": "{{name}}"})
        flow.add_node("ProductUpdateNode", "two", {"id": "{{one.id}}", "fields": {"stock": 5}})
        app.register("two", flow)
        tried = await ask(app, "two", DRY, name="Lamp")
        assert tried.results["two"]["stock"] == 5
        assert await stored(app) == []
        assert (await ask(app, "runs.list", Demands())).records == []
        await ask(app, "two", Demands(), name="Lamp")
        assert await stored(app) == [("Lamp", 5)]

    async def test_what_cannot_be_undone_is_not_begun(self, app: Nexus, db: DataFlow) -> None:
        begun = []

        @operation
        async def apart(call: Call) -> None:
            begun.append(call)

        app.operation(dataclasses.replace(apart, atomic=False))
        waiting = WorkflowBuilder("Wait between two.")
        waiting.add_node("ProductCreateNode", "one", {"name": "a"})
        waiting.add_node("DelayNode", "wait", {"seconds": 0})
        waiting.add_connection("one", "id", "wait", "input")
        app.register("waiting", waiting)
        loose = WorkflowBuilder("Each by itself.")
        loose.add_node("ProductCreateNode", "one", {"name": "a"})
        app.register("loose", loose.build(transaction="none"))
        for name in ("apart", "waiting", "loose"):
            for demands in (DRY, Demands(max_affected=5)):
                with pytest.raises(InvalidInput, match=f"'{name}' cannot have a"):
                    await ask(app, name, demands)
        with pytest.raises(InvalidInput, match=r"'runs\.cancel' cannot"):
            await ask(app, "runs.cancel", DRY, id="0" * 32)
        assert begun == []
        assert await stored(app) == []

    async def test_what_would_be_kept_inside_is_refused(self, app: Nexus, db: DataFlow) -> None:
        @app.operation
        async def outer(call: Call, how: str) -> Any:
            """Write in a way of its own."""
            if how == "door":
                return await call.runtime.invoke("products.create", {"name": how}, LOCAL, channel="test")
            if how == "session":
                return await db.as_session(Session(id="x", user="x")).products.create(name=how)
            if how == "cancel":
                return await call.run("runs.cancel", {"id": "0" * 32})
            async with db.transaction():
                return await db.products.create(name=how)

        flow = WorkflowBuilder("Something that is recorded.")
        flow.add_node("ProductCreateNode", "one", {"name": "a"})
        app.register("recorded", flow)
        for how in ("door", "session", "cancel"):
            with pytest.raises(InvalidInput):
                await ask(app, "outer", DRY, how=how)
        assert (await ask(app, "outer", DRY, how="transaction"))["name"] == "transaction"
        assert await stored(app) == []

    async def test_cannot_be_remembered_or_go_on_alone(self, app: Nexus) -> None:
        with pytest.raises(InvalidInput, match="keeps nothing"):
            await ask(app, "products.create", Demands(dry_run=True, key="k"), name="Lamp")
        assert await stored(app) == []

    async def test_side_by_side_with_others(self, app: Nexus) -> None:
        names = [f"n{number}" for number in range(12)]
        await asyncio.gather(
            *(
                ask(app, "products.create", DRY if number % 2 else Demands(), name=name)
                for number, name in enumerate(names)
            )
        )
        assert sorted(name for name, _ in await stored(app)) == sorted(names[::2])

    @pytest.mark.databases("postgresql")
    async def test_constraints_that_only_a_commit_checks(self, database: str, app: Nexus) -> None:
        await ask(app, "products.create", Demands(), name="Lamp", stock=1)
        await run_sql(
            database,
            "ALTER TABLE products ADD CONSTRAINT one_stock UNIQUE (stock) DEFERRABLE INITIALLY DEFERRED",
        )
        for demands in (DRY, Demands()):
            with pytest.raises(Conflict):
                await ask(app, "products.create", demands, name="Chair", stock=1)
        assert (await ask(app, "products.create", DRY, name="Chair", stock=2)).stock == 2
        assert len(await stored(app)) == 1


@pytest.mark.usefixtures("lamps")
class TestMostAffected:
    @pytest.mark.parametrize(
        ("name", "arguments", "count"),
        [
            ("create", {"name": "New"}, 1),
            ("update", {"id": 1, "stock": 9}, 1),
            ("delete", {"id": 1}, 1),
            ("update", {"filter": {"name": "Lamp 1"}, "fields": {"stock": 8}}, 1),
            ("delete", {"filter": {"name": "Lamp 1"}}, 1),
            ("upsert", {"where": {"name": "New"}, "create": {"name": "New"}}, 1),
            ("bulk_create", {"data": [{"name": "a"}, {"name": "b"}]}, 2),
            ("bulk_update", {"filter": {"stock": {"$gt": 1}}, "update": {"stock": 0}}, 3),
            ("bulk_update", {"filter": {}, "update": {"stock": 0}, "limit": 4}, 4),
            ("bulk_update", {"data": [{"id": 1, "stock": 7}, {"id": 2, "stock": 8}]}, 2),
            ("bulk_delete", {"filter": {}}, 5),
            ("bulk_delete", {"filter": {}, "return_ids": True}, 5),
            ("bulk_upsert", {"data": [{"id": 1, "stock": 7}, {"name": "New"}]}, 2),
        ],
    )
    async def test_bounds_what_is_written(self, app: Nexus, name: str, arguments: Any, count: int) -> None:
        before = await stored(app)
        with pytest.raises(TooManyAffected, match=f"{count} records") as refused:
            await ask(app, f"products.{name}", Demands(max_affected=count - 1), **arguments)
        assert (refused.value.code, refused.value.status) == ("NX-424", 409)
        assert await stored(app) == before
        await ask(app, f"products.{name}", Demands(max_affected=count, dry_run=True), **arguments)
        assert await stored(app) == before
        await ask(app, f"products.{name}", Demands(max_affected=count), **arguments)
        assert await stored(app) != before

    async def test_across_a_workflow(self, app: Nexus) -> None:
        flow = WorkflowBuilder("Change and create.")
        flow.add_node("ProductBulkUpdateNode", "change", {"filter": {}, "update": {"stock": 0}})
        flow.add_node("ProductCreateNode", "make", {"name": "New"})
        flow.add_connection("change", "success_count", "make", "input")
        app.register("both", flow)
        before = await stored(app)
        with pytest.raises(TooManyAffected, match="6 records"):
            await ask(app, "both", Demands(max_affected=5))
        assert await stored(app) == before
        await ask(app, "both", Demands(max_affected=6))
        assert len(await stored(app)) == 6

    async def test_what_was_undone_on_the_way_does_not_count(self, app: Nexus, db: DataFlow) -> None:
        @app.operation
        async def careful(call: Call) -> None:
            """Change all, think better of it, and change one."""
            try:
                async with db.transaction():
                    await db.products.bulk_update(filter={}, update={"stock": 0})
                    raise ValueError
            except ValueError:
                pass
            async with db.transaction():
                await db.products.update(1, stock=42)

        with pytest.raises(TooManyAffected):
            await ask(app, "careful", Demands(max_affected=4))
        await ask(app, "careful", Demands(max_affected=5))
        assert (await stored(app))[0] == ("Lamp 0", 42)

    async def test_a_failure_that_is_caught_lets_nothing_through(self, app: Nexus, db: DataFlow) -> None:
        @app.operation
        async def stubborn(call: Call) -> None:
            """Go on whatever is said."""
            with contextlib.suppress(TooManyAffected):
                await db.products.bulk_update(filter={}, update={"stock": 0})

        before = await stored(app)
        with pytest.raises(TooManyAffected):
            await ask(app, "stubborn", Demands(max_affected=2))
        assert await stored(app) == before

    async def test_statements_of_ones_own_are_not_counted_and_so_refused(
        self, app: Nexus, db: DataFlow
    ) -> None:
        @db.node(internal=False)
        async def wipe(tx: Any) -> None:
            """Empty everything."""
            await tx.query("UPDATE products SET stock = 0")

        before = await stored(app)
        with pytest.raises(InvalidInput, match="is not known"):
            await ask(app, "wipe", Demands(max_affected=100))
        await ask(app, "wipe", DRY)
        assert await stored(app) == before

    async def test_is_a_number_that_is_not_negative(self, app: Nexus) -> None:
        with pytest.raises(InvalidInput, match="negative"):
            await ask(app, "products.create", Demands(max_affected=-1), name="a")
        with pytest.raises(TooManyAffected, match="1 records"):
            await ask(app, "products.create", Demands(max_affected=0), name="a")
        assert (await ask(app, "products.get", Demands(max_affected=0), id=1)).name == "Lamp 0"


def _without_chance(result: Any) -> Any:
    """Without moments, and without keys, which a dry run may use up."""
    plain = msgspec.to_builtins(result)
    if "record" in plain:
        plain |= plain.pop("record")
    chance = ("id", "ids", "created_at", "updated_at", "execution_time")
    return {key: value for key, value in plain.items() if key not in chance}
