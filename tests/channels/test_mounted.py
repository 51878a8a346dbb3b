"""The application inside of another: below a prefix, with the other's lifespan, behind its own guard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fastapi import FastAPI
from mcp import Client
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus

from dataflow import DataFlow
from nexus import Nexus, Settings
from nexus.errors import ConfigurationError
from nexus_channels.lifespan import entered
from nexus_channels.server import running_server
from nexus_workflows import WorkflowBuilder
from tests.channels.conftest import KEY
from tests.support.hosting import hosted
from tests.support.things import Things, application
from tests.support.wire import wire


def shop(**settings: Any) -> Nexus:
    db = DataFlow(":memory:")

    @db.model
    class Product:
        id: str
        name: str

    app = Nexus(db, title="Shop", settings=Settings(**settings))
    count = WorkflowBuilder("Count.")
    count.add_node("ProductCountNode", "count", {})
    app.register("count_all", count)
    return app


def in_starlette(mounted: Any, prefix: str = "/nexus") -> Any:
    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    routes = [Route("/hello", hello), Mount(prefix, mounted)]
    return Starlette(routes=routes, lifespan=mounted.lifespan)


def in_fastapi(mounted: Any, prefix: str = "/nexus", **options: Any) -> Any:
    outer = FastAPI(lifespan=mounted.lifespan, **options)

    @outer.get("/hello")
    async def hello() -> str:
        return "hello"

    outer.mount(prefix, mounted)
    return outer


def in_a_lifespan_of_its_own(mounted: Any) -> Any:
    @asynccontextmanager
    async def lifespan(outer: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with mounted.lifespan():
            yield {"mine": 1}

    return Starlette(routes=[Mount("/a", Starlette(routes=[Mount("/b", mounted)]))], lifespan=lifespan)


@dataclass
class Place:
    """Where an application is mounted; `prefix` as it stands in addresses."""

    url: str
    prefix: str
    client: httpx2.AsyncClient

    @property
    def base(self) -> str:
        return self.url + self.prefix


HOSTS = {
    "starlette": (in_starlette, "/nexus"),
    "fastapi": (in_fastapi, "/nexus"),
    "nested": (in_a_lifespan_of_its_own, "/a/b"),
    "unicode": (lambda mounted: in_starlette(mounted, "/läden/nr 1"), quote("/läden/nr 1")),
}


@pytest.fixture(scope="module", params=HOSTS)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    build, prefix = HOSTS[request.param]
    async with (
        hosted(build(shop().asgi())) as url,
        httpx2.AsyncClient(base_url=url + prefix, trust_env=False, timeout=10) as client,
    ):
        yield Place(url, prefix, client)


class TestBelowAPrefix:
    async def test_records_and_where_they_are(self, place: Place) -> None:
        made = await place.client.post("/api/products", json={"id": "a/b c:d", "name": "Lamp"})
        assert made.status_code == 201
        assert made.headers["location"] == f"{place.prefix}/api/products/a%2Fb%20c%3Ad"
        got = await place.client.get(f"{place.url}{made.headers['location']}")
        assert got.json()["name"] == "Lamp"
        assert (await place.client.get("/api/products:count")).json() == {"count": 1}
        assert (await place.client.delete(f"{place.url}{made.headers['location']}")).status_code == 200

    async def test_letters_that_need_not_be_encoded(self, place: Place) -> None:
        prefix = "".join(f"%{ord(c):02x}" if c in "nab" else c for c in place.prefix)
        for path in ("/%61pi/products", "/api/%70roducts", "/api"):
            response = await place.client.get(f"{place.url}{prefix}{path}")
            assert response.status_code == 200, path

    async def test_pages(self, place: Place) -> None:
        for name in ("p1", "p2", "p3"):
            await place.client.post("/api/products", json={"id": name, "name": name})
        first = await place.client.get("/api/products?cursor=&limit=2&sort=id")
        match = re.fullmatch(r'<(.+)>; rel="next"', first.headers["link"])
        assert match is not None
        assert match[1].startswith(f"{place.prefix}/api/products?")
        second = await place.client.get(place.url + match[1])
        assert [record["id"] for record in second.json()["records"]] == ["p3"]

    async def test_a_run_in_the_background(self, place: Place) -> None:
        path, headers = "/api/workflows/count_all/execute", {"prefer": "respond-async"}
        started = await place.client.post(path, json={}, headers=headers)
        assert started.status_code == 202
        assert started.headers["location"].startswith(f"{place.prefix}/api/runs/")
        assert (await place.client.get(place.url + started.headers["location"])).status_code == 200

    async def test_what_it_says_of_itself(self, place: Place) -> None:
        index = (await place.client.get("/")).json()
        root = place.prefix
        assert index["channels"] == {
            "rest": f"{root}/api",
            "websocket": f"{root}/ws",
            "mcp": f"{root}/mcp",
        }
        overview = (await place.client.get(place.url + index["channels"]["rest"])).json()
        assert overview["resources"][0]["path"] == f"{root}/api/products"
        frames = (await place.client.get("/asyncapi.json")).json()
        assert frames["channels"]["websocket"]["address"] == f"{root}/ws"
        described = (await place.client.get("/openapi.json")).json()
        assert described["servers"] == [{"url": place.prefix}]
        assert "/api/products/{id}" in described["paths"]

    async def test_the_page_asks_for_what_is_beside_it(self, place: Place) -> None:
        page = await place.client.get("/docs")
        assert page.status_code == 200
        named = re.findall(r'(?:href|src)="([^"#:]+)"', page.text)
        assert sorted(named) == ["docs/docs.css", "docs/docs.js"]
        for name in [*named, "openapi.json"]:
            assert (await place.client.get(str(page.url.join(name)))).status_code == 200

    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/ready"])
    async def test_health(self, place: Place, path: str) -> None:
        assert (await place.client.get(path)).json()["status"] == "ok"

    async def test_nothing(self, place: Place) -> None:
        for path in ("/nothing", "/api/nothing", "/api/products/nothing/more"):
            response = await place.client.get(path)
            assert response.status_code == 404, path
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["x-request-id"]

    async def test_websocket(self, place: Place) -> None:
        async with wire(place.url, path=f"{place.prefix}/ws") as line:
            await line.subscribe(topic="products")
            await place.client.post("/api/products", json={"id": "live", "name": "x"})
            change = await line.receive()
            assert (change["event"], change["key"]) == ("enter", "live")

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_mcp(self, place: Place, mode: Any) -> None:
        async with Client(f"{place.base}/mcp", mode=mode) as client:
            assert "products_create" in {tool.name for tool in (await client.list_tools()).tools}
            called = await client.call_tool("products_count", {})
            assert not called.is_error

    async def test_the_guard(self, place: Place) -> None:
        refused = await place.client.get("/api/products", headers={"host": "evil.example"})
        assert refused.status_code == 421
        refused = await place.client.get("/livez", headers={"origin": "http://evil.example"})
        assert refused.status_code == 403
        with pytest.raises(InvalidStatus):
            async with wire(
                place.url, path=f"{place.prefix}/ws", additional_headers={"Origin": "http://x.y"}
            ):
                pass

    async def test_what_is_the_others_stays_so(self, place: Place) -> None:
        if place.prefix == "/nexus":
            hello = await place.client.get(f"{place.url}/hello", headers={"host": "evil.example"})
            assert hello.status_code == 200


class TestRoots:
    """What a proxy takes away, or a server is told of."""

    async def test_a_server_with_a_root(self) -> None:
        """uvicorn puts it before the path."""
        async with (
            hosted(shop().asgi(), root_path="/shop") as url,
            httpx2.AsyncClient(trust_env=False) as http,
        ):
            made = await http.post(f"{url}/api/products", json={"id": "1", "name": "x"})
            assert made.headers["location"] == "/shop/api/products/1"
            assert (await http.get(f"{url}/openapi.json")).json()["servers"] == [{"url": "/shop"}]
            assert (await http.get(f"{url}/")).status_code == 200

    async def test_an_application_that_says_its_root_itself(self) -> None:
        """FastAPI(root_path=…) does so: it stands in the root, and not in the path."""
        starlette = in_starlette(shop().asgi())

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            await starlette({**scope, "root_path": "/proxy"}, receive, send)

        async with hosted(outer) as url, httpx2.AsyncClient(trust_env=False) as http:
            made = await http.post(f"{url}/nexus/api/products", json={"id": "a/b", "name": "x"})
            assert made.headers["location"] == "/proxy/nexus/api/products/a%2Fb"
            assert (await http.get(f"{url}/nexus/api/products/a%2Fb")).json()["name"] == "x"
            assert (await http.get(f"{url}/nexus/livez")).status_code == 200

    async def test_a_root_that_stands_in_the_scope_alone(self) -> None:
        asgi = shop().asgi()
        transport = httpx2.ASGITransport(app=asgi, root_path="/gone")
        async with (
            asgi.lifespan(),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            made = await http.post("/api/products", json={"id": "1", "name": "x"})
            assert made.headers["location"] == "/gone/api/products/1"
            assert (await http.get("/api/products/1")).status_code == 200


class TestCredentials:
    async def test_are_asked_for_below_the_prefix(self) -> None:
        outer = in_fastapi(shop(api_key=KEY).asgi())
        async with hosted(outer) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            for path in ("/nexus/", "/nexus/docs", "/nexus/livez", "/hello"):
                assert (await http.get(path)).status_code == 200, path
            for path in ("/nexus/api", "/nexus/openapi.json", "/nexus/mcp", "/nexus/ws", "/nexus/nothing"):
                assert (await http.get(path)).status_code == 401, path
            key = {"x-api-key": KEY, "host": "shop.example"}
            assert (await http.get("/nexus/api/products", headers=key)).status_code == 200

    @pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1"])
    async def test_without_a_key_nobody_from_elsewhere(self, client: str) -> None:
        """Where other servers listen is not ours to say; a Host header can be forged."""
        asgi = application(Things()).asgi()
        async with asgi.lifespan():
            assert await self._status(asgi, client) == 403
            for here in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "testclient"):
                assert await self._status(asgi, here) == 200, here
        locked = application(Things(), api_key=KEY).asgi()
        async with locked.lifespan():
            assert await self._status(locked, client, {"x-api-key": KEY}) == 200

    async def _status(self, asgi: Any, client: str, headers: dict[str, str] | None = None) -> int:
        transport = httpx2.ASGITransport(app=asgi, client=(client, 1234))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return (await http.get("/api/things", headers=headers)).status_code


class TestLifespan:
    async def test_that_nobody_has_entered_is_refused(self) -> None:
        things = Things()
        outer = Starlette(routes=[Mount("/nexus", application(things).asgi())])
        async with hosted(outer) as url, httpx2.AsyncClient(trust_env=False) as http:
            for path in ("/nexus/api/things", "/nexus/livez", "/nexus/", "/nexus/mcp"):
                response = await http.get(url + path)
                assert response.status_code == 503
                assert "lifespan=mounted.lifespan" in response.json()["remedy"]
            with pytest.raises(InvalidStatus) as refused:
                async with wire(url, path="/nexus/ws"):
                    pass
            assert refused.value.response.status_code == 503

    async def test_a_server_without_the_protocol_is_refused(self) -> None:
        asgi = application(Things()).asgi()
        async with hosted(asgi, lifespan="off") as url, httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/livez")).status_code == 503

    async def test_ends_with_the_others(self) -> None:
        asgi = application(Things()).asgi()
        transport = httpx2.ASGITransport(app=in_starlette(asgi))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/nexus") as http:
            for _ in range(2):
                async with asgi.lifespan():
                    assert (await http.get("/api/things")).status_code == 200
                assert (await http.get("/api/things")).status_code == 503

    def test_a_test_client(self) -> None:
        """Each `with` is another event loop."""
        outer = in_fastapi(shop().asgi())
        for _ in range(2):
            with TestClient(outer, base_url="http://localhost") as client:
                assert client.get("/nexus/api/products").status_code == 200

    async def test_what_fails_at_the_start_stops_the_other(self) -> None:
        class Broken(Nexus):
            @asynccontextmanager
            async def running(self) -> AsyncIterator[Nexus]:
                raise RuntimeError("the database is not there")
                yield self

        outer = in_fastapi(Broken(channels=["rest"], settings=Settings()).asgi())
        with pytest.raises(ConfigurationError, match="the database is not there"):
            async with entered(outer):
                pass

    async def test_ends_while_everything_is_open(self) -> None:
        """A subscriber, an idle connection, and a stream of MCP on which a client listens."""
        asgi = application(Things(), channels=("rest", "websocket", "mcp")).asgi()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=10))
            async with hosted(in_starlette(asgi), timeout_graceful_shutdown=1) as url:
                await http.get(f"{url}/nexus/livez")
                line = await stack.enter_async_context(wire(url, path="/nexus/ws"))
                await line.subscribe()
                client = await stack.enter_async_context(Client(f"{url}/nexus/mcp"))
                listening = await stack.enter_async_context(client.listen(tools_list_changed=True))
                heard = asyncio.ensure_future(anext(aiter(listening), None))
                await asyncio.sleep(0.1)
            assert await line.closed() == 1012
            async with asyncio.timeout(5):
                await asyncio.wait({heard})
            heard.exception()


async def test_our_server_is_one_host_among_others() -> None:
    """The same object behind uvicorn and behind ours: `asgi()` takes nothing from `serve()`."""
    app = application(Things())
    asgi = app.asgi()
    async with hosted(asgi) as url, httpx2.AsyncClient(trust_env=False) as http:
        made = await asyncio.gather(*(http.post(f"{url}/api/things", json={"name": "x"}) for _ in range(5)))
        assert {response.status_code for response in made} == {201}
    async with running_server(app) as url, httpx2.AsyncClient(trust_env=False) as http:
        assert len((await http.get(f"{url}/api/things")).json()) == 5
