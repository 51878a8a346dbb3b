"""Pages of other origins: those that the settings name are let in, on every channel, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from nexus.errors import ConfigurationError
from nexus_channels.server import running_server
from nexus_channels.web.cors import Cors
from tests.channels.conftest import KEY
from tests.support.problems import assert_problem
from tests.support.things import Things, application
from tests.support.wire import wire

SHOP = "https://shop.example"
DEV = "http://localhost:5173"
ASKING = {"origin": SHOP, "access-control-request-method": "PATCH"}
KEYED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = application(Things(), api_key=KEY, cors_origins=f"{SHOP}, {DEV}")
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as made:
        yield made


async def test_a_page_may_ask(client: httpx2.AsyncClient) -> None:
    for origin in (SHOP, DEV, "https://shop.example:443"):
        answer = await client.get("/api/things", headers={"origin": origin, **KEYED})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"ETag", "Location", "Link", "X-Request-ID", "RateLimit", "Retry-After"} <= set(exposed)


async def test_it_may_read_refusals_too(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/things", headers={"origin": SHOP})
    assert_problem(answer, 401, "NX-401")
    assert answer.headers["access-control-allow-origin"] == SHOP


async def test_it_may_write(client: httpx2.AsyncClient) -> None:
    headers = {"origin": SHOP, "sec-fetch-site": "cross-site", **KEYED}
    assert (await client.post("/api/things", json={"name": "x"}, headers=headers)).status_code == 201


async def test_a_browser_asks_first(client: httpx2.AsyncClient) -> None:
    """Without a credential, as browsers do."""
    answer = await client.options("/api/things/1", headers=ASKING)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "PATCH" in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {
        "authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "prefer",
        "traceparent", "x-api-key", "mcp-protocol-version",
    } <= set(allowed)  # fmt: skip
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://shop.example", "https://shop.example.evil", "null", ""]
)
async def test_others_stay_out(client: httpx2.AsyncClient, origin: str) -> None:
    for method, more in (("GET", KEYED), ("OPTIONS", {"access-control-request-method": "GET"})):
        answer = await client.request(method, "/api/things", headers={"origin": origin, **more})
        assert_problem(answer, 403, "NX-403")
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


async def test_what_caches_keep_depends_on_the_origin(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/things", headers=KEYED)
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers


async def test_the_websocket_agrees(client: httpx2.AsyncClient) -> None:
    url = str(client.base_url).rstrip("/")
    async with wire(url, additional_headers={"origin": SHOP, **KEYED}) as connected:
        assert await connected.ask(type="ping") == {"type": "pong"}
    with pytest.raises(InvalidStatus) as refused:
        async with wire(url, additional_headers={"origin": "https://evil.example", **KEYED}):
            pass
    assert refused.value.response.status_code == 403


async def test_all_may_where_that_is_said() -> None:
    app = application(Things(), api_key=KEY, cors_origins="*")
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.get("/api/things", headers={"origin": "https://any.example", **KEYED})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert "vary" not in answer.headers


async def test_a_server_without_a_key_names_its_own_host_still() -> None:
    app = application(Things(), cors_origins=SHOP)
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/api/things", headers={"origin": SHOP})).status_code == 200
        elsewhere = await client.get("/api/things", headers={"origin": SHOP, "host": "shop.example"})
        assert_problem(elsewhere, 421, "NX-421")


@pytest.mark.parametrize(
    "setting",
    ["shop.example", "https://shop.example/", "https://*.example", "*, https://a.example", "null", "a b"],
)
def test_what_is_no_origin(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="NEXUS_CORS_ORIGINS"):
        Cors(setting, open_to_all=False)


def test_not_everybody_without_a_key() -> None:
    with pytest.raises(ConfigurationError, match="NEXUS_API_KEY"):
        application(Things(), cors_origins="*").asgi()
