"""The description: it says what is registered, and nothing in it leads nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx2
import msgspec
import pytest

from dataflow import DataFlow
from nexus import Effect, Nexus, Operation, Settings
from nexus_channels.openapi import Described, describe
from nexus_channels.openapi.around import Limits
from nexus_channels.server import running_server


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    below: list[Tree] = []


METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def shop() -> Nexus:
    db = DataFlow(":memory:")

    @db.model
    class Customer:
        name: str
        tags: list[str] = []

    @db.model
    class Order:
        total: float
        customer_id: int | None = None
        note: str | None = None

    return Nexus(db, title="Shop", channels=("rest",))


@pytest.fixture
def document(shop: Nexus) -> dict[str, Any]:
    return described(shop)


def described(app: Nexus, **about: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(msgspec.json.encode(describe(app.registry, **about)))
    return made


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


class TestDocument:
    def test_every_public_operation_is_there(self, shop: Nexus, document: dict[str, Any]) -> None:
        known = {operation["operationId"] for operation in _operations(document).values()}
        assert {operation.tool for operation in shop.registry.public()} <= known

    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        found = set(_references(document))
        assert found
        for reference in found:
            at: Any = document
            for step in reference.removeprefix("#/").split("/"):
                at = at[step]

    def test_names_are_unique(self, document: dict[str, Any]) -> None:
        names = [operation["operationId"] for operation in _operations(document).values()]
        assert len(names) == len(set(names))

    def test_creating_leads_to_reading(self, document: dict[str, Any]) -> None:
        created = document["paths"]["/api/orders"]["post"]["responses"]["201"]
        assert created["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
        assert created["headers"]["Location"]
        link = created["links"]["get"]
        assert link["operationId"] == document["paths"]["/api/orders/{id}"]["get"]["operationId"]
        assert link["parameters"] == {"id": "$response.body#/id"}

    def test_conditions_are_where_they_hold(self, shop: Nexus) -> None:
        db = DataFlow(":memory:")

        @db.model
        class Careful:
            title: str
            __tablename__ = "carefuls"
            __dataflow__ = {"require_if_match": True}

        shop.attach(db)
        document = described(shop)
        operations = _operations(document)
        record = {"GET": {"200", "304"}, "PATCH": {"200"}, "PUT": {"200"}}
        for method in (*record, "DELETE"):
            one = operations[f"{method} /api/orders/{{id}}"]
            asked = {reference.rpartition("/")[2] for reference in _references(one["parameters"])}
            conditions = asked & {"IfMatch", "IfNoneMatch"}
            assert conditions == ({"IfMatch", "IfNoneMatch"} if method == "GET" else {"IfMatch"})
            tagged = {s for s, answer in one["responses"].items() if "ETag" in answer.get("headers", {})}
            assert tagged == record.get(method, set())
            assert one["responses"]["412"] == {"$ref": "#/components/responses/PreconditionFailed"}
            assert "428" not in one["responses"]
        assert "ETag" in document["components"]["responses"]["PreconditionFailed"]["headers"]
        assert {"Location", "ETag"} <= set(operations["POST /api/orders"]["responses"]["201"]["headers"])
        for key in ("GET /api/orders", "POST /api/orders:upsert", "POST /api/orders"):
            assert "IfMatch" not in str(operations[key])
            assert "412" not in operations[key]["responses"]
        required = {"$ref": "#/components/responses/PreconditionRequired"}
        for key in ("PATCH /api/carefuls/{id}", "DELETE /api/carefuls/{id}", "POST /api/carefuls:upsert"):
            assert operations[key]["responses"]["428"] == required
        assert "428" not in operations["GET /api/carefuls/{id}"]["responses"]

    def test_arguments_are_exact(self, document: dict[str, Any]) -> None:
        listed = document["paths"]["/api/orders"]["get"]["parameters"]
        named = {one["name"]: one for one in listed if "name" in one}
        assert named["sort"]["schema"]["items"]["enum"][:4] == ["id", "-id", "total", "-total"]
        assert named["include"]["schema"]["items"]["enum"] == ["customer", "customer.orders"]
        assert named["limit"]["schema"]["maximum"] == 1000
        assert "order_by" not in named
        assert {"$ref": "#/components/parameters/orders.total.gte"} in listed
        assert document["components"]["parameters"]["orders.total.gte"]["name"] == "total[gte]"
        where = document["components"]["schemas"]["OrderFilter"]
        assert where["additionalProperties"] is False
        assert {"total", "customer", "$or"} <= set(where["properties"])

    def test_what_writes_takes_a_key(self, document: dict[str, Any]) -> None:
        key = {"$ref": "#/components/parameters/IdempotencyKey"}
        taking = {
            (method, path)
            for path, item in document["paths"].items()
            for method, one in item.items()
            if method in METHODS and key in one.get("parameters", ())
        }
        assert {
            ("post", "/api/orders"),
            ("delete", "/api/orders/{id}"),
            ("put", "/api/orders/{id}"),
        } <= taking
        assert ("post", "/api/orders:bulk_create") in taking
        assert not {path for method, path in taking if method == "get" or path.endswith(":count")}
        headers = document["paths"]["/api/orders"]["post"]["responses"]["201"]["headers"]
        assert {"Location", "Idempotency-Replayed"} <= set(headers)

    def test_what_the_address_says_is_not_in_the_body(self, document: dict[str, Any]) -> None:
        flat = document["components"]["schemas"]["OrderUpdate"]
        assert set(flat["properties"]) == {"total", "customer_id", "note"}
        operators = document["components"]["schemas"]["OrderUpdateByFields"]
        assert operators["required"] == ["fields"]

    def test_it_asks_for_a_credential_only_where_one_is_needed(self, shop: Nexus) -> None:
        open_one = described(shop)
        assert "security" not in open_one
        assert not any("401" in one["responses"] for one in _operations(open_one).values())
        locked = described(shop, locked=True)
        assert locked["security"] == [{"bearer": []}, {"key": []}]
        assert locked["components"]["securitySchemes"]["key"]["name"] == "X-API-Key"
        assert locked["paths"]["/livez"]["get"]["security"] == []
        assert "401" in locked["paths"]["/api/orders"]["get"]["responses"]

    def test_the_limits_that_there_are(self, shop: Nexus) -> None:
        def told(path: str, method: str, **limits: bool) -> set[str]:
            document = described(shop, limits=Limits(**limits))
            return set(document["paths"][path][method]["responses"]) & {"408", "429", "431", "504"}

        assert told("/api/orders", "post") == {"431"}
        assert told("/api/orders", "post", rate=True, receiving=True, doing=True) == {
            "408",
            "429",
            "431",
            "504",
        }
        assert told("/api/orders", "get", receiving=True) == {"431"}
        assert told("/livez", "get", rate=True, receiving=True, doing=True) == {"431"}
        limited = described(shop, limits=Limits(rate=True))
        made = limited["paths"]["/api/orders"]["post"]["responses"]["201"]
        assert {"Location", "RateLimit", "RateLimit-Policy"} <= set(made["headers"])
        assert set(limited["components"]["headers"]) == {"RateLimit", "RateLimit-Policy"}
        assert "Retry-After" in limited["components"]["responses"]["RateLimited"]["headers"]

    def test_without_the_rest_channel_only_the_server_is_there(self, shop: Nexus) -> None:
        assert set(described(shop, prefix=None)["paths"]) == {
            "/",
            "/livez",
            "/readyz",
            "/health",
            "/ready",
            "/openapi.json",
        }

    def test_examples_are_accepted(self, shop: Nexus, document: dict[str, Any]) -> None:
        for key in ("POST /api/orders", "PATCH /api/orders/{id}", "POST /api/customers:bulk_create"):
            operation = _operations(document)[key]
            example = operation["requestBody"]["content"]["application/json"]["example"]
            registered = shop.registry[operation["operationId"]]
            assert registered.arguments.accept(json.dumps(example).encode())

    @pytest.mark.parametrize("resources", [("", ""), ("same", "same"), ("one", "other")])
    @pytest.mark.parametrize("module", [__name__, "elsewhere"])
    def test_two_types_of_one_name_are_told_apart(
        self, shop: Nexus, resources: tuple[str, str], module: str
    ) -> None:
        """Also within one resource, whose types are read together, and after the first is settled."""

        async def handler(call: object, given: object) -> None: ...

        for number, (resource, field) in enumerate(zip(resources, "ab", strict=True)):
            options: dict[str, Any] = {"module": module} if number else {}
            made = msgspec.defstruct("Same", [(field, int)], forbid_unknown_fields=True, **options)
            shop.registry.add(Operation(f"do{number}", handler, made, resource=resource, verb=f"do{number}"))
        schemas = described(shop)["components"]["schemas"]
        assert set(schemas["Same"]["properties"]) == {"a"}
        assert set(schemas["Same2"]["properties"]) == {"b"}

    def test_an_input_may_hold_itself(self, shop: Nexus) -> None:
        async def handler(call: object, given: Tree) -> None: ...

        shop.registry.add(Operation("grow", handler, Tree))
        document = described(shop)
        assert document["components"]["schemas"]["Tree"]["properties"]["below"]["items"] == {
            "$ref": "#/components/schemas/Tree"
        }

    def test_a_type_that_nothing_is_known_of(self, shop: Nexus, caplog: pytest.LogCaptureFixture) -> None:
        class Own:
            pass

        async def handler(call: object, given: object) -> None: ...

        taken = msgspec.defstruct("Taken", [("own", Own)])
        shop.registry.add(Operation("odd", handler, taken, output=Own))
        shop.registry.add(Operation("odd_read", handler, taken, effect=Effect.READ))
        assert "odd" in described(shop)["paths"]["/api/workflows/odd/execute"]["post"]["operationId"]
        answered = described(shop)["paths"]["/api/workflows/odd/execute"]["post"]["responses"]["200"]
        assert answered["content"]["application/json"]["schema"] == {}
        assert "'odd' is described without a schema" in caplog.text

    def test_what_is_to_be_used_no_more(self, shop: Nexus) -> None:
        class Search(msgspec.Struct):
            text: str = ""
            words: Annotated[str, msgspec.Meta(extra_json_schema={"deprecated": True})] = ""

        async def search(call: object, given: Search) -> None: ...

        more = {"resource": "customers", "verb": "search", "effect": Effect.READ}
        shop.registry.add(Operation("customers.search", search, Search, **more))  # type: ignore[arg-type]
        document = described(shop)
        described_at = document["paths"]["/api/customers:search"]
        parameters = {one["name"]: one for one in described_at["get"]["parameters"]}
        assert parameters["words"]["deprecated"] is True
        assert "deprecated" not in parameters["text"]
        (reference,) = _references(described_at["post"]["requestBody"])
        body = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
        assert (body["words"]["deprecated"], "deprecated" in body["text"]) == (True, False)

    def test_it_is_kept_until_something_changes(self, shop: Nexus) -> None:
        kept = Described(shop.registry, title="Shop")
        first = kept.document("")
        assert kept.document("") is first
        assert kept.known("") is first
        shop.registry.remove("orders.count")
        assert kept.known("") is None
        assert b"orders:count" in first
        assert b"orders:count" not in kept.document("")
        assert json.loads(kept.document("/shop"))["servers"] == [{"url": "/shop"}]


class TestServed:
    @pytest.fixture
    async def client(self, shop: Nexus) -> AsyncIterator[httpx2.AsyncClient]:
        async with (
            running_server(shop) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
        ):
            yield client

    async def test_it_follows_what_is_registered(self, shop: Nexus, client: httpx2.AsyncClient) -> None:
        async def again(call: object, given: object) -> str:
            return "again"

        before = await client.get("/openapi.json")
        assert before.headers["content-type"] == "application/json"
        shop.registry.add(Operation("again", again, effect=Effect.READ, output=str))
        after = await client.get("/openapi.json")
        added = set(after.json()["paths"]) - set(before.json()["paths"])
        assert added == {"/api/workflows/again/execute"}

    async def test_pages_come_from_here_alone(self, client: httpx2.AsyncClient) -> None:
        page = await client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        for path, media in (("docs/docs.js", "text/javascript"), ("docs/docs.css", "text/css")):
            assert f'"{path}"' in page.text
            file = await client.get(f"/{path}")
            assert file.headers["content-type"] == f"{media}; charset=utf-8"
            assert "//" not in file.text.replace("// ", "")
        assert "http" not in page.text
        assert "<style" not in page.text
        assert "style=" not in page.text

    async def test_a_page_that_is_known_is_not_sent_again(self, client: httpx2.AsyncClient) -> None:
        tag = (await client.get("/docs")).headers["etag"]
        known = await client.get("/docs", headers={"if-none-match": f'"other", W/{tag}'})
        assert (known.status_code, known.content) == (304, b"")
        assert (await client.get("/docs", headers={"if-none-match": '"other"'})).status_code == 200

    async def test_methods(self, client: httpx2.AsyncClient) -> None:
        for path in ("/docs", "/openapi.json", "/livez"):
            assert (await client.post(path)).status_code == 405
            options = await client.options(path)
            assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")


async def test_the_page_needs_no_key_and_the_description_does() -> None:
    app = Nexus(DataFlow(":memory:"), channels=("rest",), settings=Settings(api_key="secret"))
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/docs/docs.js")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 401
        known = await client.get("/openapi.json", headers={"x-api-key": "secret"})
        assert known.json()["security"]


def test_the_program_prints_the_same(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "from dataflow import DataFlow\nfrom nexus import Nexus\napp = Nexus(DataFlow(':memory:'))\n"
    )
    command = [sys.executable, "-m", "nexus_channels.cli.main", "--app", str(program), "openapi"]
    printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert printed["openapi"] == "3.1.0"
    assert "/api/session" in printed["paths"]
