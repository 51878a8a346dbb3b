"""Writes that are repeated under an idempotency key are done once, on every database."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus, Session, Settings
from nexus import keys as keys_module
from nexus.demands import Demands, Noted
from nexus.errors import (
    Conflict,
    Forbidden,
    InvalidArguments,
    InvalidInput,
    KeyInFlight,
    KeyReused,
    NexusError,
    NotFound,
    TooLarge,
)
from nexus.keys import REPLIES
from nexus.operation import Effect, Operation
from nexus.session import ALL
from tests.support.programs import kind_of, run_sql

CREATE = "products.create"
LAMP = {"name": "Lamp", "price": 9.5}


class Shop:
    """An application, and who writes in it."""

    def __init__(self, db: DataFlow, **settings: Any) -> None:
        self.db = db
        self.app = Nexus(db, settings=Settings(**settings))

    async def ask(self, name: str, key: str | None, session: Session = LOCAL, /, **given: Any) -> Any:
        demands = None if key is None else Demands(key=key)
        return await self.app.runtime.invoke(name, given, session, channel="test", demands=demands)

    async def both(self, name: str, key: str, /, **given: Any) -> tuple[Any, Any]:
        """The answers to a request and to its repetition, of which only the second is told to be one."""
        answers: list[Any] = []
        for replayed in (False, True):
            noted = Noted()
            answers.append(
                await self.app.runtime.invoke(
                    name, given, LOCAL, channel="test", demands=Demands(key=key), noted=noted
                )
            )
            assert noted.replayed is replayed
        assert msgspec.json.encode(answers[0]) == msgspec.json.encode(answers[1])
        return answers[0], answers[1]

    async def names(self) -> list[str]:
        return [record["name"] for record in (await self.db.products.list(order_by="id"))["records"]]

    async def kept(self) -> list[dict[str, Any]]:
        return await self.db.replies.records.find(REPLIES, limit=100)


@pytest.fixture
async def shop(db: DataFlow) -> AsyncIterator[Shop]:
    made = Shop(db)
    async with made.app.running():
        yield made


async def settled(*work: Any) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


async def test_every_kind_of_write_is_done_once(shop: Shop) -> None:
    first, second = await shop.both(CREATE, "k", **LAMP)
    assert type(first) is type(second)
    assert first == second
    await shop.both("products.update", "k", id=first.id, fields={"stock": {"$inc": 5}})
    where = {"where": {"name": "Pen"}, "create": {"name": "Pen"}, "update": {"stock": 1}}
    pen, _ = await shop.both("products.upsert", "k", **where)
    assert pen.created
    rows = [{"name": f"n{number}"} for number in range(3)]
    made, _ = await shop.both("products.bulk_create", "k", data=rows, return_ids=True)
    await shop.both(
        "products.bulk_update",
        "k",
        filter={"id": {"$in": made.ids}},
        fields={"stock": {"$inc": 1}},
        confirmed=True,
    )
    await shop.both("products.delete", "k", id=made.ids[0])
    await shop.both("products.bulk_delete", "k", filter={"id": {"$in": made.ids}}, confirmed=True)
    records = (await shop.db.products.list(order_by="id"))["records"]
    assert [(record["name"], record["stock"]) for record in records] == [("Lamp", 5), ("Pen", 0)]


async def test_a_repetition_writes_no_change(shop: Shop) -> None:
    head = await shop.db.changes.head("products")
    await shop.both(CREATE, "k", **LAMP)
    await shop.db.changes.head("products")  # what there is gets its number
    changes = await shop.db.changes.read(head.pos, 100)
    assert [change.record and change.record["name"] for change in changes] == ["Lamp"]
    assert (changes[0].actor, changes[0].session) == ("local", "local")


async def test_another_input_is_refused(shop: Shop) -> None:
    await shop.ask(CREATE, "k", **LAMP)
    with pytest.raises(KeyReused, match="'k'"):
        await shop.ask(CREATE, "k", name="Lamp")
    await shop.ask(CREATE, "k", price=9.5, name="Lamp")  # the same in another order
    assert await shop.names() == ["Lamp"]
    for given in (
        b'{"name": "Pen", "price": 1e1}',
        b'{ "price":10.0,"name":"P\\u0065n"}',
        {"name": "Pen", "price": 10.0},
    ):
        await shop.app.runtime.invoke(CREATE, given, LOCAL, channel="test", demands=Demands(key="bytes"))
    assert await shop.names() == ["Lamp", "Pen"]


async def test_what_fails_leaves_its_key_free(shop: Shop) -> None:
    with pytest.raises(NotFound):
        await shop.ask("products.update", "k", id=1, stock=1)
    with pytest.raises(InvalidArguments):
        await shop.ask("products.update", "k", id="x")
    await shop.ask(CREATE, None, id=1, **LAMP)
    with pytest.raises(Conflict):
        await shop.ask(CREATE, "k", id=1, name="Pen")
    await shop.both("products.update", "k", id=1, stock=7)
    await shop.both(CREATE, "k", id=2, name="Pen")
    assert [row["operation"] for row in await shop.kept()] != []
    assert await shop.names() == ["Lamp", "Pen"]


async def test_a_key_belongs_to_session_operation_and_tenant(shop: Shop) -> None:
    ann = Session("s-ann", "ann", frozenset({ALL}))
    acme = Session("s-acme", "ann", frozenset({ALL}), tenant="acme")
    other = Session("s-acme", "ann", frozenset({ALL}), tenant="other")
    for session in (LOCAL, ann, acme, other):
        for _ in range(2):
            await shop.ask(CREATE, "k", session, name=session.id + (session.tenant or ""))
    assert await shop.names() == ["local", "s-ann", "s-acmeacme", "s-acmeother"]
    for tenant in ("a", "b", "a"):
        with shop.db.tenant(tenant):
            await shop.ask(CREATE, "t", name="same")
    assert (await shop.names()).count("same") == 2
    assert (await shop.ask("products.delete", "k", id=1)).deleted == 1  # another operation, the same key


async def test_a_repetition_is_not_compared_with_what_the_first_has_made(shop: Shop) -> None:
    """With `if_match` a repetition would find the record in another state: its own."""
    lamp = await shop.ask(CREATE, None, **LAMP)
    operation = shop.app.registry["products.update"]
    assert operation.tag is not None
    tag = operation.tag(lamp, msgspec.json.encode(lamp))

    async def update(stock: int, if_match: str | None) -> Any:
        given, demands = {"id": lamp.id, "stock": stock}, Demands(key="k", if_match=if_match)
        return await shop.app.runtime.invoke("products.update", given, LOCAL, channel="test", demands=demands)

    assert await update(3, tag) == await update(3, tag)
    for stock, if_match in ((4, tag), (3, None), (3, "*")):
        with pytest.raises(KeyReused):
            await update(stock, if_match)


async def test_permission_comes_before_the_answer(shop: Shop) -> None:
    may = Session("s", "ann", frozenset({CREATE}))
    await shop.ask(CREATE, "k", may, **LAMP)
    with pytest.raises(Forbidden):
        await shop.ask(CREATE, "k", Session("s", "ann", frozenset({"products.list"})), **LAMP)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\0"])
async def test_what_cannot_be_a_key(shop: Shop, key: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 255"):
        await shop.ask(CREATE, key, **LAMP)
    assert await shop.names() == []


async def test_keys_are_compared_exactly(shop: Shop) -> None:
    for key in ("k", "K", "k ", "\u00e9", "e\u0301"):
        await shop.ask(CREATE, key, name="x")
    assert len(await shop.names()) == 5


async def test_what_reads_ignores_a_key(shop: Shop) -> None:
    assert (await shop.ask("products.count", "k")).count == 0
    await shop.ask(CREATE, None, **LAMP)
    assert (await shop.ask("products.count", "k")).count == 1


async def test_in_flight_is_refused_at_once(shop: Shop) -> None:
    answers = await settled(*(shop.ask(CREATE, "k", **LAMP) for _ in range(10)))
    refused = [answer for answer in answers if isinstance(answer, KeyInFlight)]
    assert (len(refused), refused[0].status) == (9, 409)
    assert await shop.names() == ["Lamp"]
    await shop.ask(CREATE, "k", **LAMP)
    assert await shop.names() == ["Lamp"]


@pytest.mark.databases("file", "postgresql", "mysql", "mysql-without-returning")
async def test_in_flight_elsewhere(shop: Shop, database: str) -> None:
    """Another application on the same database: on a server it is refused at once, on a file it waits for the
    only writer, and has the answer."""
    other = Shop(shop_on(database))
    going_on, go_on = asyncio.Event(), asyncio.Event()

    @shop.app.operation
    async def slow(call: Call) -> dict[str, int]:
        made = await shop.db.products.create(name="slow")
        going_on.set()
        await go_on.wait()
        return {"id": made["id"]}

    @other.app.operation
    async def slow(call: Call) -> dict[str, int]:  # noqa: F811
        raise AssertionError("it is done once")

    async with other.app.running():
        first = asyncio.create_task(shop.ask("slow", "k"))
        await going_on.wait()
        second = asyncio.create_task(other.ask("slow", "k"))
        if kind_of(database) == "sqlite":
            await asyncio.sleep(0.1)
            assert not second.done()
            go_on.set()
            assert await second == await first
        else:
            with pytest.raises(KeyInFlight):
                await second
            go_on.set()
            await first
            assert await other.ask("slow", "k") == await first
        assert await other.ask(CREATE, "k2", name="b")  # the lock ends with the transaction
        assert await shop.ask(CREATE, "k2", name="b")
    assert await shop.names() == ["slow", "b"]


def shop_on(database: str) -> DataFlow:
    db = DataFlow(database)

    @db.model
    class Product:
        name: str
        price: float = 0.0
        stock: int = 0
        on_sale: bool = False
        note: str | None = None
        tags: list[str] = []

    return db


async def test_an_answer_expires(db: DataFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(db, idempotency_hours=2)
    async with shop.app.running():
        await shop.ask(CREATE, "k", name="a")
        real = keys_module.now
        monkeypatch.setattr(keys_module, "now", lambda later=0.0: real(later + 2 * 3600 - 60))
        await shop.ask(CREATE, "k", name="a")
        assert await shop.names() == ["a"]
        monkeypatch.setattr(keys_module, "now", lambda later=0.0: real(later + 2 * 3600 + 1))
        await shop.both(CREATE, "k", name="b")  # as if it had never been
        assert await shop.names() == ["a", "b"]
        assert len(await shop.kept()) == 1


async def test_what_has_expired_is_deleted_now_and_then(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await shop.ask(CREATE, f"k{number}", name="a")
    real = keys_module.now
    monkeypatch.setattr(keys_module, "now", lambda later=0.0: real(later + 25 * 3600))
    monkeypatch.setattr(keys_module, "_PRUNED_EACH", 1)
    shop.app.runtime.keys._prune_next = 0.0
    await shop.ask(CREATE, "new", name="a")
    (left,) = await shop.kept()
    assert left["created"] > real(24 * 3600)
    assert len(await shop.names()) == 6


@pytest.mark.parametrize("hours", [0, -1, 24 * 367, float("nan")])
def test_how_long_answers_are_kept_is_checked(hours: float) -> None:
    with pytest.raises(NexusError, match="NEXUS_IDEMPOTENCY_HOURS"):
        Settings(idempotency_hours=hours)
    assert Settings.from_environment({"NEXUS_IDEMPOTENCY_HOURS": "0.5"}).idempotency_hours == 0.5


async def test_answers_of_every_type_come_back_to_the_byte(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Thing:
        id: UUID
        text: str
        data: bytes
        when: datetime.datetime
        day: datetime.date
        deep: dict[str, Any]
        number: float

    shop = Shop(db)
    async with shop.app.running():
        first, second = await shop.both(
            "things.create",
            "k",
            text='"é\u2028\x01',
            data=b"\0\xff",
            when=datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
            day=datetime.date(2026, 1, 2),
            deep={"b": [1, None, {"a": 1e300}], "a": "'\\"},
            number=0.1,
        )
        assert first == second

        @shop.app.operation
        async def strange(call: Call) -> Any:
            return {"b": msgspec.Raw(b'{"x" : 1.50}'), "a": float("nan")}

        await shop.both("strange", "k")


async def test_large_answers_are_kept_up_to_a_limit(shop: Shop) -> None:
    _, again = await shop.both(CREATE, "k", name="x" * 3_000_000)
    assert len(again.name) == 3_000_000
    with pytest.raises(TooLarge, match="at most"):
        await shop.ask(CREATE, "k2", name="x" * 4_200_000)
    assert len(await shop.names()) == 1


async def test_own_operations_are_one_transaction(shop: Shop) -> None:
    done: list[str] = []

    @shop.app.operation
    async def restock(call: Call, name: str, fail: bool = False) -> dict[str, Any]:
        """Make two."""
        done.append(name)
        await shop.db.products.create(name=name)
        await shop.db.products.create(name=name + "!")
        if fail:
            raise Conflict("no")
        return {"names": [name], "at": datetime.date(2026, 1, 1)}

    await shop.both("restock", "k", name="a")
    with pytest.raises(Conflict):
        await shop.ask("restock", "f", name="b", fail=True)
    assert await shop.names() == ["a", "a!"]
    assert done == ["a", "b"]

    @shop.db.node(internal=False)
    async def make(inside: Any, name: str) -> str:
        await inside.products.create(name=name)
        return name

    await shop.both("make", "k", name="c")
    assert await shop.names() == ["a", "a!", "c"]

    @shop.app.operation
    async def strange(call: Call) -> Any:
        await shop.db.products.create(name="lost")
        return object()

    with pytest.raises(NexusError, match="JSON cannot hold it"):
        await shop.ask("strange", "k")
    assert await shop.names() == ["a", "a!", "c"]


async def test_an_operation_that_writes_elsewhere_is_refused_and_undone(shop: Shop) -> None:
    other = shop_on(":memory:")

    @shop.app.operation
    async def both(call: Call) -> None:
        await shop.db.products.create(name="here")
        await other.products.create(name="there")

    with pytest.raises(InvalidInput, match="another database"):
        await shop.ask("both", "k")
    assert await shop.names() == []
    assert await other.products.count() == {"count": 0}
    await shop.ask("both", None)
    assert await shop.names() == ["here"]
    await other.close()


async def test_what_is_no_single_transaction_is_refused(shop: Shop) -> None:
    async def work(call: Call, given: Any) -> None:
        raise AssertionError("it is refused")

    shop.app.operation(Operation("loose", work, atomic=False))
    shop.app.operation(Operation("patient", work, waits=True))
    shop.app.operation(Operation("recorded", work, recorded=True, effect=Effect.RUN))
    for name, given in (("loose", {}), ("patient", {}), ("runs.cancel", {"id": "0" * 32})):
        with pytest.raises(InvalidInput, match="not one transaction"):
            await shop.ask(name, "k", **given)


async def test_without_a_database_there_is_nowhere_to_keep_it() -> None:
    app = Nexus()

    @app.operation
    async def greet(call: Call) -> str:
        return "hello"

    with pytest.raises(InvalidInput, match="no database"):
        await app.runtime.invoke("greet", {}, LOCAL, channel="test", demands=Demands(key="k"))


@pytest.mark.databases("file", "postgresql", "mysql", "mysql-without-returning")
async def test_a_database_that_may_not_be_changed(database: str) -> None:
    maker = shop_on(database)
    await maker.install("Product")
    await maker.close()
    for options, remedy in (({"existing_schema_mode": True}, "Look whether"), ({}, "nexus install")):
        db = DataFlow(database, auto_migrate=False, **options)

        @db.model
        class Product:
            name: str
            price: float = 0.0
            stock: int = 0
            on_sale: bool = False
            note: str | None = None
            tags: list[str] = []

        shop = Shop(db, record_runs=False)
        async with shop.app.running():
            with pytest.raises(InvalidInput, match=remedy):
                await shop.ask(CREATE, "k", **LAMP)
            assert await shop.names() == []
            if not options:
                await db.install()
                await shop.both(CREATE, "k", **LAMP)
                assert await shop.names() == ["Lamp"]


@pytest.mark.databases("postgresql", "mysql", "mysql-without-returning")
async def test_a_deadlock_is_begun_anew_under_its_key(shop: Shop) -> None:
    await shop.ask("products.bulk_create", None, data=[{"name": "a"}, {"name": "b"}])
    here: list[int] = []
    met = asyncio.Event()

    @shop.app.operation
    async def cross(call: Call, first: int, second: int) -> int:
        here.append(first)
        if len(set(here)) == 2:
            met.set()
        await shop.db.products.update(first, fields={"$inc": {"stock": 1}})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(met.wait(), 2)
        await shop.db.products.update(second, fields={"$inc": {"stock": 1}})
        return first

    for _ in range(2):
        work = [shop.ask("cross", "k1", first=1, second=2), shop.ask("cross", "k2", first=2, second=1)]
        assert await asyncio.gather(*work) == [1, 2]
    stocks = [record["stock"] for record in (await shop.db.products.list())["records"]]
    assert stocks == [2, 2]


async def test_a_write_that_is_cancelled_is_done_by_its_repetition(shop: Shop) -> None:
    await shop.names()
    cut = 0
    for number in range(40):
        task = asyncio.create_task(shop.ask(CREATE, f"k{number}", name=f"n{number}"))
        for _ in range(number * 2):
            await asyncio.sleep(0)
        cut += task.cancel()
        await settled(task)
        await shop.ask(CREATE, f"k{number}", name=f"n{number}")
    assert cut
    assert sorted(await shop.names()) == sorted(f"n{number}" for number in range(40))


_WRITER = """
import asyncio, sys
from dataflow import DataFlow
from nexus import LOCAL, Call, Nexus
from nexus.demands import Demands

db = DataFlow(sys.argv[1])

@db.model
class Product:
    name: str

app = Nexus(db)

@app.operation
async def make(call: Call, name: str) -> str:
    await db.products.create(name=name)
    if sys.argv[2] == "hang":
        print("written", flush=True)
        await asyncio.sleep(60)
    return name

async def main():
    async with app.running():
        ask = app.runtime.invoke("make", {"name": "a"}, LOCAL, channel="test", demands=Demands(key="k"))
        print(await ask, flush=True)

asyncio.run(main())
"""


@pytest.mark.databases("file", "postgresql", "mysql")
async def test_a_writer_that_is_killed_leaves_nothing(database: str) -> None:
    hanging = await _writer(database, "hang")
    assert hanging.stdout is not None
    assert await hanging.stdout.readline() == b"written\n"
    os.kill(hanging.pid, signal.SIGKILL)
    await hanging.wait()
    async with asyncio.timeout(20):
        while True:  # the server notices when it reads the connection's end
            repeated = await _writer(database, "go on")
            out, err = await repeated.communicate()
            if repeated.returncode == 0 or b"KeyInFlight" not in err:
                break
    assert out == b"a\n", err.decode()
    assert await run_sql(database, "SELECT name FROM products") == [("a",)]
    assert await run_sql(database, "SELECT answer FROM nexus_replies") == [('"a"',)]


async def _writer(*words: str) -> asyncio.subprocess.Process:
    command: Sequence[str] = (sys.executable, "-c", _WRITER, *words)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
