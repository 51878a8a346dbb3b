"""Blocks that are kept whole or not at all, one in another, on every database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus
from nexus.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    NexusError,
    NotFound,
    Retryable,
    TimedOut,
    Unavailable,
    WriteInRead,
)


@pytest.fixture
async def shop(db: DataFlow) -> AsyncIterator[DataFlow]:
    yield db
    await db.close()


async def names(shop: DataFlow) -> list[str]:
    return [record["name"] for record in (await shop.products.list(order_by="id"))["records"]]


async def test_it_is_kept_at_its_end(shop: DataFlow) -> None:
    async with shop.transaction() as tx:
        await shop.products.create(name="a")
        await tx.products.create(name="b")
        assert await names(shop) == ["a", "b"]
    assert await names(shop) == ["a", "b"]


async def test_models_used_inside_for_the_first_time(shop: DataFlow) -> None:
    @shop.model
    class Customer:
        name: str

    async with shop.transaction():
        await shop.products.create(name="a")
        await shop.customers.create(name="Ada")
    assert await shop.customers.count() == {"count": 1}


async def test_nothing_of_it_stays_when_it_raises(shop: DataFlow) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with shop.transaction():
            await shop.products.create(name="a")
            raise RuntimeError("mine")
    assert await names(shop) == []


async def test_an_inner_one_is_undone_alone(shop: DataFlow) -> None:
    async with shop.transaction():
        await shop.products.create(name="a")
        with pytest.raises(RuntimeError):
            async with shop.transaction():
                await shop.products.create(name="b")
                async with shop.transaction():
                    await shop.products.create(name="c")
                raise RuntimeError
        async with shop.transaction():
            await shop.products.create(name="d")
            with pytest.raises(RuntimeError):
                async with shop.transaction():
                    await shop.products.create(name="e")
                    raise RuntimeError
        await shop.products.create(name="f")
    assert await names(shop) == ["a", "d", "f"]


async def test_an_inner_one_that_is_the_first_to_write(shop: DataFlow) -> None:
    async with shop.transaction():
        with pytest.raises(RuntimeError):
            async with shop.transaction():
                await shop.products.create(name="a")
                raise RuntimeError
        await shop.products.create(name="b")
    assert await names(shop) == ["b"]


async def test_after_a_failed_statement_only_the_end_is_possible(shop: DataFlow) -> None:
    with pytest.raises(NexusError, match="can only be rolled back"):
        async with shop.transaction():
            await shop.products.create(id=1, name="a")
            with pytest.raises(Conflict):
                await shop.products.create(id=1, name="b")
            await shop.products.create(id=2, name="c")
    with pytest.raises(NexusError, match="can only be rolled back"):
        async with shop.transaction():
            await shop.products.create(id=1, name="a")
            with pytest.raises(Conflict):
                await shop.products.create(id=1, name="b")
    assert await names(shop) == []


async def test_what_may_fail_goes_into_an_inner_one(shop: DataFlow) -> None:
    async with shop.transaction():
        await shop.products.create(id=1, name="a")
        with pytest.raises(Conflict):
            async with shop.transaction():
                await shop.products.create(id=1, name="b")
        await shop.products.create(id=2, name="c")
    assert await names(shop) == ["a", "c"]


async def test_what_the_database_did_not_see_fail_spoils_nothing(shop: DataFlow) -> None:
    async with shop.transaction():
        with pytest.raises(NotFound):
            await shop.products.get(7)
        await shop.products.create(name="a")
    assert await names(shop) == ["a"]


async def test_tasks_started_inside_take_part(shop: DataFlow) -> None:
    with pytest.raises(RuntimeError):
        async with shop.transaction():
            await asyncio.gather(*(shop.products.create(name=str(n)) for n in range(10)))
            assert await shop.products.count() == {"count": 10}
            raise RuntimeError
    assert await names(shop) == []


async def test_inner_ones_of_several_tasks_do_not_mix(shop: DataFlow) -> None:
    async def one(number: int) -> None:
        async with shop.transaction():
            await shop.products.create(name=str(number))
            await asyncio.sleep(0.001 * (number % 3))
            if number % 2:
                raise RuntimeError

    async with shop.transaction():
        tasks = [asyncio.create_task(one(number)) for number in range(10)]
        plain = [asyncio.create_task(shop.products.create(name="plain")) for _ in range(3)]
        await asyncio.gather(*tasks, *plain, return_exceptions=True)
    assert sorted(await names(shop)) == ["0", "2", "4", "6", "8", "plain", "plain", "plain"]


async def test_waiting_for_the_outer_inside_of_the_inner_does_not_hang(
    shop: DataFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus.block.PATIENCE", 0.1)
    async with shop.transaction():
        waiting = asyncio.create_task(shop.products.create(name="a"))
        async with shop.transaction():
            with pytest.raises(Unavailable, match="inner transaction"):
                await waiting


async def test_a_task_that_outlives_the_block_is_told(shop: DataFlow) -> None:
    ended = asyncio.Event()

    async def late() -> None:
        await ended.wait()
        await shop.products.create(name="late")

    async with shop.transaction() as tx:
        task = asyncio.create_task(late())
    ended.set()
    with pytest.raises(NexusError, match="has ended"):
        await task
    with pytest.raises(NexusError, match="has ended"):
        await tx.products.create(name="late")
    assert (await shop.products.create(name="after"))["name"] == "after"
    assert await names(shop) == ["after"]


async def test_it_can_be_passed_on(shop: DataFlow) -> None:
    """`tx` works where the context does not reach."""
    import contextvars

    with pytest.raises(RuntimeError):
        async with shop.transaction() as tx:
            task = asyncio.get_running_loop().create_task(
                tx.products.create(name="a"), context=contextvars.Context()
            )
            await task
            raise RuntimeError
    assert await names(shop) == []


@pytest.mark.feed
async def test_others_see_it_after_its_end_only(app: Nexus, db: DataFlow) -> None:
    async with app.feed.subscribe(LOCAL, "products") as changes:
        waiting = asyncio.create_task(anext(aiter(changes)))
        async with db.transaction():
            await db.products.create(name="a")
            assert (await app.runtime.invoke("products.count", {}, LOCAL, channel="test")).count == 0
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
        change = await asyncio.wait_for(waiting, 5)
    assert change.run is not None


async def test_one_that_only_reads(shop: DataFlow) -> None:
    await shop.products.create(name="a")
    async with shop.transaction(read_only=True, isolation="repeatable_read"):
        assert await names(shop) == ["a"]
        outside = asyncio.get_running_loop().create_task(
            shop.products.create(name="b"), context=__import__("contextvars").Context()
        )
        await outside
        assert await names(shop) == ["a"]
        with pytest.raises(WriteInRead):
            await shop.products.create(name="c")
    assert await names(shop) == ["a", "b"]


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_isolation_levels(shop: DataFlow, isolation: str) -> None:
    async with shop.transaction(isolation=isolation):  # type: ignore[arg-type]
        await shop.products.create(name="a")
    assert await names(shop) == ["a"]


async def test_terms_that_cannot_be(shop: DataFlow) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'serializable'"):
        shop.transaction(isolation="SERIALISABLE")  # type: ignore[arg-type]
    async with shop.transaction():
        with pytest.raises(InvalidInput, match="outermost"):
            async with shop.transaction(isolation="serializable"):
                pytest.fail("unreachable")
    block = shop.transaction()
    async with block:
        await shop.products.create(name="a")
    with pytest.raises(InvalidInput, match="once"):
        async with block:
            pytest.fail("unreachable")


async def test_a_time_limit_rolls_back(shop: DataFlow) -> None:
    with pytest.raises(TimedOut) as caught:
        async with shop.transaction(timeout=0.1):
            await shop.products.create(name="a")
            await asyncio.sleep(30)
    assert isinstance(caught.value, asyncio.TimeoutError)
    assert await names(shop) == []


async def test_cancelling_rolls_back(shop: DataFlow) -> None:
    written = asyncio.Event()

    async def endless() -> None:
        async with shop.transaction():
            await shop.products.create(name="a")
            written.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(endless())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(shop) == []


async def test_a_transaction_inside_of_an_operation_is_a_part_of_it(app: Nexus, db: DataFlow) -> None:
    @app.operation
    async def several(call: Call) -> None:
        await call.run("products.create", {"name": "a"})
        with pytest.raises(RuntimeError):
            async with db.transaction():
                await db.products.create(name="b")
                raise RuntimeError
        async with db.transaction():
            await db.products.create(name="c")

    await app.runtime.invoke("several", {}, LOCAL, channel="test")
    assert await names(db) == ["a", "c"]


class Rivals:
    """An operation that the database gives up on, a number of times."""

    def __init__(self, app: Nexus, failures: int) -> None:
        self.attempts = 0

        @app.operation
        async def contended(call: Call) -> int:
            self.attempts += 1
            await call.run("products.create", {"name": str(self.attempts)})
            if self.attempts <= failures:
                raise Retryable("deadlock")
            return self.attempts


async def test_what_the_database_gave_up_begins_anew(app: Nexus, db: DataFlow) -> None:
    rivals = Rivals(app, failures=2)
    assert await app.runtime.invoke("contended", {}, LOCAL, channel="test") == 3
    assert await names(db) == ["3"]
    assert rivals.attempts == 3


async def test_not_for_ever(app: Nexus, db: DataFlow) -> None:
    rivals = Rivals(app, failures=99)
    with pytest.raises(Retryable):
        await app.runtime.invoke("contended", {}, LOCAL, channel="test")
    assert rivals.attempts == 3
    began = time.monotonic()
    with pytest.raises((Retryable, TimedOut)):
        await app.runtime.invoke("contended", {}, LOCAL, channel="test", timeout=0.02)
    assert time.monotonic() - began < 1
    assert await names(db) == []


async def test_run_in_transaction_begins_anew(shop: DataFlow) -> None:
    attempts = 0

    async def work(tx: object) -> str:
        nonlocal attempts
        attempts += 1
        await shop.products.create(name=str(attempts))
        if attempts < 3:
            raise Retryable("deadlock")
        return "done"

    assert await shop.run_in_transaction(work) == "done"
    assert await names(shop) == ["3"]
    attempts = -9
    with pytest.raises(Retryable):
        await shop.run_in_transaction(work, retries=1)
    assert attempts == -7


async def test_inside_of_a_transaction_only_the_whole_begins_anew(shop: DataFlow) -> None:
    attempts = 0

    async def inner(tx: object) -> None:
        nonlocal attempts
        attempts += 1
        raise Retryable("deadlock")

    async def outer(tx: object) -> None:
        await shop.run_in_transaction(inner)

    with pytest.raises(Retryable):
        await shop.run_in_transaction(outer, retries=2)
    assert attempts == 3
