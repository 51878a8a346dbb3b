"""The addresses that belong to no channel, and the guard in front of all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from nexus import Nexus, Settings
from nexus.errors import ConfigurationError
from nexus.runtime import Runtime
from nexus.session import Sessions
from nexus_channels.host import Application, Host
from nexus_channels.server import running_server
from tests.channels.conftest import KEY, Served
from tests.support.things import Things, application
from tests.support.wire import wire


class TestOwnAddresses:
    async def test_index(self, client: httpx2.AsyncClient) -> None:
        index = (await client.get("/")).json()
        assert index["title"] == "Things"
        assert index["channels"] == {"rest": "/api", "websocket": "/ws"}
        assert set(index) == {"title", "version", "channels"}

    @pytest.mark.parametrize("path", ["/livez", "/health"])
    async def test_alive(self, client: httpx2.AsyncClient, path: str) -> None:
        assert (await client.get(path)).json() == {"status": "ok"}

    @pytest.mark.parametrize("path", ["/readyz", "/ready"])
    async def test_ready(self, client: httpx2.AsyncClient, path: str) -> None:
        assert (await client.get(path)).json() == {"status": "ok", "channels": ["rest", "websocket"]}

    @pytest.mark.parametrize("path", ["/nothing", "/livez/", "/apis", "/wss", "/mcp"])
    async def test_unknown(self, client: httpx2.AsyncClient, path: str) -> None:
        response = await client.get(path)
        assert response.status_code == 404
        assert response.json()["code"] == "DF-404"
        assert response.headers["content-type"] == "application/problem+json"

    async def test_other_methods(self, client: httpx2.AsyncClient) -> None:
        response = await client.post("/livez")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"
        assert (await client.head("/livez")).content == b""

    async def test_unknown_websocket(self, served: Served) -> None:
        for path in ("/nothing", "/livez", "/ws/below"):
            with pytest.raises(InvalidStatus) as refused:
                async with wire(served.url, path=path):
                    pass
            assert refused.value.response.status_code == 404

    async def test_http_on_the_websocket(self, client: httpx2.AsyncClient) -> None:
        response = await client.get("/ws")
        assert response.status_code == 426
        assert response.headers["upgrade"] == "websocket"


class TestRequestId:
    async def test_is_taken_over(self, client: httpx2.AsyncClient) -> None:
        response = await client.get("/livez", headers={"x-request-id": "abc-1.2_3"})
        assert response.headers["x-request-id"] == "abc-1.2_3"

    @pytest.mark.parametrize("given", ["a b", "x" * 129, "<script>", ""])
    async def test_is_made_when_it_is_not_sane(self, client: httpx2.AsyncClient, given: str) -> None:
        response = await client.get("/livez", headers={"x-request-id": given})
        assert response.headers["x-request-id"] not in (given, "")

    async def test_is_on_everything_and_never_the_same(self, served: Served) -> None:
        paths = ["/api/things", "/nothing", "/api/workflows/explode/execute", "/livez"]
        ids = {(await served.client.get(path)).headers["x-request-id"] for path in paths * 2}
        async with wire(served.url) as connected:
            assert connected.connection.response is not None
            ids.add(connected.connection.response.headers["x-request-id"])
        assert len(ids) == 9


class TestCredentials:
    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer  {KEY}"},
            {"x-api-key": KEY},
            {"authorization": "Basic YTpi", "x-api-key": KEY},
        ],
    )
    async def test_good(self, locked: Served, headers: dict[str, str]) -> None:
        assert (await locked.client.get("/api/things", headers=headers)).status_code == 200
        async with wire(locked.url, additional_headers=headers) as connected:
            assert await connected.ask(type="ping") == {"type": "pong"}

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer"},
            {"authorization": KEY},
            {"authorization": "Basic YTpi"},
            {"x-api-key": "wrong"},
            {"x-api-key": ""},
        ],
    )
    async def test_bad(self, locked: Served, headers: dict[str, str]) -> None:
        for method, path in [("GET", "/api"), ("POST", "/api/things"), ("GET", "/nothing"), ("GET", "/ws")]:
            response = await locked.client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["code"] == "NX-401"
        with pytest.raises(InvalidStatus) as refused:
            async with wire(locked.url, additional_headers=headers):
                pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body or b"")["code"] == "NX-401"

    @pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/health", "/ready"])
    async def test_not_asked_for(self, locked: Served, path: str) -> None:
        assert (await locked.client.get(path)).status_code == 200

    async def test_any_host_with_a_key(self, locked: Served) -> None:
        headers = {"host": "shop.example", "x-api-key": KEY}
        assert (await locked.client.get("/api", headers=headers)).status_code == 200


class TestHostilePages:
    """What a page of another site can make the browser of someone on this machine send."""

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "10.0.0.1", "[::2]:80"],
    )
    async def test_another_host(self, served: Served, host: str) -> None:
        for path in ("/api/things", "/livez", "/", "/nothing"):
            response = await served.client.get(path, headers={"host": host})
            assert response.status_code == 421, path
            assert response.json()["code"] == "NX-421"
        await self._no_websocket(served, 421, {"Host": host})

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]", "[::1]:80"])
    async def test_a_host_that_is_here(self, client: httpx2.AsyncClient, host: str) -> None:
        assert (await client.get("/api/things", headers={"host": host})).status_code == 200

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "", "http://localhost", "file://", "http://127.0.0.1:1"]
    )
    async def test_another_origin(self, served: Served, origin: str) -> None:
        headers = {"origin": origin}
        for method in ("GET", "POST", "OPTIONS"):
            response = await served.client.request(method, "/api/things", headers=headers)
            assert response.status_code == 403
            assert response.json()["code"] == "NX-403"
        assert served.things.log == []
        await self._no_websocket(served, 403, {"Origin": origin})

    async def test_another_origin_with_a_key(self, locked: Served) -> None:
        headers = {"origin": "http://evil.example", "x-api-key": KEY}
        assert (await locked.client.get("/api", headers=headers)).status_code == 403
        await self._no_websocket(locked, 403, headers)

    async def test_its_own_origin(self, served: Served) -> None:
        headers = {"origin": served.url}
        assert (
            await served.client.post("/api/things", json={"name": "x"}, headers=headers)
        ).status_code == 201
        async with wire(served.url, additional_headers=headers) as connected:
            assert await connected.ask(type="ping") == {"type": "pong"}

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("https://shop.example", "shop.example"),
            ("https://shop.example", "shop.example:443"),
            ("http://shop.example:80", "Shop.Example"),
        ],
    )
    async def test_default_ports(self, locked: Served, origin: str, host: str) -> None:
        headers = {"origin": origin, "host": host, "x-api-key": KEY}
        assert (await locked.client.get("/api", headers=headers)).status_code == 200

    async def test_cross_site(self, served: Served) -> None:
        headers = {"sec-fetch-site": "cross-site"}
        posted = await served.client.post("/api/things", json={"name": "x"}, headers=headers)
        assert posted.status_code == 403
        assert served.things.log == []
        assert (await served.client.get("/api/things", headers=headers)).status_code == 200

    async def _no_websocket(self, served: Served, status: int, headers: dict[str, str]) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with wire(served.url, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status


class Greeter:
    """A channel by another hand."""

    name = "greeter"

    def __init__(self, path: str = "/greet") -> None:
        self.path = path
        self.seen: list[str] = []

    def build(self, runtime: Runtime, sessions: Sessions, settings: Settings) -> Any:
        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"].endswith("/fail"):
                raise RuntimeError("a secret that nobody may see")
            if scope["path"].endswith("/half"):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                raise RuntimeError("too late to say so")
            said = f"{scope['nexus.session'].user} {scope['root_path']} {scope['path']}"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": said.encode()})

        return asgi

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.seen.append("started")
        yield
        self.seen.append("ended")

    def hint(self, base_url: str) -> str:
        return f"greet {base_url}"


class Greeting(Nexus):
    """An application with a channel that was not installed."""

    def __init__(self, *channels: Greeter) -> None:
        super().__init__(channels=(), settings=Settings())
        self.greeters = channels

    def load_channels(self) -> list[Any]:
        return list(self.greeters)


class TestOtherChannels:
    async def test_is_served_at_its_path_and_below(self) -> None:
        greeter = Greeter()
        async with running_server(Greeting(greeter)) as url, httpx2.AsyncClient(trust_env=False) as client:
            assert greeter.seen == ["started"]
            assert (await client.get(f"{url}/greet")).text == "local /greet /greet"
            assert (await client.get(f"{url}/greet/x")).text == "local /greet /greet/x"
            assert (await client.get(f"{url}/greeting")).status_code == 404
        assert greeter.seen == ["started", "ended"]

    async def test_what_it_raises_is_ours_to_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        async with running_server(Greeting(Greeter())) as url, httpx2.AsyncClient(trust_env=False) as client:
            failed = await client.get(f"{url}/greet/fail")
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.get(f"{url}/greet/half")
        assert failed.status_code == 500
        assert failed.json()["code"] == "NX-500"
        assert failed.headers["x-request-id"]
        assert "secret" not in failed.text
        assert "secret" in caplog.text
        assert "too late" in caplog.text

    @pytest.mark.parametrize("paths", [("/a", "/a"), ("a",), ("/",), ("/a/",)])
    def test_paths_that_cannot_be(self, paths: tuple[str, ...]) -> None:
        with pytest.raises(ConfigurationError):
            Host(Greeting(*[Greeter(path) for path in paths]))


class TestAnyServer:
    """The same application under a server that only knows ASGI."""

    async def test_lifespan(self) -> None:
        greeter = Greeter()
        asgi = Application(Greeting(greeter))
        to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        from_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        running = asyncio.create_task(asgi(scope, to_app.get, from_app.put))
        await to_app.put({"type": "lifespan.startup"})
        assert await from_app.get() == {"type": "lifespan.startup.complete"}
        assert greeter.seen == ["started"]
        await to_app.put({"type": "lifespan.shutdown"})
        assert await from_app.get() == {"type": "lifespan.shutdown.complete"}
        await running
        assert greeter.seen == ["started", "ended"]

    async def test_requests(self) -> None:
        asgi = application(Things()).asgi()
        transport = httpx2.ASGITransport(app=asgi)
        async with (
            asgi.lifespan(),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            assert (await client.post("/api/things", json={"name": "x"})).status_code == 201
            assert (await client.get("/api/things/1")).json()["name"] == "x"
            assert (await client.head("/api/things/1")).content == b""

    async def test_cancelled(self) -> None:
        asgi = application(Things()).asgi()
        assert isinstance(asgi, Application)
        transport = httpx2.ASGITransport(app=asgi)
        async with (
            asgi.lifespan(),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.post("/api/workflows/wait/execute")
            asgi.closing = True
            waiting = asyncio.create_task(client.post("/api/workflows/wait/execute"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            assert (await waiting).status_code == 503
