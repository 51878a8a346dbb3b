"""One story, told through each channel of the shop as it is shipped: the same results, the same error codes,
the same published changes, and nothing published that did not happen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import drivers
from tests.scenario.drivers import Driver, Server

SHOP = Path(__file__).parent.parent.parent / "examples" / "shop" / "app.py"
CHANNELS: dict[str, Callable[[Server], AbstractAsyncContextManager[Driver]]] = {
    "rest": drivers.rest,
    "cli": drivers.cli,
    "mcp-http": drivers.mcp_http,
    "mcp-stdio": drivers.mcp_stdio,
    "websocket": drivers.websocket,
}

LAMP = {"name": "Lamp", "price": 9.5}
# operation, arguments, a part of the result
STEPS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("products.create", LAMP, {"id": 1, "name": "Lamp", "price": 9.5, "stock": 0, "on_sale": False}),
    ("products.create", {"name": "Pen", "price": 1, "stock": 9}, {"id": 2, "price": 1.0}),
    ("products.get", {"id": 1}, {"id": 1, "name": "Lamp"}),
    ("products.update", {"id": 1, "on_sale": True}, {"on_sale": True, "stock": 0}),
    ("products.update", {"id": 1, "fields": {"stock": {"$inc": 2}}}, {"stock": 2}),
    ("products.list", {"filter": {"price": {"$gt": 3}}, "limit": 5}, {"count": 1, "limit": 5, "offset": 0}),
    ("products.count", {"filter": {"on_sale": False}}, {"count": 1}),
    ("products.delete", {"id": 2}, {"deleted": 1, "id": 2}),
]
# what is wrong, operation, arguments, code, what the message names
MISTAKES: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("unknown operation", "products.crate", {}, "DF-701", "crate"),
    ("unknown workflow", "restok", {}, "DF-701", "restock"),
    ("unknown argument", "products.create", {**LAMP, "colour": "red"}, "DF-106", "colour"),
    ("pages of nodes", "products.list", {"streaming": True}, "DF-106", "for the node of a workflow"),
    ("misspelt argument", "products.create", {"nmae": "Lamp", "price": 1}, "DF-106", "name"),
    ("wrong type", "products.create", {"name": "Lamp", "price": "cheap"}, "DF-102", "price"),
    ("missing argument", "products.create", {"name": "Lamp"}, "DF-101", "price"),
    ("not a number", "products.update", {"id": 1, "stock": 2**63}, "DF-102", "stock"),
    ("unknown field", "products.list", {"filter": {"nmae": "Lamp"}}, "DF-107", "name"),
    ("unknown operator", "products.count", {"filter": {"name": {"$qe": 1}}}, "DF-107", "$qe"),
    ("no such record", "products.get", {"id": 77}, "DF-404", "77"),
    ("wrong rule", "restock", {"product_id": 1, "quantity": -1}, "DF-102", "quantity"),
    ("fails inside", "restock", {"product_id": 77, "quantity": 1}, "DF-404", "77"),
    ("taken key", "products.create", {**LAMP, "id": 1}, "NX-409", "id"),
    ("overflow", "products.update", {"id": 1, "fields": {"stock": {"$inc": 2**63 - 1}}}, "NX-409", "stock"),
    ("too large", "products.create", {"name": "x" * 1_100_000, "price": 1}, "NX-413", "1048576"),
]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Server]:
    environment = drivers.environment(DATABASE_URL=f"sqlite:///{tmp_path / 'shop.db'}")
    async with drivers.server(SHOP, environment) as running:
        yield running


@pytest.mark.parametrize("channel", CHANNELS)
async def test_the_story(served: Server, channel: str) -> None:
    async with drivers.watcher(served) as watcher, CHANNELS[channel](served) as driver:
        ready = await watcher.subscribe(topic="products", snapshot=True)
        assert (ready["type"], ready["records"], ready["more"]) == ("snapshot", [], False)
        assert (await watcher.frame())["type"] == "ready"

        for operation, arguments, expected in STEPS:
            outcome = await driver.run(operation, arguments)
            assert outcome.code is None, outcome
            assert outcome.result | expected == outcome.result, operation
        restocked = await driver.run("restock", {"product_id": 1, "quantity": 5})
        assert restocked.result["results"]["add"]["stock"] == 7

        seen = [await watcher.frame() for _ in range(6)]
        assert [(f["type"], f["event"], f["key"]) for f in seen] == [
            ("change", "enter", 1),
            ("change", "enter", 2),
            ("change", "update", 1),
            ("change", "update", 1),
            ("change", "leave", 2),
            ("change", "update", 1),
        ]
        assert [f["pos"] for f in seen] == list(range(1, 7))
        assert [f["prev"] for f in seen] == list(range(6))
        assert {f["actor"] for f in seen} == {"local"}
        assert [f["run"] for f in seen] == [None] * 5 + [restocked.result["run_id"]]
        assert seen[-1]["record"] == restocked.result["results"]["add"]
        assert seen[-1]["old"]["stock"] == 2

        before = (await driver.run("products.list", {})).result
        for mistake, operation, arguments, code, named in MISTAKES:
            outcome = await driver.run(operation, arguments)
            assert outcome.code == code, (mistake, outcome)
            assert named in outcome.text, (mistake, outcome)
        outcome = await driver.malformed()
        assert outcome.code == "NX-400", outcome
        assert (await driver.run("products.list", {})).result == before
        assert await watcher.silence(1.2)


async def test_the_channels_tell_the_same(served: Server) -> None:
    """Each writes, each reads what the others wrote, to the byte."""
    async with drivers.watcher(served) as watcher:
        await watcher.subscribe(topic="products")
        for name, channel in CHANNELS.items():
            async with channel(served) as driver:
                made = await driver.run("products.create", {"name": name, "price": 0.1 + 0.2})
                assert (await watcher.frame())["record"] == made.result
        lists = []
        for channel in CHANNELS.values():
            async with channel(served) as driver:
                lists.append((await driver.run("products.list", {})).result)
        assert all(listed == lists[0] for listed in lists)
        assert [record["name"] for record in lists[0]["records"]] == list(CHANNELS)


async def test_no_update_is_lost_between_the_channels(served: Server) -> None:
    async with drivers.rest(served) as driver:
        await driver.run("products.create", LAMP)

    async def restock(channel: Callable[[Server], AbstractAsyncContextManager[Driver]], times: int) -> None:
        async with channel(served) as driver:
            for _ in range(times):
                outcome = await driver.run("restock", {"product_id": 1, "quantity": 1})
                assert outcome.code is None, outcome

    times = {"cli": 3}
    await asyncio.gather(
        *(restock(channel, times.get(name, 20)) for name, channel in CHANNELS.items() for _ in range(2))
    )
    async with drivers.rest(served) as driver:
        assert (await driver.run("products.get", {"id": 1})).result["stock"] == 2 * (4 * 20 + 3)


async def test_what_is_registered_while_the_server_runs_is_everywhere(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        f"""
from dataflow import DataFlow
from nexus import Call, Nexus
from nexus_workflows import WorkflowBuilder
db = DataFlow("sqlite:///{tmp_path / "late.db"}")
app = Nexus(db)
@app.operation
async def grow(call: Call) -> None:
    class Tree:
        height: int
    db.model(Tree)
    taller = WorkflowBuilder()
    taller.add_node("TreeUpdateNode", "grow", {{"id": "{{{{id}}}}", "fields": {{"height": {{"$inc": 1}}}}}})
    app.register("taller", taller)
"""
    )
    async with (
        drivers.server(app, drivers.environment()) as served,
        drivers.rest(served) as rest,
        drivers.websocket(served) as websocket,
        drivers.mcp_http(served) as mcp,
        drivers.watcher(served) as watcher,
    ):
        for driver in (rest, websocket, mcp):
            assert (await driver.run("trees.create", {"height": 1})).code == "DF-701"
        assert (await watcher.subscribe(topic="trees"))["code"] == "NX-404"
        async with mcp._client.listen(tools_list_changed=True) as changes:  # type: ignore[attr-defined]
            await rest.run("grow", {})
            async with asyncio.timeout(5):
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
        tools = await mcp._client.list_tools()  # type: ignore[attr-defined]
        assert {"trees_create", "taller"} <= {tool.name for tool in tools.tools}
        assert (await watcher.subscribe(topic="trees"))["type"] == "ready"
        for key, driver in zip(itertools.count(1), (rest, websocket, mcp), strict=False):
            assert (await driver.run("trees.create", {"height": 1})).result["id"] == key
            run = await driver.run("taller", {"id": key})
            assert run.result["results"]["grow"]["height"] == 2
            assert (await watcher.frame())["event"] == "enter"
            assert (await watcher.frame())["event"] == "update"


async def test_an_unknown_topic_is_named(served: Server) -> None:
    async with drivers.watcher(served) as watcher:
        answer = await watcher.subscribe(topic="product")
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "NX-404", "w")
        assert "products" in answer["remedy"]
        assert (await watcher.subscribe(topic="products"))["type"] == "ready"
