"""REST, through a real server and a real client."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from nexus import Effect, Operation
from nexus.errors import Unavailable
from tests.channels.conftest import Served
from tests.support.problems import assert_problem
from tests.support.things import Greet


class TestRecords:
    async def test_a_life(self, client: httpx2.AsyncClient) -> None:
        created = await client.post("/api/things", json={"name": "lamp", "size": 3})
        assert created.status_code == 201
        assert created.headers["content-type"] == "application/json"
        assert created.headers["location"] == "/api/things/1"
        lamp = {"id": "1", "name": "lamp", "size": 3, "note": None}
        assert created.json() == lamp
        assert (await client.get(created.headers["location"])).json() == lamp
        assert (await client.patch("/api/things/1", json={"size": 4})).json() == {**lamp, "size": 4}
        assert (await client.put("/api/things/1", json={"name": "bulb"})).json()["name"] == "bulb"
        assert len((await client.get("/api/things")).json()) == 1
        deleted = await client.delete("/api/things/1")
        assert deleted.status_code == 204
        assert deleted.content == b""
        assert_problem(await client.get("/api/things/1"), 404, "DF-404")
        assert (await client.get("/api/things")).json() == []

    @pytest.mark.parametrize("key", ["a/b", "ä ö", "a:b", "100%", "a?b#c", "+", "%2F"])
    async def test_any_id_can_be_addressed(self, client: httpx2.AsyncClient, key: str) -> None:
        created = await client.post("/api/things", json={"name": "x", "id": key})
        location = created.headers["location"]
        assert (await client.get(location)).json()["id"] == key
        assert (await client.delete(location)).status_code == 204

    async def test_an_id_in_the_body_must_be_that_of_the_address(self, served: Served) -> None:
        served.things.put("1", {"id": "1", "name": "x", "size": 0})
        same = await served.client.patch("/api/things/1", json={"id": "1", "size": 1})
        assert same.json()["size"] == 1
        other = await served.client.patch("/api/things/1", json={"id": "2", "size": 2})
        problem = assert_problem(other, 422, "DF-102")
        assert problem["errors"][0]["pointer"] == "/id"
        assert served.things.records["1"]["size"] == 1

    async def test_head_is_get_without_a_body(self, client: httpx2.AsyncClient) -> None:
        got = await client.get("/api/things")
        head = await client.head("/api/things")
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]
        missing = await client.head("/api/things/none")
        assert (missing.status_code, missing.content) == (404, b"")

    async def test_conflict(self, client: httpx2.AsyncClient) -> None:
        await client.post("/api/things", json={"name": "x", "id": "1"})
        assert_problem(await client.post("/api/things", json={"name": "y", "id": "1"}), 409, "NX-409")


class TestCustomVerbs:
    async def test_reading_verbs_take_get_and_post(self, client: httpx2.AsyncClient) -> None:
        for name in "abb":
            await client.post("/api/things", json={"name": name})
        query = await client.get("/api/things:count", params={"filter": '{"name":"b"}'})
        body = await client.post("/api/things:count", json={"filter": {"name": "b"}})
        assert query.json() == body.json() == {"count": 2}

    async def test_writing_verbs_take_post_only(self, client: httpx2.AsyncClient) -> None:
        made = await client.post("/api/things:bulk", json={"records": [{"name": "a"}, {"name": "b"}]})
        assert [record["name"] for record in made.json()] == ["a", "b"]
        refused = await client.get("/api/things:bulk")
        assert_problem(refused, 405, "NX-405")
        assert refused.headers["allow"] == "OPTIONS, POST"

    async def test_placed_verbs_have_one_address_only(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.get("/api/things:list"), 404, "DF-404")
        assert_problem(await client.post("/api/things:delete", json={"id": "1"}), 404, "DF-404")

    async def test_unknown_verb(self, client: httpx2.AsyncClient) -> None:
        problem = assert_problem(await client.get("/api/things:cuont"), 404, "DF-701")
        assert "things.count" in problem["remedy"]


class TestAddresses:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/",
            "/api/things/",
            "/api/things/1/",
            "/api/things/1/parts",
            "/api//things",
            "/api/workflows/",
            "/api/workflows/greet/",
            "/api/workflows/greet/run",
            "/apis",
        ],
    )
    async def test_nothing_there(self, client: httpx2.AsyncClient, path: str) -> None:
        response = await client.get(path, follow_redirects=False)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"

    async def test_not_utf8(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.get("/api/things/%ff"), 400, "NX-400")

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("DELETE", "/api/things", "GET, HEAD, OPTIONS, POST"),
            ("PATCH", "/api/things", "GET, HEAD, OPTIONS, POST"),
            ("POST", "/api/things/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
            ("POST", "/api/notes", "GET, HEAD, OPTIONS"),
            ("DELETE", "/api/things:count", "GET, HEAD, OPTIONS, POST"),
            ("POST", "/api", "GET, HEAD, OPTIONS"),
            ("POST", "/api/workflows", "GET, HEAD, OPTIONS"),
            ("POST", "/api/workflows/greet", "GET, HEAD, OPTIONS"),
            ("GET", "/api/workflows/greet/execute", "OPTIONS, POST"),
            ("PUT", "/api/session", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_methods(self, client: httpx2.AsyncClient, method: str, path: str, allowed: str) -> None:
        refused = await client.request(method, path)
        assert_problem(refused, 405, "NX-405")
        assert refused.headers["allow"] == allowed
        options = await client.options(path)
        assert (options.status_code, options.content) == (204, b"")
        assert options.headers["allow"] == allowed

    async def test_resource_without_records(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.get("/api/notes/1"), 404, "DF-404")


class TestWorkflows:
    async def test_overview(self, client: httpx2.AsyncClient) -> None:
        overview = (await client.get("/api")).json()
        things = next(r for r in overview["resources"] if r["name"] == "things")
        assert things["path"] == "/api/things"
        assert {"list", "create", "count"} <= set(things["verbs"])
        assert {"name": "greet", "path": "/api/workflows/greet"} in overview["workflows"]

    async def test_listing(self, client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/api/workflows")).json()
        assert {"name": "greet", "summary": "Say hello.", "effect": "read"} in listed
        assert not any("." in workflow["name"] for workflow in listed)

    async def test_description(self, client: httpx2.AsyncClient) -> None:
        described = (await client.get("/api/workflows/greet")).json()
        assert described["input"]["required"] == ["name"]
        assert described["output"] == {"type": "string"}

    @pytest.mark.parametrize("name", ["things.create", "things_create", "ThingCreateNode"])
    async def test_execution_by_any_spelling(self, client: httpx2.AsyncClient, name: str) -> None:
        executed = await client.post(f"/api/workflows/{name}/execute", json={"name": "x"})
        assert executed.status_code == 200
        assert executed.json()["name"] == "x"

    async def test_no_body_is_no_arguments(self, client: httpx2.AsyncClient) -> None:
        assert (await client.post("/api/workflows/total/execute")).json() == 0
        assert (await client.post("/api/workflows/total/execute", json={"numbers": [1, 2]})).json() == 3

    @pytest.mark.parametrize("media", ["application/json; charset=utf-8", "application/merge-patch+json"])
    async def test_media_types_that_are_json(self, client: httpx2.AsyncClient, media: str) -> None:
        response = await client.post(
            "/api/workflows/total/execute", content=b'{"numbers":[1]}', headers={"content-type": media}
        )
        assert response.json() == 1

    async def test_session(self, client: httpx2.AsyncClient) -> None:
        session = (await client.get("/api/session")).json()
        assert session == {"user": "local", "roles": [], "tenant": None, "scopes": ["*"]}

    async def test_what_is_registered_later_is_there_at_once(self, served: Served) -> None:
        async def again(call: object, given: Greet) -> str:
            return given.name * 2

        assert (await served.client.post("/api/workflows/again/execute")).status_code == 404
        served.app.registry.add(Operation("again", again, Greet, str, Effect.READ))
        answered = await served.client.post("/api/workflows/again/execute", json={"name": "a"})
        assert answered.json() == "aa"
        served.app.registry.remove("again")
        assert (await served.client.post("/api/workflows/again/execute")).status_code == 404


class TestFailures:
    @pytest.mark.parametrize("name", ["explode", "unspeakable"])
    async def test_ours_say_nothing(
        self, client: httpx2.AsyncClient, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        response = await client.post(f"/api/workflows/{name}/execute")
        assert_problem(response, 500, "NX-500")
        assert "secret" not in response.text
        assert "failed" in caplog.text

    async def test_unavailable_says_when_to_try_again(self, served: Served) -> None:
        async def busy(call: object, given: object) -> None:
            raise Unavailable("The database is busy.")

        served.app.registry.add(Operation("busy", busy))
        response = await served.client.post("/api/workflows/busy/execute")
        served.app.registry.remove("busy")
        assert_problem(response, 503, "NX-503")
        assert int(response.headers["retry-after"]) > 0

    async def test_a_client_that_leaves_does_not_stop_its_operation(self, served: Served) -> None:
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(
                b"POST /api/workflows/wait/execute HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\ncontent-length: 15\r\n\r\n"
                b'{"seconds":0.3}'
            )
            while not served.things.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        while not served.things.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert served.things.ended == ["finished"]

    async def test_a_body_that_never_ends_runs_nothing(self, served: Served) -> None:
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(
                b"POST /api/things HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b'content-length: 100\r\n\r\n{"name":"x"}'
            )
            await asyncio.sleep(0.1)
        assert (await served.client.get("/api/things")).json() == []
