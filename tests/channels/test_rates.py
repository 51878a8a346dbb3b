"""How often a session may ask, on all channels together, and how often an address may be wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus import Nexus
from nexus.errors import ConfigurationError, RateLimited
from nexus.session import LOCAL
from nexus_channels.server import running_server
from nexus_channels.web.rates import Limiter, Rate, Rates, rate_from
from tests.channels.conftest import KEY
from tests.support.problems import assert_problem
from tests.support.things import Things, application
from tests.support.wire import wire


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def limited(rate: str, **settings: object) -> AsyncIterator[httpx2.AsyncClient]:
    app = application(Things(), rate_limit=rate, **settings)
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


class TestCounting:
    @pytest.mark.parametrize(
        ("setting", "rate"), [("100/s", Rate(100, 1)), ("1000/min", Rate(1000, 60)), ("5/h", Rate(5, 3600))]
    )
    def test_settings(self, setting: str, rate: Rate) -> None:
        assert rate_from(setting) == rate

    @pytest.mark.parametrize("setting", ["100", "0/s", "-1/s", "1.5/s", "1/day", "/s", "1/", "many"])
    def test_what_is_no_rate(self, setting: str) -> None:
        with pytest.raises(ConfigurationError, match="100/s"):
            application(Things(), rate_limit=setting).asgi()

    def test_the_option_is_the_setting(self) -> None:
        assert Nexus(rate_limit="5/h").settings.rate_limit == "5/h"
        with pytest.raises(ConfigurationError, match="100/s"):
            Nexus(rate_limit=100)

    def test_all_at_once_and_then_one_by_one(self) -> None:
        clock = Clock()
        limiter = Limiter(Rate(10, 5), clock=clock)
        assert [limiter.left(limiter.take("a")) for _ in range(10)] == list(range(9, -1, -1))
        with pytest.raises(RateLimited) as refused:
            limiter.take("a")
        assert refused.value.seconds == pytest.approx(0.5)
        assert limiter.left(limiter.take("b")) == 9
        clock.now += refused.value.seconds
        limiter.take("a")
        with pytest.raises(RateLimited):
            limiter.take("a")
        clock.now += 100
        assert limiter.left(limiter.take("a")) == 9

    @given(
        st.integers(1, 20),
        st.sampled_from([1, 60]),
        st.lists(st.floats(0, 0.3).map(lambda part: round(part, 3)), max_size=200),
    )
    def test_never_more_than_twice_in_any_span(self, count: int, span: int, pauses: list[float]) -> None:
        """What was saved up, and what comes back meanwhile."""
        clock = Clock()
        limiter = Limiter(Rate(count, span), clock=clock)
        taken: list[float] = []
        refused: list[float] = []
        for pause in pauses:
            clock.now += pause * span
            try:
                limiter.take("a")
            except RateLimited as failure:
                refused.append(failure.seconds)
            else:
                taken.append(clock.now)
        assert all(0 < seconds <= span / count + 1e-6 for seconds in refused)
        for moment in taken:
            assert sum(moment <= other < moment + span for other in taken) <= 2 * count

    def test_what_is_kept_is_bounded(self) -> None:
        clock = Clock()
        limiter = Limiter(Rate(2, 60), most=100, clock=clock)
        limiter.take("busy")
        limiter.take("busy")
        for number in range(1000):
            limiter.take(str(number))
            assert len(limiter._full) <= 101
        with pytest.raises(RateLimited):  # who has used most is remembered longest
            limiter.take("busy")

    def test_networks_of_addresses(self) -> None:
        rates = Rates(Rate(1, 60))
        rates.rejected("2001:db8::1")
        with pytest.raises(RateLimited):
            rates.admit("2001:db8::2", "guess")
        rates.admit("2001:db8:0:1::2", "guess")
        rates.admit("192.0.2.1", "guess")

    def test_sessions(self) -> None:
        rates = Rates(Rate(2, 60))
        assert rates.count(LOCAL) == [
            (b"ratelimit-policy", b'"default";q=2;w=60'),
            (b"ratelimit", b'"default";r=1;t=30'),
        ]


class TestAsking:
    async def test_the_headers_and_the_refusal(self) -> None:
        async with limited("3/h") as client:
            for left in (2, 1, 0):
                answer = await client.get("/api/things")
                assert answer.status_code == 200
                assert answer.headers["ratelimit-policy"] == '"default";q=3;w=3600'
                assert answer.headers["ratelimit"].startswith(f'"default";r={left};t=')
            refused = await client.post("/api/things", json={"name": "x"})
            problem = assert_problem(refused, 429, "NX-430")
            assert 0 < int(refused.headers["retry-after"]) <= 1200
            assert f"{refused.headers['retry-after']} s" in problem["remedy"]
            assert refused.headers["ratelimit"].startswith('"default";r=0;t=')

    async def test_what_is_free(self) -> None:
        async with limited("1/h") as client:
            for _ in range(3):
                for path in ("/", "/livez", "/readyz", "/health", "/ready", "/docs"):
                    answer = await client.get(path)
                    assert answer.status_code == 200
                    assert "ratelimit" not in answer.headers

    async def test_nothing_of_it_without_the_setting(self) -> None:
        async with limited("") as client:
            assert "ratelimit" not in (await client.get("/api/things")).headers

    async def test_the_websocket_counts_calls_and_subscriptions(self) -> None:
        async with limited("4/h") as client, wire(str(client.base_url).rstrip("/")) as line:
            await client.get("/api/things")
            assert (await line.ask(type="call", id="1", operation="things.list"))["type"] == "result"
            await line.subscribe("s")
            for frame in ({"type": "call", "id": "2", "operation": "things.list"},
                          {"type": "subscribe", "id": "t", "topic": "things"}):  # fmt: skip
                refused = await line.ask(**frame)
                assert (refused["type"], refused["code"], refused["id"]) == ("error", "NX-430", frame["id"])
            assert await line.ask(type="ping") == {"type": "pong"}
            assert_problem(await client.get("/api/things"), 429, "NX-430")


class TestWrongCredentials:
    async def test_an_address_that_guesses(self) -> None:
        async with limited("3/h", api_key=KEY) as client:
            for _ in range(3):
                answer = await client.get("/api/things", headers={"x-api-key": "guess"})
                assert_problem(answer, 401, "NX-401")
            refused = await client.get("/api/things", headers={"x-api-key": "guess"})
            assert_problem(refused, 429, "NX-430")
            assert int(refused.headers["retry-after"]) > 0
            assert_problem(await client.get("/api/things", headers={"x-api-key": KEY}), 429, "NX-430")

    async def test_who_was_right_before_still_passes(self) -> None:
        """All who come through one proxy have its address."""
        async with limited("3/h", api_key=KEY) as client:
            assert (await client.get("/api/things", headers={"x-api-key": KEY})).status_code == 200
            statuses = [
                (await client.get("/api/things", headers={"x-api-key": f"guess {n}"})).status_code
                for n in range(4)
            ]
            assert statuses == [401, 401, 401, 429]
            assert (await client.get("/api/things", headers={"x-api-key": KEY})).status_code == 200
