"""Routes, applications and middleware of one's own, beside the channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from nexus import Nexus
from nexus.errors import ConfigurationError
from nexus_channels.host import Host
from nexus_channels.lifespan import entered
from nexus_channels.server import running_server
from tests.channels.conftest import KEY
from tests.support.things import Things, application
from tests.support.wire import wire


@asynccontextmanager
async def client_of(app: Nexus) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
    ):
        yield http


async def said(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that says how it was called; of lifespans it knows nothing."""
    assert scope["type"] in ("http", "websocket")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"said": "hello"}'})
        await send({"type": "websocket.close", "code": 1000})
        return
    text = f"{scope['root_path']} {scope['path']} {getattr(scope.get('nexus.session'), 'user', None)}"
    await PlainTextResponse(text)(scope, receive, send)


class TestRoutes:
    async def test_answer_with_who_asks_and_what_it_may(self) -> None:
        app = application(Things())

        @app.route("/greet/{name}/{times:int}", methods=["GET", "POST"])
        async def greet(request: Request) -> Response:
            session = request.scope["nexus.session"]
            given = {"name": request.path_params["name"], "times": request.path_params["times"]}
            said = await app.runtime.invoke("greet", given, session, channel="mine")
            return JSONResponse({"said": said, "to": session.user, "body": (await request.body()).decode()})

        @app.route("/plain")
        def plain(request: Request) -> Response:
            return PlainTextResponse("from a thread")

        async with client_of(app) as http:
            answer = await http.get("/greet/a%20b/2")
            assert answer.json() == {"said": "hello a b, hello a b", "to": "local", "body": ""}
            assert answer.headers["x-request-id"]
            assert (await http.post("/greet/x/1", content=b"more")).json()["body"] == "more"
            assert (await http.get("/plain")).text == "from a thread"
            assert (await http.head("/plain")).content == b""
            for nothing in ("/greet/x/one", "/greet", "/plain/", "/plain/x"):
                assert (await http.get(nothing)).status_code == 404, nothing

    async def test_methods(self) -> None:
        """Several functions at one address: what the others take is still said."""
        app = application(Things())
        app.route("/at")(lambda request: PlainTextResponse("got"))
        app.route("/at", methods=["put", "PATCH"])(lambda request: PlainTextResponse("put"))
        async with client_of(app) as http:
            assert (await http.get("/at")).text == "got"
            assert (await http.patch("/at")).text == "put"
            refused = await http.delete("/at")
            assert refused.status_code == 405
            assert refused.headers["allow"] == "GET, HEAD, OPTIONS, PATCH, PUT"
            assert refused.json()["code"] == "NX-405"
            assert (await http.options("/at")).headers["allow"] == refused.headers["allow"]
            with pytest.raises(InvalidStatus):
                async with wire(str(http.base_url).rstrip("/"), path="/at"):
                    pass

    async def test_what_they_raise(self, caplog: pytest.LogCaptureFixture) -> None:
        app = application(Things())

        @app.route("/fails/{how}")
        async def fails(request: Request) -> Any:
            match request.path_params["how"]:
                case "ours":
                    given = {"id": "nothing"}
                    return await app.runtime.invoke(
                        "things.get", given, request.scope["nexus.session"], channel="mine"
                    )
                case "theirs":
                    raise HTTPException(418, "a teapot", {"X-Pot": "tea"})
                case "none":
                    return {"not": "a response"}
                case _:
                    raise RuntimeError("a secret that nobody may see")

        async with client_of(app) as http:
            ours = await http.get("/fails/ours")
            assert (ours.status_code, ours.json()["code"]) == (404, "DF-404")
            theirs = await http.get("/fails/theirs")
            assert (theirs.status_code, theirs.json()["title"], theirs.headers["x-pot"]) == (
                418,
                "a teapot",
                "tea",
            )
            assert theirs.headers["content-type"] == "application/problem+json"
            for how in ("none", "otherwise"):
                failed = await http.get(f"/fails/{how}")
                assert (failed.status_code, failed.json()["code"]) == (500, "NX-500")
                assert "secret" not in failed.text
            assert "gave dict, not a Response" in caplog.text

    async def test_ask_for_a_credential_unless_they_are_open(self) -> None:
        app = application(Things(), api_key=KEY)

        async def who(request: Request) -> Response:
            session = request.scope.get("nexus.session")
            return PlainTextResponse("nobody" if session is None else session.user)

        app.route("/closed")(who)
        app.route("/hook/{rest:path}", open=True)(who)
        app.route("/{everything:path}", open=True)(who)
        key = {"x-api-key": KEY}
        async with client_of(app) as http:
            assert (await http.get("/closed")).status_code == 401
            assert (await http.get("/closed", headers=key)).text == "local"
            assert (await http.get("/hook/a/b")).text == "nobody"
            assert (await http.get("/hook/a/b", headers=key)).text == "local"
            assert (await http.get("/hook/a", headers={"x-api-key": "wrong"})).status_code == 401
            assert (await http.get("/anything")).text == "nobody"
            for ours in ("/api", "/api/things", "/openapi.json", "/asyncapi.json", "/ws", "/api/nothing/x/y"):
                assert (await http.get(ours)).status_code == 401, ours
            hostile = {"origin": "http://evil.example"}
            assert (await http.get("/hook/a", headers=hostile)).status_code == 403


class TestMounted:
    async def test_has_a_world_of_its_own(self) -> None:
        started: list[str] = []

        @asynccontextmanager
        async def lifespan(inner: FastAPI) -> AsyncIterator[dict[str, Any]]:
            started.append("begun")
            yield {"number": 42}
            started.append("ended")

        inner = FastAPI(lifespan=lifespan)
        app = application(Things())

        @inner.get("/items/{item}", name="item")
        async def item(request: Request, item: int) -> dict[str, Any]:
            session = request.scope["nexus.session"]
            total = await app.runtime.invoke("total", {"numbers": [item, 1]}, session, channel="mine")
            address = str(request.url_for("item", item=item))
            return {"total": total, "number": request.state.number, "address": address}

        @inner.websocket("/echo")
        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            await socket.send_json({"user": socket.scope["nexus.session"].user})
            await socket.close()

        app.mount("/mine", inner)
        app.mount("/raw", said)
        async with client_of(app) as http:
            assert started == ["begun"]
            assert (await http.get("/mine/items/4")).json() == {
                "total": 5,
                "number": 42,
                "address": f"{str(http.base_url).rstrip('/')}/mine/items/4",
            }
            assert (await http.get("/mine/items/x")).status_code == 422
            assert (await http.get("/mine/nothing")).json() == {"detail": "Not Found"}
            assert (await http.get("/mine/docs")).status_code == 200
            described = (await http.get("/mine/openapi.json")).json()
            assert described["servers"] == [{"url": "/mine"}]
            assert (await http.get("/raw")).text == "/raw /raw local"
            assert (await http.get("/raw/x/")).text == "/raw /raw/x/ local"
            assert (await http.get("/rawer")).status_code == 404
            base = str(http.base_url).rstrip("/")
            async with wire(base, path="/mine/echo", offer="") as line:
                assert await line.receive() == {"user": "local"}
            async with wire(base, path="/raw/deep", offer="") as line:
                assert await line.receive() == {"said": "hello"}
        assert started == ["begun", "ended"]

    async def test_what_cannot_start_stops_the_start(self) -> None:
        @asynccontextmanager
        async def lifespan(inner: Starlette) -> AsyncIterator[None]:
            raise RuntimeError("no such folder")
            yield

        app = application(Things())
        app.mount("/mine", Starlette(lifespan=lifespan))
        with pytest.raises(ConfigurationError, match="no such folder"):
            async with running_server(app):
                pass

    async def test_asks_for_a_credential_unless_it_is_open(self) -> None:
        app = application(Things(), api_key=KEY)
        app.mount("/closed", said)
        app.mount("/open", said, open=True)
        async with client_of(app) as http:
            assert (await http.get("/closed/x")).status_code == 401
            assert (await http.get("/open/x")).text == "/open /open/x None"
            assert (await http.get("/open/../api/things")).status_code == 401
            assert (await http.get("/open/%2e%2e/api/things")).text.startswith("/open ")

    async def test_another_application_of_ours(self) -> None:
        inner, app = application(Things()), application(Things())
        app.mount("/inner", inner.asgi())
        async with client_of(app) as http:
            made = await http.post("/inner/api/things", json={"name": "x"})
            assert made.headers["location"] == "/inner/api/things/1"
            assert (await http.get(made.headers["location"])).json()["name"] == "x"
            assert (await http.get("/api/things")).json() == []
            async with wire(str(http.base_url).rstrip("/"), path="/inner/ws") as line:
                await line.subscribe()
                await http.post("/inner/api/things", json={"name": "y"})
                assert (await line.receive())["record"]["name"] == "y"

    async def test_below_a_prefix_itself(self) -> None:
        app = application(Things())
        app.mount("/mine", said)
        app.route("/hello")(lambda request: PlainTextResponse(str(request.base_url)))
        mounted = app.asgi()
        outer = Starlette(routes=[Mount("/outer", mounted)], lifespan=mounted.lifespan)
        transport = httpx2.ASGITransport(app=outer)
        async with (
            entered(outer),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            assert (await http.get("/outer/mine/x")).text == "/outer/mine /outer/mine/x local"
            assert (await http.get("/outer/hello")).status_code == 200


class Noted:
    """Middleware that tells in a header who has seen an answer, the outermost first."""

    def __init__(self, app: Any, *, name: str, seen: list[str]) -> None:
        self.app, self.name, self.seen = app, name, seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(f"{self.name} {scope['type']}")

        async def noted(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                before = [value for key, value in message.get("headers", ()) if key == b"x-seen"]
                rest = [(key, value) for key, value in message.get("headers", ()) if key != b"x-seen"]
                names = b" ".join([self.name.encode(), *before])
                message["headers"] = [*rest, (b"x-seen", names)]
            await send(message)

        await self.app(scope, receive, noted)


class TestMiddleware:
    async def test_is_around_everything_in_the_order_given(self) -> None:
        app, seen = application(Things()), list[str]()
        app.add_middleware(Noted, name="first", seen=seen)
        app.add_middleware(Noted, name="second", seen=seen)
        app.route("/mine")(lambda request: PlainTextResponse("mine"))
        async with client_of(app) as http:
            for path in ("/api/things", "/livez", "/mine", "/nothing", "/docs"):
                assert (await http.get(path)).headers["x-seen"] == "first second", path
            async with wire(str(http.base_url).rstrip("/")) as line:
                assert line.connection.response is not None
                assert line.connection.response.headers["x-seen"] == "first second"
            assert seen.count("first http") == seen.count("second http") == 5
            assert seen.count("first websocket") == 1
            assert not any("lifespan" in one for one in seen)

    async def test_is_inside_of_the_guard(self) -> None:
        app, seen = application(Things(), api_key=KEY), list[str]()
        app.add_middleware(Noted, name="it", seen=seen)
        async with client_of(app) as http:
            assert (await http.get("/api/things")).status_code == 401
            assert seen == []
            answer = await http.get("/api/things", headers={"x-api-key": KEY})
            assert answer.headers["x-seen"] == "it"
            assert answer.headers["x-request-id"]

    async def test_of_other_peoples(self) -> None:
        async def timed(request: Any, following: Any) -> Response:
            response: Response = await following(request)
            response.headers["x-user"] = request.scope["nexus.session"].user
            return response

        app = application(Things())
        app.add_middleware(GZipMiddleware, minimum_size=10)
        app.add_middleware(BaseHTTPMiddleware, dispatch=timed)
        async with client_of(app) as http:
            await http.post("/api/things", json={"name": "x" * 100})
            answer = await http.get("/api/things")
            assert (answer.headers["x-user"], answer.headers["content-encoding"]) == ("local", "gzip")
            assert answer.json()[0]["name"] == "x" * 100

    async def test_that_fails_is_answered_for(self, caplog: pytest.LogCaptureFixture) -> None:
        async def broken(request: Any, following: Any) -> Response:
            raise RuntimeError("a secret that nobody may see")

        app = application(Things())
        app.add_middleware(BaseHTTPMiddleware, dispatch=broken)
        async with client_of(app) as http:
            failed = await http.get("/api/things")
        assert (failed.status_code, failed.json()["code"]) == (500, "NX-500")
        assert "secret" in caplog.text


class TestRefusals:
    @pytest.mark.parametrize(
        "path",
        ["/", "/api", "/api/mine", "/ws", "/docs", "/docs/docs.css", "/openapi.json", "/livez", "/health"],
    )
    def test_what_would_never_be_reached(self, path: str) -> None:
        for place in ("route", "mount"):
            app = application(Things())
            if place == "route":
                app.route(path)(lambda request: None)
            else:
                app.mount(path, said)
            with pytest.raises(ConfigurationError, match="the platform answers there"):
                Host(app)

    def test_where_no_channel_is(self) -> None:
        app = application(Things(), channels=("rest",))
        app.route("/ws")(lambda request: None)
        app.route("/mcp/x")(lambda request: None)
        app.route("/apis")(lambda request: None)
        Host(app)

    def test_what_another_answers_already(self) -> None:
        app = application(Things())
        app.mount("/mine", said)
        app.route("/mine/x")(lambda request: None)
        with pytest.raises(ConfigurationError, match="'/mine' is mounted"):
            Host(app)
        app = application(Things())
        app.route("/x", methods=["GET", "POST"])(lambda request: None)
        app.route("/x", methods=["post"])(lambda request: None)
        with pytest.raises(ConfigurationError, match="two routes for POST"):
            Host(app)
        app = application(Things())
        app.route("/x")(lambda request: None)
        app.route("/x", methods=["POST"], open=True)(lambda request: None)
        with pytest.raises(ConfigurationError, match="open and others are not"):
            Host(app)

    @pytest.mark.parametrize("path", ["", "x", "/x/", "/{a}/{a}", "/{a:nothing}"])
    def test_what_is_no_path(self, path: str) -> None:
        app = application(Things())
        with pytest.raises(ConfigurationError, match="is no path"):
            app.route(path)(lambda request: None)
            Host(app)

    def test_a_pattern_to_mount_at(self) -> None:
        app = application(Things())
        app.mount("/{tenant}", said)
        with pytest.raises(ConfigurationError, match="without"):
            Host(app)

    @pytest.mark.parametrize("methods", ["GET", [], [""], ["GET POST"]])
    def test_methods(self, methods: Any) -> None:
        with pytest.raises(ConfigurationError, match="method"):
            application(Things()).route("/x", methods=methods)(lambda request: None)

    def test_what_comes_too_late(self) -> None:
        app = application(Things())
        app.asgi()
        for late in (
            lambda: app.route("/x")(lambda request: None),
            lambda: app.mount("/x", said),
            lambda: app.add_middleware(GZipMiddleware),
        ):
            with pytest.raises(ConfigurationError, match=r"before asgi\(\)"):
                late()

    def test_middleware_that_is_none(self) -> None:
        with pytest.raises(TypeError, match="takes a class"):
            application(Things()).add_middleware("gzip")  # type: ignore[arg-type]
        app = application(Things())
        app.add_middleware(GZipMiddleware, minimum="10")
        with pytest.raises(TypeError, match="minimum"):
            app.asgi()
