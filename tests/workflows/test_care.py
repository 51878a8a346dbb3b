"""What a node's parameters say about the node itself."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from dataflow import DataFlow, platform
from nexus import Nexus, Session
from nexus.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    NotFound,
    RegistrationError,
    TimedOut,
    Unavailable,
)
from nexus.resilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitOpen,
    RetryConfig,
    RetryHandler,
    breaker,
)
from nexus.session import ALL
from nexus_workflows import AsyncLocalRuntime, node
from tests.workflows.support import count, nodes, run

_failures: list[Exception] = []
_attempts: list[int] = []


@pytest.fixture(autouse=True)
def _flaky() -> None:
    _failures.clear()
    _attempts.clear()

    @node(name="flaky")
    async def flaky(seconds: float = 0.0) -> str:
        _attempts.append(1)
        await asyncio.sleep(seconds)
        if _failures:
            raise _failures.pop(0)
        return "done"


QUICK = {"max_attempts": 3, "base_delay": 0.001}


async def test_a_node_is_tried_again(app: Nexus) -> None:
    workflow = nodes(("ProductCreateNode", "make", {"name": "x"}), ("flaky", "f", {"retry": QUICK}))
    workflow.add_connection("make", "id", "f", "input")
    _failures.extend([ConnectionError("a"), Unavailable("b")])
    assert (await run(app, workflow))["f"]["result"] == "done"
    assert len(_attempts) == 3
    assert await count(app) == 1, "what came before is not undone by an attempt"
    _failures.extend([ConnectionError(str(n)) for n in range(3)])
    with pytest.raises(Exception, match="'f' failed: ConnectionError"):
        await run(app, workflow)
    assert await count(app) == 1


@pytest.mark.parametrize(
    ("retry_on", "failure", "attempts"),
    [
        (["timeout"], TimedOut("x"), 2),
        (["connection_error"], ConnectionRefusedError("x"), 2),
        (["connection_error"], ValueError("x"), 1),
        (["ValueError"], UnicodeError("x"), 2),
        (["any"], KeyError("x"), 2),
        ("conflict", Conflict("x"), 2),
    ],
)
async def test_which_failures_are_tried_again(
    app: Nexus, retry_on: Any, failure: Exception, attempts: int
) -> None:
    _failures.append(failure)
    workflow = nodes(("flaky", "f", {"retry": {**QUICK, "retry_on": retry_on}, "on_error": "continue"}))
    await run(app, workflow)
    assert len(_attempts) == attempts


async def test_each_attempt_is_undone_alone(app: Nexus, db: DataFlow) -> None:
    tried: list[int] = []

    @node(name="half_way")
    async def half_way() -> None:
        await db.products.create(name="half")
        tried.append(1)
        if len(tried) < 3:
            raise ConnectionError("not yet")

    await run(app, nodes(("half_way", "h", {"retry": QUICK}), ("ProductCreateNode", "make", {"name": "x"})))
    assert len(tried) == 3
    assert await count(app) == 2


async def test_a_time_limit_names_its_node(app: Nexus) -> None:
    workflow = nodes(("flaky", "f", {"seconds": 20.0, "timeout": 0.05}))
    with pytest.raises(TimedOut, match=r"'f' did not end within 0.05 s") as caught:
        await run(app, workflow)
    assert isinstance(caught.value, asyncio.TimeoutError)
    _attempts.clear()
    again = nodes(
        (
            "flaky",
            "f",
            {
                "seconds": 20.0,
                "timeout": 0.02,
                "retry": {**QUICK, "retry_on": ["timeout"]},
                "on_error": "continue",
            },
        )
    )
    assert (await run(app, again))["f"]["code"] == "NX-504"
    assert len(_attempts) == 3


async def test_a_circuit_breaker_is_shared_by_name(app: Nexus) -> None:
    shared = uuid.uuid4().hex  # a breaker is one of the whole process
    said = {"name": shared, "failure_threshold": 2, "timeout": 60}
    workflow = nodes(("flaky", "f", {"circuit_breaker": said, "on_error": "continue"}))
    _failures.extend(ConnectionError("x") for _ in range(5))
    codes = [(await run(app, workflow))["f"]["code"] for _ in range(4)]
    assert codes == ["DF-803", "DF-803", "NX-506", "NX-506"]
    assert len(_attempts) == 2
    assert breaker(shared).get_metrics()["rejected_requests"] == 2
    with pytest.raises(RegistrationError, match="another configuration"):
        await run(app, nodes(("flaky", "f", {"circuit_breaker": {**said, "failure_threshold": 9}})))


async def test_monitoring_is_in_the_log(app: Nexus, caplog: pytest.LogCaptureFixture) -> None:
    watched = {"track_execution_time": True, "alert_on_slow_query": True, "slow_query_threshold": 0.05}
    with caplog.at_level(logging.INFO, "nexus.workflows"):
        await run(
            app,
            nodes(
                ("flaky", "quick", {"monitoring": watched}),
                ("flaky", "slow", {"seconds": 0.06, "monitoring": watched}),
            ),
        )
    assert any("'quick' took" in message for message in caplog.messages)
    assert any("'slow' was slow" in message for message in caplog.messages)


async def test_generic_nodes_and_names_that_are_checked(app: Nexus, db: DataFlow) -> None:
    around = {"db_instance": db.name, "model_name": "Product"}
    workflow = nodes(
        ("CreateNode", "make", {"model": "Product", "name": "x", **around}),
        ("ReadNode", "read", {"model": "Product", "id": "{{make.id}}"}),
        ("ListNode", "list", {"model": "Product"}),
        ("UpdateNode", "change", {"model": "Product", "id": "{{make.id}}", "name": "y"}),
        ("BulkCreateNode", "more", {"model": "Product", "data": [{"name": "z"}]}),
        ("CountNode", "count", {"model": "Product"}),
        ("DeleteNode", "drop", {"model": "Product", "id": "{{read.id}}"}),
    )
    for first, second in (("list", "change"), ("change", "more"), ("more", "count"), ("count", "drop")):
        workflow.add_connection(first, "result", second, "input")
    results = await run(app, workflow)
    assert results["count"]["count"] == 2
    assert results["drop"]["deleted"] == 1
    with pytest.raises(RegistrationError, match="belongs to the instance"):
        await run(app, nodes(("ProductCountNode", "c", {"db_instance": "elsewhere"})))


async def test_a_model_may_have_a_field_of_that_name(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Job:
        timeout: int
        retry: str = ""
        database: str = ""

    app = Nexus(db)
    async with app.running():
        made = (
            await run(
                app,
                nodes(
                    (
                        "JobCreateNode",
                        "make",
                        {"timeout": 5, "retry": "no", "database": "here", "on_error": "fail"},
                    )
                ),
            )
        )["make"]
    assert (made["timeout"], made["retry"], made["database"]) == (5, "no", "here")


async def test_a_node_chooses_a_tenant_where_the_session_has_none(database: str) -> None:
    db = DataFlow(database)

    @db.model
    class Note:
        text: str
        __dataflow__ = {"multi_tenant": True}

    app = Nexus(db)

    def session(tenant: str | None) -> Session:
        return Session("s", "u", frozenset({ALL}), tenant=tenant)

    workflow = nodes(
        ("NoteCreateNode", "a", {"text": "a", "tenant_id": "acme"}),
        ("NoteCreateNode", "b", {"text": "b", "tenant_id": "other"}),
        ("NoteCountNode", "count", {"tenant_id": "acme"}),
    )
    workflow.add_connection("a", "id", "b", "input")
    workflow.add_connection("b", "id", "count", "input")
    async with app.running():
        results, _ = await AsyncLocalRuntime(app, session=session(None)).execute_async(workflow)
        assert results["count"]["count"] == 1
        with pytest.raises(Forbidden, match="another tenant than 'acme'"):
            await AsyncLocalRuntime(app, session=session("other")).execute_async(workflow)
        chosen = nodes(("NoteCountNode", "count", {"tenant_id": "{{whose}}"}))
        results, _ = await AsyncLocalRuntime(app).execute_async(chosen, {"whose": "other"})
        assert results["count"]["count"] == 1
        app.register("chosen", chosen)
        with pytest.raises(Forbidden, match="cannot choose one by an argument"):
            await app.runtime.invoke("chosen", {"whose": "other"}, session(None), channel="rest")
        made = await app.runtime.invoke("chosen", {"whose": "acme"}, session("acme"), channel="rest")
        assert made.results["count"]["count"] == 1


async def test_retries_as_programs_use_them() -> None:
    assert platform.RetryHandler is RetryHandler
    assert platform.CircuitBreaker is CircuitBreaker
    handler = RetryHandler(RetryConfig(max_attempts=3, base_delay=0.001, retry_on=("any",)))
    calls: list[int] = []

    async def work(limit: int) -> int:
        calls.append(1)
        if len(calls) < limit:
            raise ValueError
        return len(calls)

    assert await handler.execute_with_retry(work, 3) == 3
    with pytest.raises(ValueError):
        await handler.execute_with_retry(work, limit=99)
    assert handler.get_metrics() == {
        "total_attempts": 6,
        "total_successes": 1,
        "total_failures": 1,
        "total_retries": 4,
    }


def test_delays_grow_up_to_a_limit() -> None:
    plain = RetryConfig(max_attempts=9, base_delay=0.1, max_delay=0.5, multiplier=2, jitter=0)
    assert [plain.delay(n) for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.5]
    shaken = RetryConfig(base_delay=1, jitter=0.5)
    assert all(0.5 <= shaken.delay(1) <= 1 for _ in range(100))
    for wrong in ({"max_attempts": 0}, {"jitter": 2}, {"multiplier": 0.5}, {"retry_on": ("nothing",)}):
        with pytest.raises(ConfigurationError):
            RetryConfig(**wrong)  # type: ignore[arg-type]


async def test_a_circuit_opens_tries_and_closes() -> None:
    now = [0.0]
    guard = CircuitBreaker(CircuitBreakerConfig(2, 2, 10), clock=lambda: now[0])

    async def good() -> int:
        return 1

    async def bad() -> int:
        raise ConnectionError

    async def wrong() -> int:
        raise NotFound("a caller's mistake opens no circuit")

    for _ in range(3):
        with pytest.raises(NotFound):
            await guard.execute(wrong)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await guard.execute(bad)
    assert guard.state == "OPEN"
    with pytest.raises(CircuitOpen):
        await guard.execute(good)
    now[0] = 11
    assert guard.state == "HALF_OPEN"
    with pytest.raises(ConnectionError):
        await guard.execute(bad)
    assert guard.state == "OPEN"
    now[0] = 22
    assert await guard.execute(good) == 1
    assert guard.state == "HALF_OPEN"
    assert await guard.execute(good) == 1
    assert guard.get_metrics() == {
        "state": "CLOSED",
        "failure_count": 0,
        "success_count": 2,
        "rejected_requests": 1,
    }
