"""Starting to serve, and ending."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from nexus import Nexus, Settings
from nexus.errors import ConfigurationError, NexusError, Unavailable
from nexus_channels.server import running_server, serve
from tests.support.raw import line, request
from tests.support.things import Things, application
from tests.support.wire import Wire

ROOT = Path(__file__).parents[2]
STOPS = [signal.SIGTERM, signal.SIGINT]


@dataclass
class Program:
    """The server as a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    said: list[str] = field(default_factory=list)

    async def ended(self) -> tuple[int | None, float]:
        """Wait for its end; gives the exit code and the seconds that it took."""
        begun = time.monotonic()
        async with asyncio.timeout(15):
            _, stderr = await self.process.communicate()
        self.said += stderr.decode().splitlines()
        return self.process.returncode, time.monotonic() - begun


@asynccontextmanager
async def program(**settings: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.serve_things",
        cwd=ROOT,
        env={**os.environ, **settings},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(10):
            first = (await process.stderr.readline()).decode()
        match = re.fullmatch(r"Serving Things on (http://127\.0\.0\.1:\d+)\n", first)
        assert match is not None, first
        yield Program(process, match[1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as made:
        yield made


async def begin(client: httpx2.AsyncClient, running: Program, name: str, **arguments: object) -> Any:
    """A request that does not end soon."""
    request = asyncio.create_task(client.post(f"{running.url}/api/workflows/{name}/execute", json=arguments))
    await asyncio.sleep(0.2)
    assert not request.done()
    return request


class TestStart:
    async def test_soon(self, client: httpx2.AsyncClient) -> None:
        begun = time.monotonic()
        async with program() as running:
            assert (await client.get(f"{running.url}/livez")).status_code == 200
            assert (await client.get(f"{running.url}/api/things")).status_code == 200
            assert time.monotonic() - begun < 1.5

    async def test_says_what_can_be_tried(self) -> None:
        async with program() as running:
            running.process.terminate()
            await running.ended()
            assert running.said[0].split() == ["REST", "curl", f"{running.url}/api/things"]
            assert running.url.replace("http", "ws") + "/ws" in running.said[1]
            assert '"topic": "things"' in running.said[1]
            assert "things list" in running.said[2]

    @pytest.mark.parametrize("activated", [True, False])
    async def test_the_command_is_one_that_the_shell_finds(
        self, activated: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        binaries = str(Path(sys.executable).parent)
        monkeypatch.setenv("PATH", binaries if activated else "/nowhere")
        async with program() as running:
            running.process.terminate()
            await running.ended()
            command = running.said[2].split()[1]
            assert command == ("nexus" if activated else os.path.relpath(f"{binaries}/nexus"))

    def test_without_a_key_only_for_this_machine(self) -> None:
        for host in ("0.0.0.0", "::", "", "192.0.2.1", "example.com"):
            with pytest.raises(ConfigurationError, match="NEXUS_API_KEY"):
                serve(application(Things()), host=host, port=0)

    def test_the_settings_are_the_default(self) -> None:
        with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
            serve(application(Things(), host="192.0.2.1"))

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigurationError, match=rf"port {port}: .*in use.* --port"):
                serve(application(Things()), port=port)

    def test_a_host_that_is_not_here(self) -> None:
        for host in ("192.0.2.1", "no such host.invalid"):
            with pytest.raises(ConfigurationError, match=host):
                serve(application(Things(), api_key="k"), host=host, port=0)

    @pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
    async def test_ipv6(self, client: httpx2.AsyncClient) -> None:
        async with running_server(application(Things()), host="::1") as url:
            assert url.startswith("http://[::1]:")
            assert (await client.get(f"{url}/api/things")).status_code == 200

    def test_what_fails_at_the_start_comes_out(self) -> None:
        class Broken(Nexus):
            @asynccontextmanager
            async def running(self) -> AsyncIterator[Nexus]:
                raise Unavailable("The database is not there.")
                yield self

        with pytest.raises(NexusError, match="database is not there"):
            serve(Broken(channels=["rest"], settings=Settings()), port=0)


class TestEnd:
    @pytest.mark.parametrize("stop", STOPS)
    async def test_with_everything_open(self, client: httpx2.AsyncClient, stop: signal.Signals) -> None:
        """A subscriber, a request and a call that would go on, an idle connection."""
        async with program() as running:
            wire = Wire(await connect(running.url.replace("http", "ws") + "/ws", proxy=None))
            cursor = await wire.subscribe()
            await wire.send(type="call", id="c", operation="wait")
            request = await begin(client, running, "wait")
            await client.get(f"{running.url}/livez")
            running.process.send_signal(stop)
            code, seconds = await running.ended()
            assert (code, seconds < 5) == (0, True)
            assert await wire.receive() == {"type": "closing", "id": "s", "cursor": cursor}
            assert (await request).status_code == 503
            assert not any("Traceback" in said for said in running.said), running.said

    @pytest.mark.parametrize("stop", STOPS)
    async def test_with_nothing_to_wait_for_is_quick(
        self, client: httpx2.AsyncClient, stop: signal.Signals
    ) -> None:
        async with program() as running:
            await client.get(f"{running.url}/livez")
            wire = Wire(await connect(running.url.replace("http", "ws") + "/ws", proxy=None))
            await wire.subscribe()
            running.process.send_signal(stop)
            code, seconds = await running.ended()
            assert (code, seconds < 1) == (0, True)
            assert (await wire.receive())["type"] == "closing"
            assert await wire.closed() == 1012

    async def test_who_ends_within_the_grace_is_answered(self, client: httpx2.AsyncClient) -> None:
        async with program() as running:
            request = await begin(client, running, "wait", seconds=1)
            running.process.terminate()
            await asyncio.sleep(0.3)
            with pytest.raises(httpx2.ConnectError):
                await client.get(f"{running.url}/livez")
            assert (await request).json() == "waited"
            code, seconds = await running.ended()
            assert (code, seconds < 2) == (0, True)

    @pytest.mark.parametrize("name", ["block", "stubborn"])
    async def test_with_work_that_cannot_be_cancelled(self, client: httpx2.AsyncClient, name: str) -> None:
        async with program() as running:
            request = await begin(client, running, name)
            running.process.terminate()
            code, seconds = await running.ended()
            assert (code, seconds < 5) == (0, True)
            request.cancel()

    @pytest.mark.parametrize("stop", STOPS)
    async def test_a_second_signal_ends_it_at_once(
        self, client: httpx2.AsyncClient, stop: signal.Signals
    ) -> None:
        async with program() as running:
            request = await begin(client, running, "wait")
            running.process.send_signal(stop)
            await asyncio.sleep(0.3)
            running.process.send_signal(stop)
            code, seconds = await running.ended()
            assert (code, seconds < 0.5) == (-stop, True)
            request.cancel()

    async def test_first_it_says_so_for_a_while(self, client: httpx2.AsyncClient) -> None:
        """Meanwhile it serves, on connections that were there and on new ones, and none of them is kept."""
        async with program(NEXUS_DRAIN="1") as running, contextlib.aclosing(await line(running.url)) as raw:
            await raw.send(request(path="/readyz"))
            assert (await raw.answer()).status == 200
            running.process.terminate()
            await asyncio.sleep(0.4)
            await raw.send(request(path="/readyz"))
            answer = await raw.answer()
            assert (answer.status, answer.json()["code"]) == (503, "NX-503")
            assert answer.headers["connection"] == "close"
            assert await raw.ended() == b""
            alive = await client.get(f"{running.url}/livez")
            served = await client.post(f"{running.url}/api/things", json={"name": "late"})
            assert (alive.status_code, served.status_code) == (200, 201)
            assert served.headers["connection"] == "close"
            code, seconds = await running.ended()
            assert (code, seconds < 2) == (0, True)

    async def test_connections_end_after_the_answers_that_are_due(self, client: httpx2.AsyncClient) -> None:
        async with program() as running, contextlib.aclosing(await line(running.url)) as raw:
            body = {"seconds": 0.6}
            waiting = request("POST", "/api/workflows/wait/execute", body)
            await raw.send(waiting + request(path="/livez"))
            await asyncio.sleep(0.2)
            running.process.terminate()
            first, second = await raw.answer(), await raw.answer()
            assert (first.json(), second.status) == ("waited", 200)
            assert second.headers["connection"] == "close"
            assert await raw.ended() == b""
            assert (await running.ended())[0] == 0

    async def test_the_port_is_free_afterwards(self, client: httpx2.AsyncClient) -> None:
        async with running_server(application(Things())) as url:
            await client.get(f"{url}/livez")
        port = int(url.rpartition(":")[2])
        async with running_server(application(Things()), port=port) as again:
            assert again == url
