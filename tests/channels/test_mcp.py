"""What an MCP client sees, over HTTP and over stdio, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.subscriptions import ResourcesListChanged, ToolsListChanged
from mcp_types import CallToolResult, TextContent, TextResourceContents, Tool

from nexus_channels.mcp.tools import PAGE
from nexus_channels.server import running_server
from tests.channels import mcp_app

TRANSPORTS = [(transport, mode) for transport in ("http", "stdio") for mode in ("auto", "legacy")]
MODERN = "2026-07-28"
SILENCE = 0.7
"""Seconds after which nothing more is expected to be said."""


class Told:
    """Collects what the server says unasked, which is how clients of the handshake hear of changes."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, message: Any) -> None:
        self.methods.append(message.method)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(params=TRANSPORTS, ids="-".join)
async def client(request: pytest.FixtureRequest, told: Told) -> AsyncIterator[Client]:
    transport, mode = request.param
    async with AsyncExitStack() as stack:
        target: Any = StdioServerParameters(
            command=sys.executable, args=[str(Path(mcp_app.__file__))], env=dict(os.environ)
        )
        if transport == "http":
            target = await stack.enter_async_context(running_server(mcp_app.build())) + "/mcp"
        yield await stack.enter_async_context(Client(target, mode=mode, message_handler=told))


def texts(result: CallToolResult) -> list[str]:
    return [content.text for content in result.content if isinstance(content, TextContent)]


def failure(result: CallToolResult) -> dict[str, Any]:
    """What a failed call says, after looking at its form."""
    assert result.is_error
    assert result.structured_content is None
    first, second = texts(result)
    described: dict[str, Any] = json.loads(second)
    assert first.startswith(f"{described['code']} ")
    assert described["detail"] in first
    assert described.get("remedy", "") in first
    return described


async def tool(client: Client, name: str) -> Tool:
    return next(each for each in (await client.list_tools()).tools if each.name == name)


class TestTools:
    async def test_are_the_public_operations(self, client: Client) -> None:
        names = [each.name for each in (await client.list_tools()).tools]
        assert names == sorted(names)
        assert {"things_list", "things_get", "things_create", "things_delete", "echo"} <= set(names)
        assert "secret" not in names

    async def test_describe_what_they_take_and_give(self, client: Client) -> None:
        create = await tool(client, "things_create")
        assert create.title == "Create things"
        assert create.description == "Create things."
        assert create.input_schema["properties"]["name"]["description"] == "What it is called"
        assert create.input_schema["required"] == ["name"]
        assert create.input_schema["additionalProperties"] is False
        assert create.output_schema is not None
        assert set(create.output_schema["properties"]) == {"id", "name", "note"}

    async def test_hint_at_their_effect(self, client: Client) -> None:
        hints = {each.name: each.annotations for each in (await client.list_tools()).tools}
        found = {
            name: (
                hint.read_only_hint,
                hint.destructive_hint,
                hint.idempotent_hint,
                hint.open_world_hint,
            )
            for name, hint in hints.items()
            if hint is not None
        }
        assert found["things_list"] == (True, False, True, False)
        assert found["things_create"] == (False, False, False, False)
        assert found["things_delete"] == (False, True, True, False)
        assert found["echo"] == (False, True, False, True)

    async def test_come_in_pages(self, client: Client) -> None:
        await client.call_tool("register", {"names": [f"extra_{n:03}" for n in range(2 * PAGE)]})
        names, cursor = [], None
        while True:
            result = await client.list_tools(cursor=cursor)
            assert len(result.tools) <= PAGE
            names += [each.name for each in result.tools]
            cursor = result.next_cursor
            if cursor is None:
                break
        assert names == sorted(set(names))
        assert len(names) > 2 * PAGE

    async def test_refuse_a_cursor_that_they_did_not_give(self, client: Client) -> None:
        for cursor in ("", "x", "é", "YWZ0ZXI", "b3RoZXI6eA=="):
            with pytest.raises(MCPError) as raised:
                await client.list_tools(cursor=cursor)
            assert raised.value.code == -32602
            assert raised.value.data["code"] == "NX-410"


class TestResults:
    async def test_an_object_is_sent_as_it_is(self, client: Client) -> None:
        result = await client.call_tool("things_create", {"name": "a lamp"})
        assert not result.is_error
        assert result.structured_content == {"id": 1, "name": "a lamp", "note": None}
        assert [json.loads(text) for text in texts(result)] == [result.structured_content]

    async def test_anything_else_is_wrapped(self, client: Client) -> None:
        result = await client.call_tool("echo", {"text": "héllo"})
        assert result.structured_content == {"result": "héllo"}
        assert texts(result) == ['{"result":"héllo"}']
        schema = (await tool(client, "echo")).output_schema
        assert schema is not None
        assert schema["properties"] == {"result": {"type": "string"}}

    async def test_what_may_be_nothing_is_wrapped_both_times(self, client: Client) -> None:
        await client.call_tool("things_create", {"name": "a lamp"})
        there = await client.call_tool("find", {"id": 1})
        missing = await client.call_tool("find", {"id": 2})
        assert there.structured_content == {"result": {"id": 1, "name": "a lamp", "note": None}}
        assert missing.structured_content == {"result": None}

    async def test_without_a_declared_type_it_depends(self, client: Client) -> None:
        for value in ({"a": [None, 1.5]}, {}, [1, 2], "x", 7, True, None, 2**70):
            result = await client.call_tool("anything", {"value": value})
            assert result.structured_content == (value if isinstance(value, dict) else {"result": value})
        assert (await tool(client, "anything")).output_schema is None

    async def test_raw_json_is_sent_as_json(self, client: Client) -> None:
        result = await client.call_tool("raw")
        assert result.structured_content == {"column": {"a": None}, "none": None}

    async def test_every_spelling_is_understood(self, client: Client) -> None:
        for name in ("things_list", "things.list", "ThingListNode"):
            result = await client.call_tool(name, {"limit": 1})
            assert result.structured_content == {"records": [], "count": 0}

    async def test_calls_do_not_wait_for_each_other(self, client: Client) -> None:
        await client.list_tools()
        async with asyncio.timeout(5):
            calls = (client.call_tool("echo", {"text": str(n), "pause": 0.3}) for n in range(30))
            results = await asyncio.gather(*calls)
        assert [r.structured_content for r in results] == [{"result": str(n)} for n in range(30)]


class TestFailures:
    async def test_unknown_tool(self, client: Client) -> None:
        described = failure(await client.call_tool("things_lst", {}))
        assert described["code"] == "DF-701"
        assert described["remedy"] == "Did you mean 'things_list'?"

    async def test_internal_operations_do_not_exist(self, client: Client) -> None:
        described = failure(await client.call_tool("secret", {"id": 1}))
        assert described["code"] == "DF-701"
        assert "secret" not in described.get("remedy", "")

    async def test_unknown_argument(self, client: Client) -> None:
        described = failure(await client.call_tool("things_create", {"name": "x", "nam": "y"}))
        assert described["code"] == "DF-106"
        assert described["errors"][0]["pointer"] == "/nam"
        assert "'name'" in described["detail"]

    async def test_wrong_type(self, client: Client) -> None:
        described = failure(await client.call_tool("things_get", {"id": "one"}))
        assert described["code"] == "DF-102"
        assert described["errors"][0]["pointer"] == "/id"

    async def test_missing_argument(self, client: Client) -> None:
        for arguments in ({}, None):
            described = failure(await client.call_tool("things_create", arguments))
            assert described["code"] == "DF-101"
            assert described["errors"][0]["pointer"] == "/name"

    async def test_arguments_over_the_limit(self, client: Client) -> None:
        described = failure(await client.call_tool("things_create", {"name": "x" * mcp_app.LIMIT}))
        assert described["code"] == "NX-413"
        most = mcp_app.LIMIT - len('{"name":""}')
        assert not (await client.call_tool("things_create", {"name": "x" * most})).is_error

    async def test_no_such_record(self, client: Client) -> None:
        assert failure(await client.call_tool("things_get", {"id": 99}))["code"] == "DF-404"

    async def test_a_handler_that_raises(self, client: Client) -> None:
        result = await client.call_tool("explode")
        assert failure(result)["code"] == "NX-500"
        assert "password" not in repr(result)

    async def test_a_result_that_cannot_be_sent(self, client: Client) -> None:
        assert failure(await client.call_tool("unsendable"))["code"] == "NX-500"

    async def test_change_nothing(self, client: Client) -> None:
        for arguments in ({}, {"name": 1}, {"name": "x", "y": 1}, {"name": "x" * 20_000}):
            assert (await client.call_tool("things_create", arguments)).is_error
        listed = await client.call_tool("things_list")
        assert listed.structured_content == {"records": [], "count": 0}


class TestCancellation:
    async def test_a_client_that_times_out_cancels_the_handler(self, client: Client) -> None:
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("wait", {"name": "impatient"}, read_timeout_seconds=0.2)
        await self.cancelled(client, "impatient")

    async def test_a_client_that_gives_up_cancels_the_handler(self, client: Client) -> None:
        call = asyncio.create_task(client.call_tool("wait", {"name": "changed my mind"}))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.wait({call})
        await self.cancelled(client, "changed my mind")

    async def cancelled(self, client: Client, name: str) -> None:
        async with asyncio.timeout(5):
            while True:
                result = await client.call_tool("who_was_cancelled")
                if result.structured_content == {"result": [name]}:
                    return
                await asyncio.sleep(0.02)


class TestResources:
    async def test_are_those_that_can_be_listed(self, client: Client) -> None:
        listed = (await client.list_resources()).resources
        assert [(each.uri, each.name, each.mime_type) for each in listed] == [
            ("nexus://things", "things", "application/json")
        ]
        templates = (await client.list_resource_templates()).resource_templates
        assert [each.uri_template for each in templates] == ["nexus://{resource}/{id}"]

    async def test_are_read_through_operations(self, client: Client) -> None:
        await client.call_tool("things_create", {"name": "a lamp"})
        record = {"id": 1, "name": "a lamp", "note": None}
        assert await self.read(client, "nexus://things") == {"records": [record], "count": 1}
        assert await self.read(client, "nexus://things/1") == record

    async def test_what_cannot_be_read(self, client: Client) -> None:
        for uri, code in {
            "nexus://thing": "DF-404",
            "nexus://things/99": "DF-404",
            "nexus://things/one": "DF-102",
            "other://things": "DF-404",
            "nexus://": "DF-404",
        }.items():
            with pytest.raises(MCPError) as raised:
                await client.read_resource(uri)
            assert raised.value.code == -32602
            assert raised.value.data["code"] == code

    async def read(self, client: Client, uri: str) -> Any:
        (content,) = (await client.read_resource(uri)).contents
        assert isinstance(content, TextResourceContents)
        assert content.uri == uri
        return json.loads(content.text)


class TestListChanged:
    async def test_is_promised(self, client: Client) -> None:
        capabilities = client.server_capabilities
        assert capabilities.tools is not None
        assert capabilities.resources is not None
        assert capabilities.tools.list_changed
        assert capabilities.resources.list_changed
        assert not capabilities.resources.subscribe

    async def test_tools_that_come_are_announced_once(self, client: Client, told: Told) -> None:
        async def change() -> None:
            await client.call_tool("register", {"names": ["late_1", "late_2", "late_3"]})

        assert await self.heard(client, told, change) == ["tools"]
        assert not (await client.call_tool("late_2")).is_error
        assert (await tool(client, "late_3")).name == "late_3"

    async def test_a_resource_that_comes_is_announced(self, client: Client, told: Told) -> None:
        async def change() -> None:
            await client.call_tool("register_resource", {"name": "others"})

        assert await self.heard(client, told, change) == ["tools", "resources"]
        assert [each.name for each in (await client.list_resources()).resources] == ["others", "things"]

    async def heard(self, client: Client, told: Told, change: Callable[[], Awaitable[None]]) -> list[str]:
        if client.protocol_version < MODERN:
            await change()  # perhaps before the stream is open that the client opens beside
            await asyncio.sleep(SILENCE)
            return [method.split("/")[1] for method in told.methods]
        names = {ToolsListChanged: "tools", ResourcesListChanged: "resources"}
        heard: list[str] = []
        async with client.listen(
            tools_list_changed=True, resources_list_changed=True, prompts_list_changed=True
        ) as subscription:
            assert subscription.honored.prompts_list_changed is None
            await change()
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENCE):
                    async for event in subscription:
                        heard.append(names[type(event)])
        return heard
