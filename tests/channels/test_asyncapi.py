"""The description of the websocket's frames: complete, resolvable, and true of what is sent."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from dataflow import DataFlow
from nexus import Nexus
from nexus_channels.server import running_server
from nexus_channels.websocket import channel
from tests.channels.conftest import Served
from tests.support.things import Things, application
from tests.support.wire import wire


async def fetched(url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.get("/asyncapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def names(frame: dict[str, Any], message: dict[str, Any]) -> None:
    """The frame has what the message requires, and nothing that it does not know."""
    payload = message["payload"]
    assert set(payload["required"]) <= set(frame) <= set(payload["properties"])


async def test_it_is_made_of_the_registry() -> None:
    db = DataFlow(":memory:")

    @db.model
    class Product:
        name: str
        price: float | None = None

    @db.model
    class Silent:
        __dataflow__ = {"changes": False}
        name: str

    app = Nexus(db, title="Shop", channels=["websocket"])
    async with running_server(app) as url, wire(url) as line:
        document = await fetched(url)
        assert (document["asyncapi"], document["info"]["title"]) == ("3.0.0", "Shop")
        messages = document["components"]["messages"]
        assert document["channels"]["websocket"]["address"] == "/ws"
        assert set(document["channels"]["websocket"]["messages"]) == set(messages)
        for reference in references({k: v for k, v in document.items() if k != "components"}):
            assert resolved(document, reference)
        listed = [one for each in document["operations"].values() for one in each["messages"]]
        assert len(listed) == len(messages)
        subscribe = messages["subscribe"]["payload"]
        assert subscribe["properties"]["topic"]["enum"] == ["products"]
        assert subscribe["properties"]["type"] == {"enum": ["subscribe"]}
        assert "products.create" in messages["call"]["payload"]["properties"]["operation"]["enum"]
        record = messages["snapshot.products"]["payload"]["properties"]["records"]["items"]
        assert record["properties"]["price"]["anyOf"][0] == {"type": "number"}

        await line.send(type="subscribe", id="s", topic="products", snapshot=True)
        names(await line.receive(), messages["snapshot.products"])
        names(await line.receive(), messages["ready"])
        await line.send(type="call", id="c", operation="products.create", arguments={"name": "x"})
        for frame in [await line.receive() for _ in range(2)]:
            names(frame, messages["result" if frame["type"] == "result" else "change.products"])
        names(await line.ask(type="call", id="c", operation="nothing"), messages["error"])
        names(await line.ask(type="ping"), messages["pong"])


async def test_it_tells_of_what_the_application_serves(served: Served) -> None:
    document = await fetched(served.url)
    assert "change.things" in document["components"]["messages"]
    app = application(Things(), channels=("rest",))
    async with (
        running_server(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        answer = await client.get("/asyncapi.json")
        assert (answer.status_code, answer.json()["code"]) == (404, "DF-404")


async def test_websockets_of_one_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SOCKETS", 2)
    async with running_server(application(Things())) as url, wire(url):
        async with wire(url):
            with pytest.raises(InvalidStatus) as refused:
                async with wire(url):
                    pass
            assert refused.value.response.status_code == 503
            assert "2 websockets" in json.loads(refused.value.response.body or b"")["detail"]
        async with wire(url) as line:
            assert await line.ask(type="ping") == {"type": "pong"}
