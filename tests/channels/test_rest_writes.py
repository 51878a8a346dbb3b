"""Writes over HTTP: what is preferred, replaced, merged and done together; on every database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels.server import running_server
from nexus_workflows import WorkflowBuilder
from tests.support.problems import assert_problem

PRODUCTS = "/api/products"


@pytest.fixture
async def client(db: DataFlow) -> AsyncIterator[httpx2.AsyncClient]:
    @db.model
    class Part:
        code: str
        amount: int = 1
        note: str | None = None
        about: dict[str, Any] | None = None
        places: list[str] = []

    @db.model
    class Draft:
        __dataflow__ = {"versioned": True}
        id: str
        title: str

    app = Nexus(db, channels=("rest",))
    flow = WorkflowBuilder("Make one.")
    flow.add_node("PartCreateNode", "one", {"code": "{{code}}"})
    app.register("make", flow)
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield client


async def names(client: httpx2.AsyncClient) -> list[str]:
    return [one["name"] for one in (await client.get(f"{PRODUCTS}?sort=id")).json()["records"]]


class TestPreferences:
    async def test_no_body_where_none_is_wanted(self, client: httpx2.AsyncClient) -> None:
        minimal = {"prefer": "return=minimal"}
        made = await client.post(PRODUCTS, json={"name": "Lamp"}, headers=minimal)
        assert (made.status_code, made.content) == (201, b"")
        assert made.headers["location"] == f"{PRODUCTS}/1"
        assert made.headers["preference-applied"] == "return=minimal"
        assert "prefer" in made.headers["vary"].lower()
        assert "content-type" not in made.headers
        for method, body in (("PATCH", {"stock": 3}), ("PUT", {"name": "Desk"}), ("DELETE", None)):
            done = await client.request(method, f"{PRODUCTS}/1", json=body, headers=minimal)
            assert (done.status_code, done.content) == (204, b""), method
            assert done.headers["preference-applied"] == "return=minimal"
        many = await client.post(f"{PRODUCTS}:bulk_create", json={"data": [{"name": "a"}]}, headers=minimal)
        assert (many.status_code, many.content) == (204, b"")
        whole = await client.post(PRODUCTS, json={"name": "b"}, headers={"prefer": "return=representation"})
        assert (whole.json()["name"], whole.headers["preference-applied"]) == ("b", "return=representation")
        assert "preference-applied" not in (await client.post(PRODUCTS, json={"name": "c"})).headers

    async def test_a_failure_says_what_it_is_all_the_same(self, client: httpx2.AsyncClient) -> None:
        refused = await client.post(PRODUCTS, json={}, headers={"prefer": "return=minimal"})
        assert_problem(refused, 422, "DF-101")
        assert "preference-applied" not in refused.headers

    async def test_a_dry_run(self, client: httpx2.AsyncClient) -> None:
        dry = {"prefer": "tx=rollback"}
        made = await client.post(PRODUCTS, json={"name": "Lamp"}, headers=dry)
        assert (made.status_code, made.json()["name"]) == (201, "Lamp")
        assert made.headers["preference-applied"] == "tx=rollback"
        csv = {**dry, "content-type": "text/csv"}
        many = await client.post(f"{PRODUCTS}:bulk_create", content="name\na\nb\n", headers=csv)
        assert (many.json()["success_count"], many.headers["preference-applied"]) == (2, "tx=rollback")
        run = await client.post("/api/workflows/make/execute", json={"code": "x"}, headers=dry)
        assert (run.status_code, run.headers["preference-applied"]) == (200, "tx=rollback")
        assert await names(client) == []
        assert (await client.get("/api/parts")).json()["records"] == []
        assert (await client.get("/api/runs")).json()["records"] == []
        kept = await client.post(PRODUCTS, json={"name": "Lamp"}, headers={"prefer": "tx=commit"})
        assert kept.headers["preference-applied"] == "tx=commit"
        assert await names(client) == ["Lamp"]

    async def test_at_most_so_many(self, client: httpx2.AsyncClient) -> None:
        await client.post(f"{PRODUCTS}:bulk_create", json={"data": [{"name": "a"}, {"name": "b"}]})
        body = {"filter": {}}
        refused = await client.post(
            f"{PRODUCTS}:bulk_delete", json=body, headers={"prefer": "handling=strict, max-affected=1"}
        )
        assert "2 records" in assert_problem(refused, 409, "NX-424")["detail"]
        assert await names(client) == ["a", "b"]
        done = await client.post(f"{PRODUCTS}:bulk_delete", json=body, headers={"prefer": "max-affected=2"})
        assert done.headers["preference-applied"] == "max-affected=2"
        assert await names(client) == []

    @pytest.mark.parametrize(
        "prefer",
        [
            "tx=rolback",
            "tx",
            "tx=",
            "tx=rollback, tx=commit",
            "max-affected",
            "max-affected=many",
            "max-affected=-1",
            "max-affected=99999999999999999999",
            "max-affected=1, max-affected=2",
            "return=minimal; tx=rollback",
            "@@ tx=rollback",
            "handling=strict, colour=red",
            "handling=strict, return=some",
            "handling=strict, respond-async",
            "handling=strict, @",
        ],
    )
    async def test_what_must_not_be_left_aside_is_refused(
        self, client: httpx2.AsyncClient, prefer: str
    ) -> None:
        refused = await client.post(PRODUCTS, json={"name": "Lamp"}, headers={"prefer": prefer})
        assert_problem(refused, 400, "NX-400")
        assert await names(client) == []

    @pytest.mark.parametrize(
        "prefer",
        ["colour=red", ";;,,=", "return=some", "return", "wait=x; a=b", "respond-async", '"', "a" * 4000],
    )
    async def test_others_are(self, client: httpx2.AsyncClient, prefer: str) -> None:
        made = await client.post(PRODUCTS, json={"name": "Lamp"}, headers={"prefer": prefer})
        assert (made.status_code, made.json()["name"]) == (201, "Lamp")
        assert "preference-applied" not in made.headers

    async def test_several_at_once(self, client: httpx2.AsyncClient) -> None:
        headers = [
            ("prefer", 'handling="strict" , Return=minimal ;; foo="a,b"'),
            ("prefer", "tx=rollback,max-affected=1"),
        ]
        made = await client.post(PRODUCTS, json={"name": "Lamp"}, headers=headers)
        assert (made.status_code, made.content) == (201, b"")
        applied = set(made.headers["preference-applied"].split(", "))
        assert applied == {"handling=strict", "return=minimal", "tx=rollback", "max-affected=1"}
        assert await names(client) == []
        refused = await client.get(PRODUCTS, headers={"prefer": "handling=strict, return=minimal"})
        assert_problem(refused, 400, "NX-400")
        assert (await client.get(PRODUCTS, headers={"prefer": "return=minimal"})).json()["records"] == []

    async def test_weighs_nothing_however_it_is_written(self, client: httpx2.AsyncClient) -> None:
        for prefer in ("a" + ";   " * 2000 + "@", "a=" + '"' * 3001, "," * 6000):
            made = await client.post(PRODUCTS, json={"name": "Lamp"}, headers={"prefer": prefer})
            assert made.status_code == 201, prefer[:20]


class TestReplacing:
    async def test_what_is_left_out_becomes_its_default(self, client: httpx2.AsyncClient) -> None:
        part = {"code": "x", "amount": 7, "note": "n", "about": {"$ref": 1}, "places": ["a"]}
        made = (await client.post("/api/parts", json=part)).json()
        replaced = await client.put("/api/parts/1", json={"code": "y"})
        assert replaced.status_code == 200
        usual = {"code": "y", "amount": 1, "note": None, "about": None, "places": []}
        assert replaced.json() == {**made, **usual, "updated_at": replaced.json()["updated_at"]}
        again = await client.put("/api/parts/1", json={**part, "id": 1, "about": {"$inc": 5}})
        assert again.json()["about"] == {"$inc": 5}

    async def test_what_was_read_can_be_sent_back(self, client: httpx2.AsyncClient) -> None:
        made = (await client.post("/api/drafts", json={"id": "a/b", "title": "one"})).json()
        sent = await client.put("/api/drafts/a%2Fb", json={**made, "title": "two"})
        assert (sent.status_code, sent.json()["title"], sent.json()["version"]) == (200, "two", 2)
        stale = await client.put("/api/drafts/a%2Fb", json={**made, "title": "three"})
        assert_problem(stale, 409, "NX-409")

    @pytest.mark.parametrize(
        ("body", "status", "code", "pointer"),
        [
            ({}, 422, "DF-101", "/code"),
            ({"code": "x", "cod": 1}, 422, "DF-106", "/cod"),
            ({"code": None}, 422, "DF-102", "/code"),
            ({"code": "x", "amount": {"$inc": 1}}, 422, "DF-102", "/amount"),
            ({"code": "x\0"}, 422, "DF-102", "/code"),
            ({"code": "x", "fields": {}}, 422, "DF-106", "/fields"),
            ({"code": "x", "id": 2}, 422, "DF-102", "/id"),
            ([1], 422, "DF-102", ""),
        ],
    )
    async def test_what_is_no_whole_record_is_refused(
        self, client: httpx2.AsyncClient, body: Any, status: int, code: str, pointer: str
    ) -> None:
        await client.post("/api/parts", json={"code": "old"})
        problem = assert_problem(await client.put("/api/parts/1", json=body), status, code)
        assert pointer in [each["pointer"] for each in problem["errors"]]
        assert (await client.get("/api/parts/1")).json()["code"] == "old"

    async def test_makes_nothing(self, client: httpx2.AsyncClient) -> None:
        assert_problem(await client.put("/api/parts/9", json={"code": "x"}), 404, "DF-404")
        assert_problem(await client.put("/api/drafts/new", json={"title": "x"}), 404, "DF-404")
        assert_problem(await client.put("/api/parts/nine", json={"code": "x"}), 422, "DF-102")
        assert_problem(await client.put("/api/parts/1", content=b"{", headers=JSON), 400, "NX-400")


JSON = {"content-type": "application/json"}
MERGE = {"content-type": "application/merge-patch+json; charset=utf-8"}


class TestMergePatch:
    async def test_merges_into_what_is_stored(self, client: httpx2.AsyncClient) -> None:
        await client.post("/api/parts", json={"code": "x", "note": "n", "about": {"a": 1, "b": {"c": 2}}})
        patch = b'{"note": null, "about": {"a": null, "b": {"d": {"$inc": 3}}}, "places": ["p"], "id": 1}'
        done = await client.patch("/api/parts/1", content=patch, headers=MERGE)
        assert done.status_code == 200, done.text
        part = done.json()
        assert (part["code"], part["note"], part["places"]) == ("x", None, ["p"])
        assert part["about"] == {"b": {"c": 2, "d": {"$inc": 3}}}
        plain = await client.patch("/api/parts/1", json={"about": {"a": None}})
        assert plain.json()["about"] == {"a": None}  # as JSON it is a value, and replaces the other
        nothing = await client.patch("/api/parts/1", content=b"{}", headers=MERGE)
        assert (nothing.status_code, nothing.json()["about"]) == (200, {"a": None})

    @pytest.mark.parametrize(
        ("patch", "status", "code", "pointer"),
        [
            (b'{"code": null}', 422, "DF-102", "/code"),
            (b'{"cod": "x"}', 422, "DF-106", "/cod"),
            (b'{"amount": {"$inc": 1}}', 422, "DF-102", "/amount"),
            (b'{"places": {"a": 1}}', 422, "DF-102", "/places"),
            (b'{"about": {"a": "\\u0000"}}', 422, "DF-102", "/about"),
            (b'{"id": 2}', 422, "DF-102", "/id"),
            (b'{"about": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}", 422, "DF-102", "/about"),
            (b"[]", 422, "DF-102", ""),
            (b"null", 422, "DF-102", ""),
            (b"{", 400, "NX-400", None),
            (b'{"about": ' + b"[" * 100_000, 400, "NX-400", None),
        ],
    )
    async def test_what_cannot_be_merged_is_refused(
        self, client: httpx2.AsyncClient, patch: bytes, status: int, code: str, pointer: str | None
    ) -> None:
        await client.post("/api/parts", json={"code": "x"})
        problem = assert_problem(
            await client.patch("/api/parts/1", content=patch, headers=MERGE), status, code
        )
        if pointer is not None:
            assert [each["pointer"] for each in problem["errors"]] == [pointer]

    async def test_versions(self, client: httpx2.AsyncClient) -> None:
        await client.post("/api/drafts", json={"id": "a", "title": "one"})
        fresh = b'{"title": "two", "version": 1}'
        assert (await client.patch("/api/drafts/a", content=fresh, headers=MERGE)).json()["version"] == 2
        assert_problem(await client.patch("/api/drafts/a", content=fresh, headers=MERGE), 409, "NX-409")

    async def test_says_what_patches_it_takes(self, client: httpx2.AsyncClient) -> None:
        takes = "application/json, application/merge-patch+json"
        patch = {"content-type": "application/json-patch+json"}
        refused = await client.patch("/api/parts/1", content=b"[]", headers=patch)
        assert_problem(refused, 415, "NX-415")
        assert refused.headers["accept-patch"] == takes
        options = await client.options("/api/parts/1")
        assert (options.status_code, options.headers["accept-patch"]) == (204, takes)
        assert "accept-patch" not in (await client.options("/api/parts")).headers


class TestBatch:
    async def test_is_done_as_a_whole(self, client: httpx2.AsyncClient) -> None:
        operations = [
            {"operation": "products.create", "arguments": {"name": "Lamp"}},
            {"operation": "parts.create", "arguments": {"code": "x"}},
        ]
        done = await client.post("/api/:batch", json={"operations": operations})
        assert done.status_code == 200, done.text
        assert [each["id"] for each in done.json()["results"]] == [1, 1]
        assert len(done.json()["run_id"]) == 32
        bad = [*operations, {"operation": "parts.create", "arguments": {"cod": "y"}}]
        problem = assert_problem(await client.post("/api/:batch", json={"operations": bad}), 422, "DF-106")
        assert problem["errors"][0]["pointer"] == "/operations/2/arguments/cod"
        assert await names(client) == ["Lamp"]
        dry = await client.post(
            "/api/:batch", json={"operations": operations}, headers={"prefer": "tx=rollback, return=minimal"}
        )
        assert (dry.status_code, dry.content) == (204, b"")
        assert await names(client) == ["Lamp"]

    async def test_has_an_address_and_is_no_workflow(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/api/:batch")).status_code == 405
        assert (await client.options("/api/:batch")).headers["allow"] == "OPTIONS, POST"
        assert_problem(await client.post("/api/:make", json={}), 404, "DF-404")
        assert_problem(await client.post("/api/:nothing", json={}), 404, "DF-701")
        assert [each["name"] for each in (await client.get("/api/workflows")).json()] == ["make"]
        assert [each["name"] for each in (await client.get("/api")).json()["workflows"]] == ["make"]
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert "/api/:batch" in paths
        assert "/api/workflows/batch/execute" not in paths
