"""The outer and the inner door: what invoke promises, whatever the operation does."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Call, Effect, Nexus, NexusError, Session, operation
from nexus.errors import (
    Forbidden,
    InvalidArguments,
    Malformed,
    NotFound,
    TimedOut,
    UnknownOperation,
    WriteInRead,
)
from tests.conftest import Invoke


@pytest.fixture
def greeter() -> Nexus:
    app = Nexus()

    @app.operation
    async def greet(call: Call, name: str, times: int = 1) -> str:
        """Say hello."""
        return " ".join([name] * times)

    return app


async def greet(app: Nexus, arguments: object, session: Session = LOCAL) -> object:
    return await app.runtime.invoke("greet", arguments, session, channel="test")  # type: ignore[arg-type]


async def test_arguments_come_as_a_mapping_or_as_json(greeter: Nexus) -> None:
    assert await greet(greeter, {"name": "Ada", "times": 2}) == "Ada Ada"
    assert await greet(greeter, b'{"name": "Ada"}') == "Ada"


@pytest.mark.parametrize("form", [bytes, json.loads], ids=["json", "mapping"])
@pytest.mark.parametrize(
    ("given", "code", "pointer", "named"),
    [
        (b'{"name": "Ada", "tiems": 2}', "DF-106", "/tiems", "Did you mean 'times'?"),
        (b'{"times": 2}', "DF-101", "/name", "missing argument 'name'"),
        (b'{"name": "Ada", "times": "2"}', "DF-102", "/times", "'times': expected int, got str"),
    ],
)
async def test_what_is_wrong_is_named(
    greeter: Nexus, given: bytes, code: str, pointer: str, named: str, form: Any
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await greet(greeter, form(given))
    assert caught.value.code == code
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert named in str(caught.value)


async def test_everything_that_is_wrong_is_named_at_once(greeter: Nexus) -> None:
    with pytest.raises(InvalidArguments) as caught:
        await greet(greeter, {"nam": 1, "times": []})
    found = {(problem.code, problem.pointer) for problem in caught.value.problems}
    assert found == {("DF-106", "/nam"), ("DF-101", "/name"), ("DF-102", "/times")}


@pytest.mark.parametrize(
    "given",
    [b"", b"{", b'{"name": "a"} x', b"\xff", b'{"name": "\xff"}', b'{"name":' + b"[" * 100_000],
)
async def test_what_is_no_json_is_malformed(greeter: Nexus, given: bytes) -> None:
    with pytest.raises(Malformed):
        await greet(greeter, given)


async def test_json_that_is_no_object_is_a_wrong_type(greeter: Nexus) -> None:
    with pytest.raises(InvalidArguments, match="expected object, got array"):
        await greet(greeter, b"[1]")


async def test_an_unknown_operation_names_the_nearest(greeter: Nexus) -> None:
    with pytest.raises(UnknownOperation, match="Did you mean 'greet'"):
        await greeter.runtime.invoke("gret", {}, LOCAL, channel="test")


async def test_an_internal_operation_does_not_exist_outside(greeter: Nexus) -> None:
    hidden = replace(greeter.registry["greet"], name="hidden", internal=True)
    greeter.registry.add(hidden)
    with pytest.raises(UnknownOperation) as caught:
        await greeter.runtime.invoke("hidden", {}, LOCAL, channel="test")
    assert "hidden" not in caught.value.remedy
    assert hidden not in greeter.registry.public()


async def test_permission_comes_before_the_arguments(greeter: Nexus) -> None:
    guest = Session(id="g", user="guest", scopes=frozenset({"other"}))
    with pytest.raises(Forbidden, match="greet"):
        await greet(greeter, {"wrong": 1}, guest)
    allowed = Session(id="g", user="guest", scopes=frozenset({"greet"}))
    assert await greet(greeter, {"name": "x"}, allowed) == "x"


async def test_the_inner_door_checks_the_permission_again(greeter: Nexus) -> None:
    @greeter.operation
    async def around(call: Call) -> str:
        return str(await call.run("greet", {"name": "x"}))

    halfway = Session(id="g", user="guest", scopes=frozenset({"around"}))
    with pytest.raises(Forbidden, match="'greet'"):
        await greeter.runtime.invoke("around", {}, halfway, channel="test")
    assert await greeter.runtime.invoke("around", {}, LOCAL, channel="test") == "x"


async def test_a_failure_of_ours_says_nothing_outside(
    greeter: Nexus, caplog: pytest.LogCaptureFixture
) -> None:
    @greeter.operation
    async def broken(call: Call) -> None:
        raise ValueError("the password is hunter2")

    with pytest.raises(NexusError) as caught:
        await greeter.runtime.invoke("broken", {}, LOCAL, channel="test")
    assert caught.value.code == "NX-500"
    assert "hunter2" not in str(caught.value.describe())
    assert "hunter2" in caplog.text


@pytest.mark.feed
async def test_a_handler_that_raises_in_the_middle_leaves_nothing(app: Nexus, invoke: Invoke) -> None:
    @app.operation
    async def half(call: Call) -> None:
        await call.run("products.create", {"name": "Lamp"})
        await call.run("products.create", {"name": "Pen"})
        raise RuntimeError("in the middle")

    async with app.feed.subscribe(LOCAL, "products") as followed:
        with pytest.raises(NexusError):
            await invoke("half")
        assert (await invoke("products.count")).count == 0
        await invoke("products.create", name="Afterwards")
        first = await anext(aiter(followed))
        assert first.record is not None
        assert first.record["name"] == "Afterwards"


@pytest.mark.feed
async def test_what_runs_inside_commits_together_and_says_so_once_committed(
    app: Nexus, invoke: Invoke
) -> None:
    written, go_on = asyncio.Event(), asyncio.Event()

    @app.operation
    async def slow(call: Call) -> int:
        made = await call.run("products.create", {"name": "Lamp"})
        written.set()
        await go_on.wait()
        changed = await call.run("products.update", {"id": made.id, "fields": {"stock": {"$inc": 2}}})
        return int(changed.stock)

    async with app.feed.subscribe(LOCAL, "products") as followed:
        changes = aiter(followed)
        running = asyncio.create_task(invoke("slow"))
        await written.wait()
        assert (await invoke("products.count")).count == 0
        waiting = asyncio.create_task(anext(changes))
        done, _ = await asyncio.wait([waiting], timeout=1.3)  # longer than the tail ever sleeps
        assert not done
        go_on.set()
        assert await running == 2
        first, second = await waiting, await anext(changes)
        assert (first.event, second.event) == ("enter", "update")
        assert first.run == second.run is not None
        assert first.actor == "local"


async def test_a_cancelled_invocation_is_rolled_back(app: Nexus, invoke: Invoke) -> None:
    written = asyncio.Event()

    @app.operation
    async def endless(call: Call) -> None:
        await call.run("products.create", {"name": "Lamp"})
        written.set()
        await asyncio.sleep(60)

    running = asyncio.create_task(invoke("endless"))
    await written.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await invoke("products.count")).count == 0
    await invoke("products.create", name="free again")
    assert (await invoke("products.count")).count == 1


async def test_a_timeout_is_ours_and_rolls_back(app: Nexus, invoke: Invoke) -> None:
    @app.operation
    async def endless(call: Call) -> None:
        await call.run("products.create", {"name": "Lamp"})
        await asyncio.sleep(60)

    with pytest.raises(TimedOut) as caught:
        await app.runtime.invoke("endless", {}, LOCAL, channel="test", timeout=0.05)
    assert isinstance(caught.value, asyncio.TimeoutError)
    assert (await invoke("products.count")).count == 0


async def test_an_operation_that_reads_cannot_write(app: Nexus, invoke: Invoke) -> None:
    @operation(effect=Effect.READ)
    async def peek(call: Call) -> None:
        await call.run("products.create", {"name": "Lamp"})

    app.operation(peek)
    with pytest.raises(WriteInRead):
        await invoke("peek")
    assert (await invoke("products.count")).count == 0


async def test_a_call_that_has_ended_cannot_be_used(app: Nexus, invoke: Invoke) -> None:
    kept: list[Call] = []

    @app.operation
    async def leak(call: Call) -> None:
        kept.append(call)

    await invoke("leak")
    with pytest.raises(NexusError, match="has ended"):
        await kept[0].run("products.create", {"name": "Lamp"})


async def test_statements_side_by_side_in_one_call_share_its_transaction(app: Nexus, invoke: Invoke) -> None:
    @app.operation
    async def many(call: Call) -> None:
        await asyncio.gather(*(call.run("products.create", {"name": str(i)}) for i in range(20)))

    await invoke("many")
    assert (await invoke("products.count")).count == 20


async def test_what_still_runs_when_a_call_fails_is_ended_first(app: Nexus, invoke: Invoke) -> None:
    @app.operation
    async def many(call: Call) -> None:
        writes = (call.run("products.create", {"name": str(i)}) for i in range(20))
        await asyncio.gather(call.run("products.get", {"id": 99}), *writes)

    for _ in range(5):
        with pytest.raises(NotFound):
            await invoke("many")
    assert (await invoke("products.count")).count == 0


async def test_errors_of_the_data_layer_pass_unchanged(invoke: Invoke) -> None:
    with pytest.raises(NotFound) as caught:
        await invoke("products.get", id=7)
    assert caught.value.code == "DF-404"


async def test_one_application_can_have_its_models_in_two_databases(db: DataFlow) -> None:
    other = DataFlow(":memory:")

    @other.model
    class Customer:
        name: str

    app = Nexus(db)
    app.attach(other)
    async with app.running():
        await app.runtime.invoke("customers.create", {"name": "Ada"}, LOCAL, channel="test")
        assert (await app.runtime.invoke("products.count", {}, LOCAL, channel="test")).count == 0
        assert app.feed.topics() == ["products", "customers"]
