"""One face for each channel: run an operation, and say what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.session import ClientSession
from websockets.asyncio.client import ClientConnection, connect

PROGRAM = str(Path(sys.executable).with_name("nexus"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation gave, or the code and the text of its error."""

    result: Any = None
    code: str | None = None
    text: str = ""


class Driver(Protocol):
    """A way in. `malformed` sends what is no JSON."""

    async def run(self, operation: str, arguments: dict[str, Any], **asked: Any) -> Outcome:
        """`asked` is `dry_run` or `max_affected`."""

    async def malformed(self) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of an application, and its environment."""

    base: str
    app: Path
    environment: dict[str, str]
    process: asyncio.subprocess.Process


@asynccontextmanager
async def server(app: Path, environment: dict[str, str]) -> AsyncIterator[Server]:
    """A server as a user starts it, on a free port; it must end well when it is told to."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--app", str(app), "serve", "--port", "0", env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            first = (await process.stderr.readline()).decode()
        yield Server(first.split(" on ")[1].strip(), app, environment, process)
        if process.returncode is not None:
            return  # the test has ended it by itself
        process.terminate()
        async with asyncio.timeout(5):
            rest = (await process.stderr.read()).decode()
            assert await process.wait() == 0, rest
            assert "Traceback" not in rest, rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def rest(served: Server) -> AsyncIterator[Driver]:
    async with httpx2.AsyncClient(base_url=served.base, trust_env=False) as client:
        yield Rest(client)


class Rest:
    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def run(self, operation: str, arguments: dict[str, Any], **asked: Any) -> Outcome:
        if asked:
            wished = {"dry_run": "tx=rollback", "max_affected": f"max-affected={asked.get('max_affected')}"}
            self._client.headers["prefer"] = ", ".join(wished[name] for name in asked)
        try:
            return self._outcome(await self._answer(operation, arguments))
        finally:
            self._client.headers.pop("prefer", None)

    async def _answer(self, operation: str, arguments: dict[str, Any]) -> httpx2.Response:
        resource, _, verb = operation.partition(".")
        if operation == "batch":
            answer = await self._client.post("/api/:batch", json=arguments)
        elif not verb:
            answer = await self._client.post(f"/api/workflows/{operation}/execute", json=arguments)
        elif verb == "create":
            answer = await self._client.post(f"/api/{resource}", json=arguments)
        elif verb == "list":
            query = {k: v if isinstance(v, str) else json.dumps(v) for k, v in arguments.items()}
            answer = await self._client.get(f"/api/{resource}", params=query)
        elif verb in ("get", "update", "delete"):
            rest = {key: value for key, value in arguments.items() if key != "id"}
            method = {"get": "GET", "update": "PATCH", "delete": "DELETE"}[verb]
            body = {"json": rest} if verb == "update" else {"params": rest}
            answer = await self._client.request(method, f"/api/{resource}/{arguments.get('id')}", **body)
        else:
            answer = await self._client.post(f"/api/{resource}:{verb}", json=arguments)
        return answer

    async def malformed(self) -> Outcome:
        answer = await self._client.post(
            "/api/products", content=b'{"name": ', headers={"content-type": "application/json"}
        )
        return self._outcome(answer)

    def _outcome(self, answer: httpx2.Response) -> Outcome:
        if answer.is_success:
            return Outcome(answer.json())
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        return Outcome(code=problem["code"], text=answer.text)


@asynccontextmanager
async def cli(served: Server) -> AsyncIterator[Driver]:
    yield Cli(served)


class Cli:
    def __init__(self, served: Server) -> None:
        self._served = served

    async def run(self, operation: str, arguments: dict[str, Any], **asked: Any) -> Outcome:
        resource, _, verb = operation.partition(".")
        words = [resource, verb] if verb else ["run", operation]
        more = ["--dry-run"] if "dry_run" in asked else []
        more += ["--max-affected", str(asked["max_affected"])] if "max_affected" in asked else []
        if operation == "batch":
            return await self._command(["batch", *more], arguments)
        if verb in ("get", "update", "delete"):
            words.append(str(arguments["id"]))
            arguments = {key: value for key, value in arguments.items() if key != "id"}
        return await self._command(
            [*words, *more, *(["--yes"] if verb.endswith("delete") else []), "--json", "-"], arguments
        )

    async def malformed(self) -> Outcome:
        return await self._command(["products", "create", "--json", '{"name": '], None)

    async def _command(self, words: list[str], given: dict[str, Any] | None) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--app",
            str(self._served.app),
            "-o",
            "json",
            *words,
            env=self._served.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(json.dumps(given).encode() if given is not None else None)
        if process.returncode == 0:
            assert err == b""
            return Outcome(json.loads(out))
        assert out == b""
        described = json.loads(err.splitlines()[0])
        expected = {"DF-404": 3, "NX-409": 4, "NX-424": 4}.get(described["code"], 2)
        assert process.returncode == expected
        return Outcome(code=described["code"], text=err.decode())


@asynccontextmanager
async def mcp_http(served: Server) -> AsyncIterator[Driver]:
    async with Client(f"{served.base}/mcp") as client, rest(served) as plain:
        yield Mcp(client, plain)


@asynccontextmanager
async def mcp_stdio(served: Server) -> AsyncIterator[Driver]:
    command = StdioServerParameters(
        command=PROGRAM, args=["--app", str(served.app), "mcp"], env=served.environment
    )
    async with Client(command) as client:
        yield Mcp(client, None, served)


class Mcp:
    def __init__(self, client: Any, plain: Any, served: Server | None = None) -> None:
        self._client: ClientSession = client
        self._plain = plain
        self._served = served

    async def run(self, operation: str, arguments: dict[str, Any], **asked: Any) -> Outcome:
        meta: Any = {f"nexus/{name}": value for name, value in asked.items()} or None
        answer = await self._client.call_tool(operation.replace(".", "_"), arguments, meta=meta)
        text = answer.content[0].text
        if answer.is_error:
            return Outcome(code=text.split()[0], text=text)
        return Outcome(answer.structured_content)

    async def malformed(self) -> Outcome:
        if self._plain is not None:
            headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
            answer = await self._plain._client.post("/mcp", content=b'{"name": ', headers=headers)
            assert answer.status_code == 400
            error = answer.json()["error"]
        else:
            error = await self._malformed_line()
        assert error["code"] == -32700
        return Outcome(code=error["data"]["code"], text=json.dumps(error))

    async def _malformed_line(self) -> Any:
        assert self._served is not None
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--app",
            str(self._served.app),
            "mcp",
            env=self._served.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(b'{"name": \n')
        assert process.returncode == 0
        return json.loads(out)["error"]


@asynccontextmanager
async def websocket(served: Server) -> AsyncIterator[Driver]:
    async with socket(served) as connection:
        yield Socket(connection)


@asynccontextmanager
async def socket(served: Server) -> AsyncIterator[ClientConnection]:
    url = served.base.replace("http", "ws") + "/ws"
    async with connect(url, subprotocols=["nexus.v1"], proxy=None, max_size=1 << 24) as connection:  # type: ignore[list-item]
        yield connection


class Socket:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def run(self, operation: str, arguments: dict[str, Any], **asked: Any) -> Outcome:
        frame = {"type": "call", "id": "1", "operation": operation, "arguments": arguments, **asked}
        return await self._exchange(json.dumps(frame))

    async def malformed(self) -> Outcome:
        return await self._exchange('{"type": ')

    async def _exchange(self, text: str) -> Outcome:
        await self._connection.send(text)
        answer = json.loads(await self._connection.recv())
        if answer["type"] == "result":
            return Outcome(answer["result"])
        assert answer["type"] == "error"
        return Outcome(code=answer["code"], text=json.dumps(answer))


class Watcher:
    """A websocket client that follows a topic and keeps what it is sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def subscribe(self, **more: Any) -> dict[str, Any]:
        await self._connection.send(json.dumps({"type": "subscribe", "id": "w", **more}))
        return await self.frame()

    async def frame(self, within: float = 5) -> dict[str, Any]:
        async with asyncio.timeout(within):
            frame: dict[str, Any] = json.loads(await self._connection.recv())
        return frame

    async def silence(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        with contextlib.suppress(TimeoutError):
            await self.frame(seconds)
            return False
        return True


@asynccontextmanager
async def watcher(served: Server) -> AsyncIterator[Watcher]:
    async with AsyncExitStack() as stack:
        yield Watcher(await stack.enter_async_context(socket(served)))


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **more}
