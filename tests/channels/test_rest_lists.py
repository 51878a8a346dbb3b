"""Lists over HTTP: short forms of filters, pages, and all records as lines; on every database."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels.server import running_server
from tests.support.problems import assert_problem

JSON = "application/json"
NDJSON = "application/x-ndjson"
LAMPS = [
    {"name": "Anna", "price": 20.0, "stock": 1, "on_sale": True, "tags": ["red"]},
    {"name": "Élan", "price": 35.5, "stock": 2, "note": "a,b"},
    {"name": "=Arc", "price": 50.0, "stock": 3, "tags": ["blue", "red"]},
]


@pytest.fixture
async def client(db: DataFlow) -> AsyncIterator[httpx2.AsyncClient]:
    @db.model
    class Part:
        code: str
        product_id: int | None = None

    app = Nexus(db, channels=("rest",))
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield client


@pytest.fixture
async def lamps(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/api/products:bulk_create", json={"data": LAMPS})).status_code == 200


async def _names(client: httpx2.AsyncClient, query: str, path: str = "/api/products") -> list[str]:
    found = await client.get(f"{path}?{query}")
    assert found.status_code == 200, found.text
    return [record["name"] for record in found.json()["records"]]


@pytest.mark.usefixtures("lamps")
class TestShortForms:
    async def test_mean_what_the_filter_means(self, client: httpx2.AsyncClient) -> None:
        for query, expected in (
            ("name=Anna", ["Anna"]),
            ("name=%C3%89lan", ["Élan"]),
            ("price[gte]=35.5&price[lt]=50", ["Élan"]),
            ("stock[in]=1,3", ["Anna", "=Arc"]),
            ("stock[in]=[1,3]", ["Anna", "=Arc"]),
            ("stock[in]=", []),
            ("stock[between]=2,3", ["Élan", "=Arc"]),
            ("name[like]=%25a%25", ["Anna", "Élan"]),
            ("name[regex]=^a&name[options]=i", ["Anna"]),
            ("note[null]=false", ["Élan"]),
            ("note=a,b", ["Élan"]),
            ("on_sale=true", ["Anna"]),
            ("on_sale[ne]=true", ["Élan", "=Arc"]),
            ("tags[contains]=red", ["Anna", "=Arc"]),
            ("tags[size]=2", ["=Arc"]),
            ('filter={"stock":{"$gt":1}}&price[lt]=50', ["Élan"]),
            ("created_at[gt]=2020-01-01T00:00:00Z&name[startswith]==", ["=Arc"]),
            ("sort=-price,name&limit=2", ["=Arc", "Élan"]),
            ("order_by=-price&offset=2", ["Anna"]),
            ('sort=[{"price":-1}]&limit=1', ["=Arc"]),
        ):
            assert await _names(client, query) == expected, query

    async def test_are_for_counts_too(self, client: httpx2.AsyncClient) -> None:
        assert (await client.get("/api/products:count?stock[gte]=2")).json() == {"count": 2}

    async def test_look_through_relations(self, client: httpx2.AsyncClient) -> None:
        for code, product in (("x", 1), ("y", 2)):
            await client.post("/api/parts", json={"code": code, "product_id": product})
        found = await client.get("/api/parts?product.name=Anna&include=product")
        assert [one["product"]["name"] for one in found.json()["records"]] == ["Anna"]

    @pytest.mark.parametrize(
        ("query", "code", "named"),
        [
            ("nmae=x", "DF-106", "Did you mean 'name'"),
            ("limt=3", "DF-106", "Did you mean 'limit'"),
            ("nmae[gte]=x", "DF-106", "Did you mean 'name'"),
            ("price[gtee]=3", "DF-106", "Did you mean 'gte'"),
            ("price[]=3", "DF-106", "no short form"),
            ("price[gte=3", "DF-106", "no short form"),
            ("price[gte]=cheap", "DF-102", "price[gte]"),
            ("price[gte]=1&price[gte]=2", "DF-102", "more than once"),
            ("name=a&name=b", "DF-102", "more than once"),
            ("name=a&name[eq]=b", "DF-102", "more than once"),
            ("created_at[lte]=0.5", "DF-102", "created_at[lte]"),
            ("price[regex]=1", "DF-107", "price"),
            ("stock[size]=x", "DF-102", "stock[size]"),
            ("nowhere.name=x", "DF-107", "nowhere"),
            ("count=perhaps", "DF-102", "count"),
        ],
    )
    async def test_what_cannot_be_meant_is_refused(
        self, client: httpx2.AsyncClient, query: str, code: str, named: str
    ) -> None:
        problem = assert_problem(await client.get(f"/api/products?{query}"), 422, code)
        assert named in problem["detail"] + problem.get("remedy", "")


@pytest.mark.usefixtures("lamps")
class TestPages:
    async def test_each_leads_to_the_next(self, client: httpx2.AsyncClient) -> None:
        address, names = "/api/products?cursor=&limit=2&sort=-name&stock[gte]=1", []
        for _ in range(5):
            page = await client.get(address)
            names += [record["name"] for record in page.json()["records"]]
            if "link" not in page.headers:
                break
            assert page.headers["link"].endswith('; rel="next"')
            address = page.links["next"]["url"]
        assert names == ["Élan", "Anna", "=Arc"]

    async def test_totals(self, client: httpx2.AsyncClient) -> None:
        for wanted, total in (("exact", 3), ("true", 3), ("none", None)):
            page = (await client.get(f"/api/products?limit=1&count={wanted}")).json()
            assert page.get("total") == total
        estimated = (await client.get("/api/products?limit=1&count=estimated&stock[gt]=1")).json()
        assert (estimated["total"], estimated["estimated"]) == (2, False)

    async def test_groups(self, client: httpx2.AsyncClient) -> None:
        pipeline = '[{"$group":{"_id":"$on_sale","n":{"$sum":1}}},{"$sort":{"n":1}}]'
        page = await client.get("/api/products", params={"aggregate": pipeline, "stock[gte]": "1"})
        assert page.json()["records"] == [{"_id": True, "n": 1}, {"_id": False, "n": 2}]


async def _fill(client: httpx2.AsyncClient, number: int) -> None:
    rows = [{"name": f"n{index}", "stock": index, "price": index / 2} for index in range(number)]
    assert (await client.post("/api/products:bulk_create", json={"data": rows})).status_code == 200


class TestLines:
    @pytest.mark.usefixtures("lamps")
    async def test_ndjson(self, client: httpx2.AsyncClient) -> None:
        found = await client.get("/api/products?sort=-id", headers={"accept": NDJSON})
        assert found.headers["content-type"] == NDJSON
        lines = [httpx2.Response(200, content=line).json() for line in found.content.splitlines()]
        whole = (await client.get("/api/products?sort=-id")).json()["records"]
        assert lines == whole

    @pytest.mark.usefixtures("lamps")
    async def test_csv(self, client: httpx2.AsyncClient) -> None:
        query = "/api/products?fields=name,price,note,tags,on_sale"
        found = await client.get(query, headers={"accept": "text/csv"})
        assert found.headers["content-type"].startswith("text/csv")
        assert found.text == (
            "name,price,note,tags,on_sale\r\n"
            'Anna,20.0,,"[""red""]",true\r\n'
            'Élan,35.5,"a,b",[],false\r\n'
            '\'=Arc,50.0,,"[""blue"",""red""]",false\r\n'
        )

    async def test_all_pages_are_sent(self, client: httpx2.AsyncClient) -> None:
        await _fill(client, 1203)
        for media, beside in ((NDJSON, 0), ("text/csv", 1)):
            query = "/api/products?sort=-stock&fields=stock,name&stock[gte]=2"
            found = await client.get(query, headers={"accept": media})
            lines = found.text.splitlines()
            assert len(lines) == 1201 + beside
            assert "1202" in lines[beside]
            assert "n2" in lines[-1]
        few = await client.get("/api/products?limit=600", headers={"accept": NDJSON})
        assert len(few.content.splitlines()) == 600

    async def test_nothing_is_still_a_table(self, client: httpx2.AsyncClient) -> None:
        empty = await client.get("/api/products", headers={"accept": "text/csv"})
        assert empty.text.startswith("id,name,price,")
        assert empty.text.count("\r\n") == 1
        some = await client.get("/api/products?fields=name,%20id", headers={"accept": "text/csv"})
        assert some.text == "name,id\r\n"
        lines = await client.get("/api/products", headers={"accept": NDJSON})
        assert (lines.status_code, lines.content) == (200, b"")

    async def test_what_is_wrong_is_said_before_anything_is_sent(self, client: httpx2.AsyncClient) -> None:
        for query in ("sort=nmae", "nmae=x", "offset=3", "count=true"):
            found = await client.get(f"/api/products?{query}", headers={"accept": "text/csv"})
            assert found.status_code == 422, query
            assert found.headers["content-type"] == "application/problem+json"

    async def test_head(self, client: httpx2.AsyncClient) -> None:
        head = await client.head("/api/products", headers={"accept": NDJSON})
        assert (head.status_code, head.headers["content-type"], head.content) == (200, NDJSON, b"")

    async def test_groups_as_lines(self, client: httpx2.AsyncClient) -> None:
        await _fill(client, 4)
        pipeline = '[{"$group":{"_id":null,"n":{"$sum":1}}}]'
        found = await client.get(
            "/api/products", params={"aggregate": pipeline}, headers={"accept": "text/csv"}
        )
        assert found.text == "_id,n\r\n,4\r\n"

    async def test_a_client_that_leaves_ends_the_reading(self, client: httpx2.AsyncClient) -> None:
        await _fill(client, 3000)
        address = urlsplit(str(client.base_url))
        with socket.create_connection((address.hostname, address.port)) as raw:
            raw.sendall(b"GET /api/products HTTP/1.1\r\nhost: localhost\r\naccept: text/csv\r\n\r\n")
            await asyncio.sleep(0.05)
        assert (await client.get("/api/products:count")).json() == {"count": 3000}


class TestForms:
    @pytest.mark.parametrize(
        ("accept", "media"),
        [
            ("*/*", JSON),
            ("application/*", JSON),
            ("text/html, */*;q=0.1", JSON),
            ("text/csv;q=0.5, application/json", JSON),
            ("text/csv, application/json;q=0.5", "text/csv"),
            ("text/*", "text/csv"),
            ("application/jsonl", "application/jsonl"),
            ("application/json;q=0, application/x-ndjson", NDJSON),
            ("", JSON),
        ],
    )
    async def test_the_one_that_is_liked_best(
        self, client: httpx2.AsyncClient, accept: str, media: str
    ) -> None:
        found = await client.get("/api/products", headers={"accept": accept})
        assert found.headers["content-type"].partition(";")[0] == media

    @pytest.mark.parametrize(
        ("method", "path", "accept"),
        [
            ("GET", "/api/products", "text/html"),
            ("GET", "/api/products/1", "text/csv"),
            ("POST", "/api/products", "text/csv"),
            ("GET", "/api/products:count", NDJSON),
            ("GET", "/api/session", "application/xml"),
            ("GET", "/api", "application/json;q=0"),
        ],
    )
    async def test_none_is_acceptable(
        self, client: httpx2.AsyncClient, method: str, path: str, accept: str
    ) -> None:
        body: Any = {"json": {"name": "x"}} if method == "POST" else {}
        response = await client.request(method, path, headers={"accept": accept}, **body)
        problem = assert_problem(response, 406, "NX-406")
        assert JSON in problem["remedy"]
        assert (await client.get("/api/products:count")).json() == {"count": 0}


class TestRows:
    async def test_a_table_goes_out_and_comes_back(self, client: httpx2.AsyncClient) -> None:
        await client.post("/api/products:bulk_create", json={"data": LAMPS})
        for media in ("text/csv", NDJSON):
            query = "/api/products?fields=name,price,stock,on_sale,note,tags"
            table = await client.get(query, headers={"accept": media})
            before = (await client.get(query)).json()["records"]
            await client.post("/api/products:bulk_delete", json={"filter": {}})
            headers = {"content-type": media}
            made = await client.post("/api/products:bulk_create", content=table.content, headers=headers)
            assert made.json()["created"] == 3, made.text
            assert (await client.get(query)).json()["records"] == before

    async def test_options_stand_in_the_query(self, client: httpx2.AsyncClient) -> None:
        await client.post("/api/products", json={"name": "a", "stock": 1})
        body = b'{"name": "a", "stock": 5}\n\n{"name": "b"}\n'
        query = "/api/products:bulk_upsert?return_ids=true&match_fields=%5B%22name%22%5D"
        made = await client.post(query, content=body, headers={"content-type": NDJSON})
        assert made.json()["updated"] == 1, made.text
        assert made.json()["ids"] == [1, 2]

    async def test_what_the_platform_fills_is_left_out(self, client: httpx2.AsyncClient) -> None:
        table = b"name,created_at,id\r\nx,2001-01-01T00:00:00Z,7\r\n"
        headers = {"content-type": "text/csv"}
        made = await client.post("/api/products:bulk_create", content=table, headers=headers)
        assert made.status_code == 200, made.text
        record = (await client.get("/api/products/7")).json()
        assert not record["created_at"].startswith("2001")

    @pytest.mark.parametrize(
        ("media", "body", "status", "named"),
        [
            (NDJSON, b'{"name": "a"}\n[1]\n', 400, "Line 2"),
            (NDJSON, b'{"name": "a"}\n{"name"\n', 400, "Line 2"),
            (NDJSON, b'{"nmae": "a"}\n', 422, "record 0"),
            (NDJSON, b"\xff", 400, "Line 1"),
            ("text/csv", b"name,stock\nx,many\n", 422, "record 0"),
            ("text/csv", b"nmae\n", 422, "nmae"),
            ("text/csv", b"name\nx,y\n", 400, "record 2"),
            ("text/csv", b"\xff", 400, "UTF-8"),
            ("text/tab-separated-values", b"name\nx\n", 415, "text/tab"),
        ],
    )
    async def test_what_cannot_be_read_is_refused_whole(
        self, client: httpx2.AsyncClient, media: str, body: bytes, status: int, named: str
    ) -> None:
        headers = {"content-type": media}
        response = await client.post("/api/products:bulk_create", content=body, headers=headers)
        assert response.status_code == status, response.text
        assert named in response.json()["detail"]
        assert (await client.get("/api/products:count")).json() == {"count": 0}

    async def test_only_many_records_come_as_lines(self, client: httpx2.AsyncClient) -> None:
        for path in ("/api/products", "/api/products:count"):
            response = await client.post(path, content=b"name\nx\n", headers={"content-type": "text/csv"})
            assert_problem(response, 415, "NX-415")
        query = "/api/products:bulk_create?data=%5B%5D"
        response = await client.post(query, content=b"{}", headers={"content-type": NDJSON})
        assert response.status_code == 400
