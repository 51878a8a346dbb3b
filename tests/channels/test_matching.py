"""Tags, and changes of what was seen only, alike on every channel."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp_types import CallToolResult, TextContent

from dataflow import DataFlow
from nexus import Nexus
from nexus.errors import InvalidInput
from nexus.etag import parse_match
from nexus_channels.openapi.conditions import PARAMETERS
from nexus_channels.server import running_server
from tests.support.problems import assert_problem
from tests.support.wire import Wire, wire

MODELS = ["papers", "drafts"]


def application() -> Nexus:
    db = DataFlow(":memory:")

    @db.model
    class Paper:
        title: str
        author_id: int | None = None

    @db.model
    class Draft:
        title: str
        __dataflow__ = {"versioned": True}

    @db.model
    class Author:
        name: str

    @db.model
    class Careful:
        title: str
        note: str | None = None
        __tablename__ = "carefuls"
        __dataflow__ = {"require_if_match": True}

    return Nexus(db, channels=("rest", "websocket", "mcp"))


@dataclass
class Served:
    url: str
    client: httpx2.AsyncClient


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with (
        running_server(application()) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield Served(url, client)


@pytest.fixture
def client(served: Served) -> httpx2.AsyncClient:
    return served.client


@pytest.fixture
async def line(served: Served) -> AsyncIterator[Wire]:
    async with wire(served.url) as connected:
        yield connected


@pytest.fixture
async def tools(served: Served) -> AsyncIterator[Client]:
    async with Client(served.url + "/mcp") as connected:
        yield connected


async def made(client: httpx2.AsyncClient, route: str) -> tuple[str, str]:
    """The address of a new record, and its tag."""
    answer = await client.post(f"/api/{route}", json={"title": "one"})
    assert answer.status_code == 201
    return answer.headers["location"], answer.headers["etag"]


@pytest.mark.parametrize("route", MODELS)
class TestRest:
    async def test_every_record_has_a_tag(self, client: httpx2.AsyncClient, route: str) -> None:
        address, first = await made(client, route)
        assert first.startswith('"')
        assert first.endswith('"')
        assert (await client.get(address)).headers["etag"] == first
        for method in ("PATCH", "PUT"):
            changed = await client.request(method, address, json={"title": method})
            assert changed.headers["etag"] == (await client.get(address)).headers["etag"] != first

    async def test_what_the_client_has_is_not_sent_again(
        self, client: httpx2.AsyncClient, route: str
    ) -> None:
        address, tag = await made(client, route)
        for method in ("GET", "HEAD"):
            for known in (tag, f"W/{tag}", f'"x", {tag}', "*", tag.strip('"')):
                answer = await client.request(method, address, headers={"if-none-match": known})
                assert (answer.status_code, answer.content) == (304, b""), known
                assert answer.headers["etag"] == tag
                assert "content-type" not in answer.headers
        several = [("if-none-match", '"x"'), ("if-none-match", tag)]
        assert (await client.get(address, headers=several)).status_code == 304
        assert (await client.get(address, headers={"if-none-match": '"x"'})).json()["title"] == "one"
        await client.patch(address, json={"title": "two"})
        assert (await client.get(address, headers={"if-none-match": tag})).json()["title"] == "two"

    async def test_a_connection_goes_on_after_it(self, client: httpx2.AsyncClient, route: str) -> None:
        address, tag = await made(client, route)
        for _ in range(3):
            assert (await client.get(address, headers={"if-none-match": tag})).status_code == 304
            assert (await client.get(address)).status_code == 200

    async def test_changes(self, client: httpx2.AsyncClient, route: str) -> None:
        address, first = await made(client, route)
        seen = {"if-match": first}
        changed = await client.patch(address, json={"title": "two"}, headers=seen)
        second = changed.headers["etag"]
        for method in ("PATCH", "PUT", "DELETE"):
            body: dict[str, Any] = {} if method == "DELETE" else {"json": {"title": "three"}}
            failed = await client.request(method, address, headers=seen, **body)
            problem = assert_problem(failed, 412, "NX-412")
            assert problem["etag"] == failed.headers["etag"] == second
        assert (await client.get(address)).json()["title"] == "two"
        several = [("if-match", '"x"'), ("if-match", second)]
        assert (await client.put(address, json={"title": "four"}, headers=several)).status_code == 200
        assert (await client.delete(address, headers={"if-match": "*"})).status_code == 200
        gone = await client.delete(address, headers={"if-match": "*"})
        assert_problem(gone, 404, "DF-404")

    async def test_reading_what_has_changed(self, client: httpx2.AsyncClient, route: str) -> None:
        address, tag = await made(client, route)
        assert (await client.get(address, headers={"if-match": tag})).status_code == 200
        assert_problem(await client.get(address, headers={"if-match": '"x"'}), 412, "NX-412")

    async def test_what_cannot_be_read(self, client: httpx2.AsyncClient, route: str) -> None:
        address, _ = await made(client, route)
        for header in ("if-match", "if-none-match"):
            for value in ("", '"', '"a" "b"', "a b"):
                assert_problem(await client.get(address, headers={header: value}), 400, "NX-400")

    async def test_conditions_that_a_write_cannot_have(self, client: httpx2.AsyncClient, route: str) -> None:
        address, _ = await made(client, route)
        none = {"if-none-match": "*"}
        for method, at in (("POST", f"/api/{route}"), ("PUT", address), ("PATCH", address)):
            problem = assert_problem(
                await client.request(method, at, json={"title": "x"}, headers=none), 400, "NX-400"
            )
            assert "If-None-Match" in problem["detail"]
        assert_problem(await client.delete(address, headers=none), 400, "NX-400")

    async def test_where_there_is_no_one_record(self, client: httpx2.AsyncClient, route: str) -> None:
        match = {"if-match": '"x"'}
        asked = [
            ("list", await client.get(f"/api/{route}", headers=match)),
            ("list", await client.get(f"/api/{route}", headers={**match, "accept": "text/csv"})),
            ("create", await client.post(f"/api/{route}", json={"title": "x"}, headers=match)),
            ("count", await client.get(f"/api/{route}:count", headers=match)),
            ("bulk_create", await client.post(f"/api/{route}:bulk_create", json={"data": []}, headers=match)),
        ]
        lines = {**match, "content-type": "application/x-ndjson"}
        rows = await client.post(f"/api/{route}:bulk_create", content=b'{"title": "x"}\n', headers=lines)
        for verb, answer in [*asked, ("bulk_create", rows)]:
            problem = assert_problem(answer, 400, "NX-400")
            assert f"'{route}.{verb}'" in problem["detail"]
        assert "etag" not in (await client.get(f"/api/{route}")).headers

    async def test_dates_are_ignored(self, client: httpx2.AsyncClient, route: str) -> None:
        address, _ = await made(client, route)
        long_ago = "Sat, 01 Jan 2000 00:00:00 GMT"
        later = "Sat, 01 Jan 2050 00:00:00 GMT"
        ignored = {"if-unmodified-since": long_ago, "if-modified-since": later, "if-range": later}
        assert (await client.get(address, headers=ignored)).status_code == 200
        assert (await client.patch(address, json={"title": "x"}, headers=ignored)).status_code == 200


async def test_related_records_have_a_weak_tag(client: httpx2.AsyncClient) -> None:
    author = (await client.post("/api/authors", json={"name": "Ann"})).json()["id"]
    address, _ = await made(client, "papers")
    await client.patch(address, json={"author_id": author})
    first = await client.get(address, params={"include": "author"})
    weak = first.headers["etag"]
    assert weak.startswith('W/"')
    again = {"if-none-match": weak}
    assert (await client.get(address, params={"include": "author"}, headers=again)).status_code == 304
    await client.patch(f"/api/authors/{author}", json={"name": "Bob"})
    assert (await client.get(address, params={"include": "author"}, headers=again)).status_code == 200
    refused = await client.patch(address, json={"title": "x"}, headers={"if-match": weak})
    assert "weak" in assert_problem(refused, 412, "NX-412")["detail"]


TEXTS = st.lists(st.sampled_from(["W/", '"', "a", "*", ",", " ", "\t", "0-1", "é"]), max_size=8)


@given(TEXTS.map("".join).map(str.strip))
def test_the_description_says_what_is_read(text: str) -> None:
    described = re.search(PARAMETERS["IfMatch"]["schema"]["pattern"], text)
    try:
        parse_match(text)
    except InvalidInput:
        assert described is None
    else:
        assert described is not None


async def test_a_model_that_demands_it(client: httpx2.AsyncClient) -> None:
    address, tag = await made(client, "carefuls")
    problem = assert_problem(await client.patch(address, json={"title": "x"}), 428, "NX-427")
    assert "If-Match" in problem["remedy"]
    assert_problem(await client.delete(address), 428, "NX-427")
    body = {"id": int(address.rsplit("/", 1)[1]), "title": "x"}
    for name in ("carefuls.update", "CarefulUpdateNode"):
        assert_problem(await client.post(f"/api/workflows/{name}/execute", json=body), 428, "NX-427")
    await client.patch(address, json={"title": "x"}, headers={"if-match": tag})
    assert (await client.delete(address, headers={"if-match": "*"})).status_code == 200


@pytest.mark.parametrize("route", MODELS)
async def test_websocket(client: httpx2.AsyncClient, line: Wire, route: str) -> None:
    async def ask(verb: str, **more: Any) -> dict[str, Any]:
        return await line.ask(type="call", id="1", operation=f"{route}.{verb}", **more)

    created = await ask("create", arguments={"title": "one"})
    first, about = created["etag"], {"id": created["result"]["id"]}
    assert (await ask("get", arguments=about))["etag"] == first
    assert (await client.get(f"/api/{route}/{about['id']}")).headers["etag"] == first
    changed = await ask("update", arguments={**about, "title": "two"}, if_match=first)
    failed = await ask("update", arguments={**about, "title": "three"}, if_match=first)
    assert (failed["type"], failed["code"]) == ("error", "NX-412")
    assert failed["etag"] == changed["etag"] != first
    assert (await ask("list", if_match=first))["code"] == "NX-400"
    assert "etag" not in await ask("list")
    assert "etag" not in await ask("delete", arguments=about, if_match=changed["etag"])


def tag_in(result: CallToolResult) -> str:
    assert not result.is_error
    assert result.meta is not None
    return str(result.meta["nexus/etag"])


def problem_in(result: CallToolResult) -> Any:
    assert result.is_error
    (_, second) = [content.text for content in result.content if isinstance(content, TextContent)]
    return json.loads(second)


@pytest.mark.parametrize("route", MODELS)
async def test_tools_of_a_program(client: httpx2.AsyncClient, tools: Client, route: str) -> None:
    created = await tools.call_tool(f"{route}_create", {"title": "one"})
    first = tag_in(created)
    assert created.structured_content is not None
    assert "if_match" not in created.structured_content
    about = {"id": created.structured_content["id"]}
    assert tag_in(await tools.call_tool(f"{route}_get", about)) == first
    assert (await client.get(f"/api/{route}/{about['id']}")).headers["etag"] == first
    meta: Any = {"nexus/if_match": first}
    changed = await tools.call_tool(f"{route}_update", {**about, "title": "two"}, meta=meta)
    failed = await tools.call_tool(f"{route}_update", {**about, "title": "three"}, meta=meta)
    assert problem_in(failed)["code"] == "NX-412"
    assert problem_in(failed)["etag"] == tag_in(changed)
    misspelt: Any = {"nexus/if_mach": first, "other/thing": 1}
    refused = problem_in(await tools.call_tool(f"{route}_delete", about, meta=misspelt))
    assert refused["code"] == "DF-106"
    assert "if_match" in refused["detail"]
    assert (
        problem_in(await tools.call_tool(f"{route}_delete", {**about, "if_match": "x"}))["code"] == "DF-106"
    )


async def test_tools_of_an_agent_where_a_model_demands_it(tools: Client) -> None:
    """All it sees is in the schemas, the arguments and the results."""
    found = {tool.name: tool for tool in (await tools.list_tools()).tools}
    for verb in ("update", "delete"):
        accepts = found[f"carefuls_{verb}"].input_schema
        assert "if_match" in accepts["properties"]
        assert "if_match" in accepts["required"]
        assert "if_match" not in found[f"papers_{verb}"].input_schema["properties"]
    for verb in ("get", "create", "update"):
        returns = found[f"carefuls_{verb}"].output_schema
        assert returns is not None
        assert "if_match" in returns["properties"]

    created = await tools.call_tool("carefuls_create", {"title": "one"})
    assert created.structured_content is not None
    about = {"id": created.structured_content["id"]}
    read = await tools.call_tool("carefuls_get", about)
    (text,) = [content.text for content in read.content if isinstance(content, TextContent)]
    assert json.loads(text) == read.structured_content
    tag = json.loads(text)["if_match"]
    change = {**about, "title": "two"}
    assert problem_in(await tools.call_tool("carefuls_update", change))["code"] == "NX-427"
    done = await tools.call_tool("carefuls_update", {**change, "if_match": tag})
    assert done.structured_content is not None
    assert (
        problem_in(await tools.call_tool("carefuls_update", {**change, "if_match": tag}))["code"] == "NX-412"
    )
    assert problem_in(await tools.call_tool("carefuls_delete", {**about, "if_match": 3}))["code"] == "DF-102"
    last = {**about, "if_match": done.structured_content["if_match"]}
    meta: Any = {"nexus/if_match": tag}
    assert problem_in(await tools.call_tool("carefuls_delete", last, meta=meta))["code"] == "NX-400"
    assert not (await tools.call_tool("carefuls_delete", last)).is_error
