"""What readers of the reference type: a gateway, the wide constructor, nodes executed by name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from mcp import Client

from dataflow import DataFlow
from nexus import Nexus, Settings
from nexus.errors import ConfigurationError, NexusError
from nexus_channels.server import running_server
from nexus_workflows import AsyncLocalRuntime, WorkflowBuilder
from nexus_workflows.gateway import create_gateway
from tests.channels.conftest import KEY
from tests.support.hosting import hosted
from tests.support.problems import assert_problem


def http_to(url: str, **more: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20, **more)


def welcome(model: str = "Product") -> Any:
    builder = WorkflowBuilder("Create one.")
    builder.add_node(f"{model}CreateNode", "create", {"name": "{{name}}", "price": 1.0})
    return builder.build()


class TestGateway:
    async def test_serves_the_models_and_the_workflows(self, db: DataFlow) -> None:
        gateway = create_gateway(
            title="Product API",
            server_type="enterprise",
            dataflow_integration=db,
            auto_generate_endpoints=True,
            authentication_required=True,
            workflows={"welcome": welcome()},
            settings=Settings(api_key=KEY),
        )
        async with running_server(gateway) as url, http_to(url, headers={"x-api-key": KEY}) as http:
            assert (await http.get("/")).json()["title"] == "Product API"
            assert (await http.get("/api/products", headers={"x-api-key": "no"})).status_code == 401
            made = await http.post("/api/products", json={"name": "Lamp", "price": 9.5})
            assert made.status_code == 201
            at = made.headers["location"]
            assert (await http.patch(at, json={"price": 8.5})).json()["price"] == 8.5
            assert (await http.get(at)).json()["name"] == "Lamp"
            assert (await http.get("/api/products")).json()["count"] == 1
            assert (await http.delete(at)).status_code == 200
            run = await http.post("/api/workflows/welcome/execute", json={"name": "Pen"})
            assert run.status_code == 200
            assert (await http.get("/api/products")).json()["records"][0]["name"] == "Pen"

    @pytest.mark.parametrize(
        ("options", "remedy"),
        [
            ({"server_type": "enterprize"}, "enterprise"),
            ({"auto_generate_endpoints": False}, "dataflow_integration"),
            ({"enable_cli": False}, "program"),
        ],
    )
    def test_refuses_what_it_cannot_honour(self, options: dict[str, Any], remedy: str) -> None:
        with pytest.raises(ConfigurationError, match=remedy):
            create_gateway(**options)

    def test_an_option_that_there_is_not(self) -> None:
        with pytest.raises(TypeError, match="did you mean 'dataflow_integration'"):
            create_gateway(dataflow_intergation=None)

    def test_that_wants_authentication_is_not_served_without_a_key(self) -> None:
        gateway = create_gateway(authentication_required=True)
        with pytest.raises(ConfigurationError, match="NEXUS_API_KEY"):
            gateway.serve(port=0)

    def test_is_made_of_any_kind(self) -> None:
        for kind in ("basic", "durable", "enterprise"):
            assert create_gateway(server_type=kind, title=kind).title == kind


class TestNexus:
    async def test_made_first_and_models_later(self, database: str) -> None:
        """Workflows find nodes of a DataFlow that nobody attached; its models are offered when it is."""
        app = Nexus(api_port=0, auto_discovery=False, settings=Settings())
        db = DataFlow(database, enable_model_persistence=False)

        @db.model
        class Voucher:
            name: str
            price: float

        app.register("welcome", welcome("Voucher"))
        async with running_server(app) as url, http_to(url) as http:
            run = await http.post("/api/workflows/welcome/execute", json={"name": "Pen"})
            assert run.status_code == 200, run.text
            assert run.json()["results"]["create"]["name"] == "Pen"
            assert (await http.get("/api/vouchers")).status_code == 404
            app.attach(db)
            assert (await http.get("/api/vouchers")).json()["count"] == 1
        await db.close()

    async def test_a_port_for_mcp(self, database: str) -> None:
        db = DataFlow(database)

        @db.model
        class Product:
            name: str

        app = Nexus(db, mcp_port=_free_port(), settings=Settings(body_limit=20_000))
        async with running_server(app) as url:
            own = f"http://127.0.0.1:{app.settings.mcp_port}"
            for base in (url, own):
                async with Client(f"{base}/mcp") as client:
                    assert not (await client.call_tool("products_create", {"name": base})).is_error
            async with http_to(own) as http:
                for path in ("/", "/api/products", "/ws", "/mcp/x", "/livez"):
                    answer = await http.get(path)
                    assert_problem(answer, 404, "DF-404")
                    assert answer.headers["x-request-id"]
            async with http_to(url) as http:
                assert (await http.get("/api/products")).json()["count"] == 2

    async def test_a_port_for_mcp_that_cannot_be(self) -> None:
        for options in ({"enable_mcp": False}, {"channels": ["rest"]}):
            app = Nexus(mcp_port=_free_port(), settings=Settings(), **options)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="MCP is not served"):
                app.serve(port=0)
        locked = Nexus(mcp_port=_free_port(), settings=Settings())
        with pytest.raises(ConfigurationError, match="NEXUS_API_KEY"):
            locked.serve(host="0.0.0.0", port=0)


class TestExecute:
    """`POST /api/workflows/{NodeName}/execute`: each node is what its operation is."""

    @pytest.fixture
    async def http(self, db: DataFlow) -> AsyncIterator[httpx2.AsyncClient]:
        app = Nexus(db, channels=("rest",))
        async with running_server(app) as url, http_to(url) as http:
            yield http

    async def _run(self, http: httpx2.AsyncClient, node: str, **arguments: Any) -> httpx2.Response:
        return await http.post(f"/api/workflows/{node}/execute", json=arguments)

    async def test_every_node(self, http: httpx2.AsyncClient) -> None:
        made = (await self._run(http, "ProductCreateNode", name="Test", price=100)).json()
        given = made["id"]
        assert (await self._run(http, "ProductReadNode", id=given)).json()["name"] == "Test"
        changed = {"filter": {"id": given}, "fields": {"price": 90}}
        assert (await self._run(http, "ProductUpdateNode", **changed)).json()["price"] == 90
        listed = (await self._run(http, "ProductListNode", filter={"price": {"$lt": 95}})).json()
        assert [record["id"] for record in listed["records"]] == [given]
        assert (await self._run(http, "ProductCountNode")).json() == {"count": 1}
        groups = {"aggregate": {"total": {"$sum": "price"}}}
        summed = (await self._run(http, "ProductAggregateNode", **groups)).json()
        assert summed["records"] == [{"total": 90.0}]
        upserted = {"where": {"id": given}, "create": {"name": "x", "price": 1}, "update": {"price": 2}}
        assert (await self._run(http, "ProductUpsertNode", **upserted)).json()["action"] == "updated"
        rows = [{"name": "a", "price": 1}, {"name": "b", "price": 2}]
        assert (await self._run(http, "ProductBulkCreateNode", data=rows)).json()["success_count"] == 2
        bulk = {"filter": {"price": {"$lte": 2}}, "update": {"$inc": {"price": 1}}}
        assert (await self._run(http, "ProductBulkUpdateNode", **bulk)).json()["success_count"] == 3
        more = {"data": [{"id": given, "name": "z", "price": 7}], "match_fields": ["id"]}
        assert (await self._run(http, "ProductBulkUpsertNode", **more)).json()["updated"] == 1
        gone = {"filter": {"price": {"$lte": 3}}, "confirmed": True}
        assert (await self._run(http, "ProductBulkDeleteNode", **gone)).json()["success_count"] == 2
        assert (await self._run(http, "ProductDeleteNode", id=given)).status_code == 200
        assert (await self._run(http, "ProductCountNode")).json() == {"count": 0}

    async def test_what_is_wrong(self, http: httpx2.AsyncClient) -> None:
        unknown = await self._run(http, "ProductCraeteNode", name="x", price=1)
        assert_problem(unknown, 404, "DF-701")
        assert "ProductCreateNode" in unknown.json()["remedy"]
        assert_problem(await self._run(http, "ProductCreateNode", price=1), 422, "DF-101")
        assert_problem(await self._run(http, "ProductCreateNode", name="x", price="much"), 422, "DF-102")
        assert_problem(await self._run(http, "ProductCreateNode", name="x", price=1, colour=2), 422, "DF-106")
        assert_problem(await self._run(http, "ProductReadNode", id=99), 404, "DF-404")
        assert_problem(await self._run(http, "ProductListNode", filter={"nmae": 1}), 422, "DF-107")
        path = "/api/workflows/ProductCreateNode/execute"
        assert_problem(await http.get(path), 405, "NX-405")
        assert_problem(
            await http.post(path, content=b"{", headers={"content-type": "application/json"}), 400, "NX-400"
        )
        assert_problem(await http.post(f"{path}/more", json={}), 404, "DF-404")
        assert (await http.get("/api/products")).json()["count"] == 0

    async def test_describes_itself(self, http: httpx2.AsyncClient) -> None:
        described = (await http.get("/api/workflows/ProductCreateNode")).json()
        assert described["name"] == "products.create"
        assert described["effect"] == "create"
        accepted = (await http.get("/api/workflows/ProductUpdateNode")).json()["input"]["properties"]
        assert accepted["conditions"]["deprecated"] is accepted["updates"]["deprecated"] is True
        assert not any("deprecated" in accepted[name] for name in ("id", "filter", "fields"))


async def test_a_runtime_in_the_handlers_of_a_fastapi(db: DataFlow) -> None:
    """Nothing of ours is served there: the pool belongs to the event loop that uses it."""
    outer, runtime = FastAPI(), AsyncLocalRuntime(execution_timeout=30)
    workflow = WorkflowBuilder(registry=db)
    workflow.add_node("ProductCreateNode", "create", {"name": "{{name}}", "price": 1.0})

    @outer.post("/execute")
    async def execute(data: dict[str, Any]) -> dict[str, Any]:
        try:
            results, run_id = await runtime.execute_workflow_async(workflow.build(), inputs=data)
        except NexusError as failure:
            raise HTTPException(failure.status, failure.detail) from failure
        return {"status": "success", "results": results, "run_id": run_id}

    async with hosted(outer) as url, http_to(url) as http:
        done = await asyncio.gather(*(http.post("/execute", json={"name": f"n{i}"}) for i in range(5)))
        assert {answer.json()["results"]["create"]["name"] for answer in done} == {f"n{i}" for i in range(5)}
        assert (await http.post("/execute", json={"name": 5})).status_code == 422
    await db.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
