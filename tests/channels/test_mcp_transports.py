"""MCP below its client: what is refused unread, how the server loads and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError

from dataflow import DataFlow
from nexus import Call, Nexus, Settings
from nexus_channels.mcp.channel import McpChannel
from nexus_channels.server import running_server
from tests.channels import mcp_app

PROGRAM = [sys.executable, str(Path(mcp_app.__file__))]
HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def call(number: int, tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


@asynccontextmanager
async def web(url: str, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        base_url=url, headers=HEADERS | headers, trust_env=False, timeout=20
    ) as client:
        yield client


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([*PROGRAM, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with program("serve") as process:
        assert process.stderr is not None
        yield process, process.stderr.readline().decode().split()[-1]


async def ended(process: subprocess.Popen[bytes], within: float) -> None:
    """Terminate it, and see it end in time and in success."""
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, within) == 0


class TestHttp:
    async def test_a_body_over_the_limit(self) -> None:
        body = json.dumps(call(1, "things_create", name="x" * 200_000))
        async with running_server(mcp_app.build()) as url, web(url) as client:
            await self.refused(await client.post("/mcp", content=body), 413, -32600, "NX-413")

            async def chunks() -> AsyncIterator[bytes]:
                for start in range(0, len(body), 1000):
                    yield body[start : start + 1000].encode()

            await self.refused(await client.post("/mcp", content=chunks()), 413, -32600, "NX-413")

    async def test_what_is_not_json(self) -> None:
        async with running_server(mcp_app.build()) as url, web(url) as client:
            for body in (b"", b"{", b'{"a": NaN}', b'"\xff"', b'"\\ud800"', b"[" * 50_000, b'{"n": 1e999}'):
                await self.refused(await client.post("/mcp", content=body), 400, -32700, "NX-400")

    async def test_what_is_not_declared_as_json(self) -> None:
        async with running_server(mcp_app.build()) as url, web(url) as client:
            reply = await client.post("/mcp", content=b"{}", headers={"content-type": "text/plain"})
            await self.refused(reply, 415, -32600, "NX-415")

    async def test_json_that_is_no_message(self) -> None:
        async with running_server(mcp_app.build()) as url, web(url) as client:
            for body in (b"[]", b"1", b'{"jsonrpc": "2.0"}'):
                reply = await client.post("/mcp", content=body)
                assert reply.status_code == 400
                assert reply.json()["error"]["code"] in (-32600, -32602)

    async def test_below_its_address_there_is_nothing(self) -> None:
        async with running_server(mcp_app.build()) as url, web(url) as client:
            reply = await client.post("/mcp/tools", json=INITIALIZE)
            assert reply.status_code == 404
            assert (await client.post("/mcp/", json=INITIALIZE)).status_code == 200

    async def test_a_key_is_asked_for(self) -> None:
        app = Nexus(channels=["mcp"], settings=Settings(api_key="secret"))
        async with running_server(app) as url:
            async with web(url) as client:
                assert (await client.post("/mcp", json=INITIALIZE)).status_code == 401
            async with web(url, authorization="Bearer secret") as client:
                reply = await client.post("/mcp", json=INITIALIZE, headers={"host": "example.org"})
                assert reply.status_code == 200

    async def refused(self, reply: httpx2.Response, status: int, error: int, code: str) -> None:
        assert reply.status_code == status
        body = reply.json()
        assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", None, error)
        assert body["error"]["data"]["code"] == code
        assert body["error"]["message"].startswith(code)


class TestLoading:
    def test_the_channel_does_not_import_the_sdk(self) -> None:
        said = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys, nexus_channels.mcp.channel;"
                "print([name for name in ('mcp', 'mcp_types', 'pydantic') if name in sys.modules])",
            ],
            capture_output=True,
            check=True,
            text=True,
        )
        assert said.stdout.strip() == "[]"

    async def test_a_request_that_comes_before_waits(self) -> None:
        begun = time.monotonic()
        with server() as (_, url):
            async with web(url) as client:
                assert (await client.post("/mcp", json=INITIALIZE)).status_code == 200
                assert time.monotonic() - begun < 4

    async def test_when_it_fails_the_rest_is_served(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "nexus_channels.mcp.http", None)  # as if it could not be imported
        async with running_server(mcp_app.build()) as url, web(url) as client:
            reply = await client.post("/mcp", json=INITIALIZE)
            assert reply.status_code == 503
            assert reply.json()["code"] == "NX-503"
            assert "nexus_channels.mcp.http" in reply.json()["detail"]
            assert (await client.get("/livez")).status_code == 200

    async def test_it_can_be_started_again(self) -> None:
        for _ in range(2):
            async with running_server(mcp_app.build()) as url, Client(url + "/mcp") as client:
                assert (await client.call_tool("things_list")).structured_content is not None

    def test_hint(self) -> None:
        assert McpChannel().hint("http://127.0.0.1:8000") == (
            "MCP        http://127.0.0.1:8000/mcp (streamable HTTP; stdio: nexus mcp)"
        )


class TestEnd:
    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_open_streams_do_not_hold_it_up(self, mode: Any) -> None:
        with server() as (process, url):
            async with Client(url + "/mcp", mode=mode) as client:
                if mode == "auto":
                    async with client.listen(tools_list_changed=True) as subscription:
                        await ended(process, within=2)
                        assert [event async for event in subscription] == []  # its end was said
                else:
                    await client.list_tools()
                    await asyncio.sleep(0.3)  # its stream opens beside
                    await ended(process, within=2)

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_a_call_that_runs_is_answered(self, mode: Any) -> None:
        with server() as (process, url):
            async with Client(url + "/mcp", mode=mode) as client:
                await client.list_tools()
                running = asyncio.create_task(client.call_tool("echo", {"text": "done", "pause": 1}))
                await asyncio.sleep(0.3)
                await ended(process, within=3)
                assert (await running).structured_content == {"result": "done"}

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_a_call_without_end_is_cancelled(self, mode: Any) -> None:
        with server() as (process, url):
            async with Client(url + "/mcp", mode=mode) as client:
                running = asyncio.create_task(client.call_tool("wait", {"name": "x"}))
                await asyncio.sleep(0.3)
                await ended(process, within=5)
                with pytest.raises(MCPError):
                    await running

    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    async def test_nothing_of_a_cancelled_call_stays(self, tmp_path: Path, mode: Any) -> None:
        db = DataFlow(f"sqlite:///{tmp_path / 'test.db'}")

        @db.model
        class Product:
            name: str

        app = Nexus(db)
        begun = asyncio.Event()

        @app.operation
        async def half(call: Call) -> None:
            await call.run("products.create", {"name": "half"})
            begun.set()
            await asyncio.sleep(60)

        async with running_server(app) as url, Client(url + "/mcp", mode=mode) as client:
            with pytest.raises(MCPError, match="timed out"):
                await client.call_tool("half", read_timeout_seconds=0.5)
            assert begun.is_set()
            async with asyncio.timeout(5):  # until its transaction is gone
                await client.call_tool("products_create", {"name": "whole"})
            listed = await client.call_tool("products_list")
            assert [record["name"] for record in listed.structured_content["records"]] == ["whole"]


class TestStdio:
    def test_answers_come_as_lines_and_nothing_else(self) -> None:
        messages = [
            json.dumps(INITIALIZE),
            json.dumps(INITIALIZED),
            "this is not JSON",
            "",
            "[1, 2]",
            json.dumps(call(2, "echo", text="hé")),
            json.dumps(call(3, "echo", text="x" * 200_000)),
            json.dumps(call(4, "echo", text="late", pause=0.5)),
        ]
        with program() as process:
            out, err = process.communicate("\n".join(messages).encode(), timeout=20)
            assert process.returncode == 0
        replies = [json.loads(line) for line in out.splitlines()]
        refused = [reply["error"] for reply in replies if reply["id"] is None]
        assert [(error["code"], error["data"]["code"]) for error in refused] == [
            (-32700, "NX-400"),
            (-32600, "NX-400"),
            (-32600, "NX-413"),
        ]
        answered = {reply["id"]: reply["result"] for reply in replies if "result" in reply}
        assert set(answered) == {1, 2, 4}
        assert answered[2]["structuredContent"] == {"result": "hé"}
        assert answered[4]["structuredContent"] == {"result": "late"}
        assert b"something that a handler prints" in err

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it(self, number: signal.Signals) -> None:
        with program() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for message in (INITIALIZE, INITIALIZED, call(2, "wait", name="x")):
                process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == 1
            begun = time.monotonic()
            process.send_signal(number)
            assert process.wait(5) == 0
            assert time.monotonic() - begun < 3

    def test_a_client_that_is_gone_ends_it(self) -> None:
        with program() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.close()
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
                process.stdin.flush()
            assert process.wait(5) == 0
            process.stdout = None
