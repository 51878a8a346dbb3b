"""What REST refuses: arguments and bodies that cannot be meant."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.channels.conftest import Served
from tests.support.problems import assert_problem

JSON = {"content-type": "application/json"}


class TestQueryArguments:
    async def test_are_typed_by_the_operation(self, client: httpx2.AsyncClient) -> None:
        for number in range(5):
            await client.post("/api/things", json={"name": str(number), "size": number})
        found = await client.get("/api/things", params={"filter": '{"size":{"$gte":2}}', "limit": "2"})
        assert [record["size"] for record in found.json()] == [2, 3]

    @pytest.mark.parametrize(
        ("query", "status", "code", "named"),
        [
            ("limt=3", 422, "DF-106", "limit"),
            ("limit=x", 422, "DF-102", "limit"),
            ("limit=0", 422, "DF-102", "limit"),
            ("limit=", 422, "DF-102", "limit"),
            ("limit=1&limit=2", 422, "DF-102", "limit"),
            ("filter={", 400, "NX-400", "filter"),
            ('filter={"sise":1}', 422, "DF-107", "size"),
            ('filter={"size":{"$gtt":1}}', 422, "DF-107", "$gt"),
            ("limit=%ff", 400, "NX-400", "UTF-8"),
            ("&".join(f"a{n}=1" for n in range(300)), 400, "NX-400", "arguments"),
            ("filter=" + "[" * 9000, 400, "NX-400", "filter"),
            ("filter=%22" + "x" * 20_000 + "%22", 413, "NX-413", "20000"),
        ],
    )
    async def test_bad(
        self, client: httpx2.AsyncClient, query: str, status: int, code: str, named: str
    ) -> None:
        response = await client.get(f"/api/things?{query}")
        assert_problem(response, status, code)
        assert named in response.text

    async def test_id_is_in_the_path_only(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.get("/api/things/1?id=2"), 422, "DF-102")

    async def test_are_not_for_bodies(self, client: httpx2.AsyncClient) -> None:
        problem = assert_problem(await client.post("/api/things?name=x", json={}), 400, "NX-400")
        assert "body" in problem["remedy"]

    @pytest.mark.parametrize("path", ["", "/session", "/workflows", "/workflows/greet"])
    async def test_are_refused_where_there_are_none(self, client: httpx2.AsyncClient, path: str) -> None:
        assert_problem(await client.get(f"/api{path}?verbose=1"), 422, "DF-106")


class TestBadInput:
    """Each names the offending thing, and changes nothing."""

    @pytest.fixture(autouse=True)
    async def _nothing_changes(self, served: Served) -> AsyncIterator[None]:
        yield
        assert served.things.log == []

    @pytest.mark.parametrize(
        ("body", "status", "code", "pointer", "named"),
        [
            (b'{"naem":"x"}', 422, "DF-106", "/naem", "'name'"),
            (b"{}", 422, "DF-101", "/name", "'name'"),
            (b"", 422, "DF-101", "/name", "'name'"),
            (b'{"name":5}', 422, "DF-102", "/name", "'name'"),
            (b'{"name":"x","size":"3"}', 422, "DF-102", "/size", "'size'"),
            (b"[]", 422, "DF-102", "", "object"),
            (b"null", 422, "DF-102", "", "object"),
            (b"{", 400, "NX-400", None, "JSON"),
            (b'{"name":"\xff"}', 400, "NX-400", None, "JSON"),
            (b'{"name":NaN}', 400, "NX-400", None, "JSON"),
            (b'{"name":"x"} x', 400, "NX-400", None, "JSON"),
            (b'{"note":' + b"[" * 9000 + b"]" * 9000 + b"}", 400, "NX-400", None, "deep"),
        ],
    )
    async def test_bodies(
        self,
        client: httpx2.AsyncClient,
        body: bytes,
        status: int,
        code: str,
        pointer: str | None,
        named: str,
    ) -> None:
        for path in ("/api/things", "/api/workflows/ThingCreateNode/execute"):
            response = await client.post(path, content=body, headers=JSON)
            problem = assert_problem(response, status, code)
            assert named in problem["detail"]
            if pointer is not None:
                assert problem["errors"][0]["pointer"] == pointer

    async def test_everything_wrong_is_said_at_once(self, client: httpx2.AsyncClient) -> None:
        response = await client.post("/api/things", json={"naem": "x", "size": "3"})
        errors = assert_problem(response, 422, "DF-106")["errors"]
        assert {(e["pointer"], e["code"]) for e in errors} == {
            ("/naem", "DF-106"),
            ("/name", "DF-101"),
            ("/size", "DF-102"),
        }

    @pytest.mark.parametrize("body", [b"[]", b"{", b"5", b'{"size":"x"}', b'{"sise":1}', b"\xff"])
    async def test_bodies_of_updates(self, client: httpx2.AsyncClient, body: bytes) -> None:
        created = await client.post("/api/workflows/things.get/execute", content=body, headers=JSON)
        updated = await client.patch("/api/things/1", content=body, headers=JSON)
        assert updated.status_code == created.status_code
        assert updated.status_code in (400, 422)

    @pytest.mark.parametrize(
        "media", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"]
    )
    async def test_media_type(self, client: httpx2.AsyncClient, media: str) -> None:
        headers = {"content-type": media} if media else {}
        response = await client.post("/api/things", content=b'{"name":"x"}', headers=headers)
        assert_problem(response, 415, "NX-415")

    async def test_compressed(self, client: httpx2.AsyncClient) -> None:
        headers = {**JSON, "content-encoding": "gzip"}
        response = await client.post("/api/things", content=b"\x1f\x8b", headers=headers)
        assert_problem(response, 415, "NX-415")

    async def test_a_body_where_there_is_none(self, client: httpx2.AsyncClient) -> None:
        for method in ("GET", "DELETE"):
            response = await client.request(method, "/api/things/1", json={"id": "1"})
            assert_problem(response, 400, "NX-400")

    async def test_declared_too_large(self, client: httpx2.AsyncClient) -> None:
        body = b'{"name":"' + b"x" * 20_000 + b'"}'
        problem = assert_problem(await client.post("/api/things", content=body, headers=JSON), 413, "NX-413")
        assert "20000" in problem["detail"]

    async def test_too_large_without_saying_so(self, client: httpx2.AsyncClient) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 10_000

        assert_problem(await client.post("/api/things", content=chunks(), headers=JSON), 413, "NX-413")

    async def test_the_connection_survives(self, served: Served) -> None:
        async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as client:
            await client.post("/api/things", content=b" " * 1_000_000, headers=JSON)
            assert (await client.get("/api/things")).status_code == 200

    async def test_unknown_operation(self, client: httpx2.AsyncClient) -> None:
        problem = assert_problem(await client.get("/api/thigns"), 404, "DF-701")
        assert "things.list" in problem["remedy"]
        problem = assert_problem(await client.post("/api/workflows/gret/execute"), 404, "DF-701")
        assert "greet" in problem["remedy"]
        assert_problem(await client.get("/api/workflows/gret"), 404, "DF-701")

    async def test_internal_operations_do_not_exist(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.post("/api/workflows/hidden/execute"), 404, "DF-701")
        assert "hidden" not in (await client.get("/api/workflows")).text
