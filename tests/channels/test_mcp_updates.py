"""Clients that subscribe to resources, in both eras of the protocol, over HTTP and stdio."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, SubscriptionLost
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.subscriptions import ToolsListChanged
from mcp_types import TextResourceContents

from dataflow import DataFlow
from nexus import LOCAL, Nexus, Session, Settings
from nexus_channels.mcp import following
from nexus_channels.mcp.outbox import Outbox
from nexus_channels.server import running_server
from nexus_workflows import WorkflowBuilder
from tests.channels import mcp_shop
from tests.channels.test_mcp_transports import HEADERS, INITIALIZE, INITIALIZED
from tests.support.network import network
from tests.support.programs import run_sql

TRANSPORTS = [(transport, mode) for transport in ("http", "stdio") for mode in ("auto", "legacy")]
PRODUCTS, FIRST = "nexus://products", "nexus://products/1"
SILENCE = 0.4
"""Seconds after which nothing more is expected to be said."""


class Told:
    """The URIs of resources that a client was told of, in order."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._more = asyncio.Event()

    async def __call__(self, message: Any) -> None:  # how clients of the handshake hear of it
        if message.method == "notifications/resources/updated":
            self.add(message.params.uri)

    def add(self, uri: str) -> None:
        self.uris.append(uri)
        self._more.set()

    async def all_of(self, *uris: str) -> None:
        """Wait until at least these were told, and forget them."""
        async with asyncio.timeout(10):
            while not set(uris) <= set(self.uris):
                self._more.clear()
                await self._more.wait()
        assert set(self.uris) == set(uris)
        await asyncio.sleep(0.1)  # what one change told twice would be here
        self.uris.clear()

    async def nothing(self) -> None:
        await asyncio.sleep(SILENCE)
        assert self.uris == []


class Follower:
    """One client and what it follows, in the way of its era."""

    def __init__(self, client: Client, told: Told) -> None:
        self.client = client
        self.told = told
        self.ended: asyncio.Task[None] | None = None

    @property
    def modern(self) -> bool:
        return self.client.protocol_version >= "2026-07-28"

    @asynccontextmanager
    async def following(self, *uris: str) -> AsyncIterator[Told]:
        if not self.modern:
            for uri in uris:
                await self.subscribe(uri)
            yield self.told
            return
        async with self.client.listen(resource_subscriptions=uris) as subscription:
            assert subscription.honored.resource_subscriptions == list(uris)

            async def collect() -> None:
                async for event in subscription:
                    assert isinstance(event, ResourceUpdated)
                    self.told.add(event.uri)

            self.ended = asyncio.create_task(collect())
            try:
                yield self.told
            finally:
                self.ended.cancel()

    async def subscribe(self, uri: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            await self.client.subscribe_resource(uri)

    async def unsubscribe(self, uri: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)
            await self.client.unsubscribe_resource(uri)

    async def refused(self, *uris: str) -> dict[str, Any]:
        with pytest.raises(MCPError) as raised:
            async with self.following(*uris):
                pass
        described: dict[str, Any] = raised.value.data
        return described

    async def call(self, tool: str, **arguments: object) -> Any:
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result
        return result.structured_content

    async def read(self, uri: str) -> Any:
        (content,) = (await self.client.read_resource(uri)).contents
        assert isinstance(content, TextResourceContents)
        return json.loads(content.text)


@asynccontextmanager
async def connected(target: Any, mode: Any) -> AsyncIterator[Follower]:
    told = Told()
    handler = told if mode == "legacy" else None
    async with Client(target, mode=mode, message_handler=handler) as client:
        yield Follower(client, told)


@asynccontextmanager
async def served(app: Nexus, mode: str) -> AsyncIterator[Follower]:
    async with running_server(app) as url, connected(url + "/mcp", mode) as follower:
        yield follower


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(tmp_path: Path) -> Nexus:
    return mcp_shop.build(f"sqlite:///{tmp_path / 'test.db'}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_followed(app: Nexus) -> bool:
    changes = app.contributors[0].changes
    assert changes is not None
    return app.feed.is_followed(changes)


@pytest.mark.databases("file", "postgresql", "mysql")
@pytest.mark.parametrize(("transport", "kind"), TRANSPORTS)
async def test_changes_are_told(database: str, transport: str, kind: str) -> None:
    """Also those of another program, which here is the test itself."""
    async with AsyncExitStack() as stack:
        if transport == "http":
            target: Any = await stack.enter_async_context(running_server(mcp_shop.build(database))) + "/mcp"
        else:
            arguments = [str(Path(mcp_shop.__file__)), database]
            target = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
        follower = await stack.enter_async_context(connected(target, kind))
        await follower.call("products_create", name="lamp")
        async with follower.following(PRODUCTS, FIRST) as told:
            await told.nothing()
            await follower.call("products_update", id=1, fields={"stock": 3})
            await told.all_of(PRODUCTS, FIRST)
            await follower.call("products_create", name="pen")
            await told.all_of(PRODUCTS)
            await run_sql(database, "UPDATE products SET stock = 5 WHERE id = 1")
            await told.all_of(PRODUCTS, FIRST)
            assert (await follower.read(FIRST))["stock"] == 5
            await run_sql(database, "DELETE FROM products WHERE id = 1")
            await told.all_of(PRODUCTS, FIRST)
            with pytest.raises(MCPError, match="DF-404"):
                await follower.read(FIRST)
            if not follower.modern:
                await follower.unsubscribe(PRODUCTS)
                await follower.unsubscribe(FIRST)
        await follower.call("products_create", name="cup")
        await told.nothing()


@pytest.mark.databases("file", "postgresql", "mysql")
async def test_of_a_thousand_changes_little_is_told_and_the_last_is_not_lost(
    database: str, mode: str
) -> None:
    app = mcp_shop.build(database)
    async with served(app, mode) as follower, follower.following(PRODUCTS) as told:
        records = [{"name": str(number)} for number in range(800)]
        await follower.call("products_bulk_create", data=records)
        for number in range(200):
            await app.runtime.invoke("products.create", {"name": str(number)}, LOCAL, channel="test")
        seen = 0
        async with asyncio.timeout(10):
            while seen < 1000:  # a reader that looks only when it is told comes to the end
                await until(lambda: bool(told.uris))
                await asyncio.sleep(0.2)
                told.uris.clear()
                seen = (await follower.call("products_count"))["count"]


async def test_a_burst_is_told_a_few_times(app: Nexus, mode: str) -> None:
    async with served(app, mode) as follower, follower.following(PRODUCTS) as told:
        await follower.call("products_bulk_create", data=[{"name": "x"} for _ in range(1000)])
        await asyncio.sleep(SILENCE)
        assert 1 <= len(told.uris) < 50


@pytest.mark.databases("postgresql", "mysql")
async def test_a_database_that_comes_back_is_followed_again(database: str, mode: str) -> None:
    async with (
        network(database) as (between, url),
        served(mcp_shop.build(url), mode) as follower,
    ):
        await follower.call("products_create", name="lamp")
        async with follower.following(FIRST) as told:
            await told.nothing()
            await between.down()
            await run_sql(database, "UPDATE products SET stock = 5 WHERE id = 1")
            await asyncio.sleep(SILENCE)
            await between.up()
            await told.all_of(FIRST)
            await run_sql(database, "UPDATE products SET stock = 6 WHERE id = 1")
            await told.all_of(FIRST)


async def test_runs_are_followed_like_records(app: Nexus, mode: str) -> None:
    workflow = WorkflowBuilder("Make one.")
    workflow.add_node("ProductCreateNode", "make", {"name": "x"})
    app.register("make", workflow)
    async with served(app, mode) as follower, follower.following("nexus://runs") as told:
        await follower.call("make")
        await told.all_of("nexus://runs")
        (run,) = (await follower.read("nexus://runs"))["records"]
        assert run["state"] == "done"
        async with follower.following(f"nexus://runs/{run['id']}"):
            pass


class TestPromise:
    async def test_is_made_where_something_can_be_followed(self, app: Nexus, mode: str) -> None:
        async with served(app, mode) as follower:
            assert follower.client.server_capabilities.resources.subscribe is True

    async def test_is_not_made_where_nothing_can(self, tmp_path: Path, mode: str) -> None:
        url = f"sqlite:///{tmp_path / 'test.db'}"
        await mcp_shop.build(url).contributors[0].install()
        db = DataFlow(url, existing_schema_mode=True, system_url=f"sqlite:///{tmp_path / 'system.db'}")

        @db.model
        class Product:
            name: str
            stock: int = 0

        async with served(Nexus(db), mode) as follower:
            assert not follower.client.server_capabilities.resources.subscribe
            assert (await follower.read(PRODUCTS))["records"] == []
            refused = await follower.refused(PRODUCTS)
            assert refused["code"] == "NX-503"
            assert "existing_schema_mode" in refused["detail"]


class TestRefusals:
    async def test_say_why(self, app: Nexus, mode: str) -> None:
        async with served(app, mode) as follower:
            for uri, code in {
                "nexus://product": "DF-404",
                "nexus://products/99": "DF-404",
                "nexus://products/one": "DF-102",
                "other://products": "DF-404",
                "nexus://silents": "NX-503",
                "nexus://notes": "NX-403",  # of a session without a tenant
            }.items():
                assert (await follower.refused(uri))["code"] == code, uri
            assert "its model says so" in (await follower.refused("nexus://silents"))["detail"]
            assert "nexus://products" in (await follower.refused("nexus://product"))["remedy"]
            assert not is_followed(app)
            async with follower.following(PRODUCTS) as told:  # and go by
                await follower.call("products_create", name="lamp")
                await told.all_of(PRODUCTS)

    async def test_of_what_has_no_log(self, app: Nexus, mode: str) -> None:
        listing = app.registry.outside("products.list")
        app.registry.add(replace(listing, name="things.list", resource="things", node=None))
        async with served(app, mode) as follower:
            refused = await follower.refused("nexus://things")
            assert (refused["code"], refused["detail"]) == (
                "NX-503",
                "'nexus://things' cannot be followed: no log is kept of changes to it.",
            )

    async def test_of_too_many(self, app: Nexus, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(following, "PER_CLIENT", 2)
        monkeypatch.setattr(following, "PER_SESSION", 3)
        async with running_server(app) as url:
            async with connected(url + "/mcp", mode) as one, connected(url + "/mcp", mode) as two:
                for name in "abc":
                    await one.call("products_create", name=name)
                second, third = "nexus://products/2", "nexus://products/3"
                assert "This client" in (await one.refused(PRODUCTS, FIRST, second))["detail"]
                if not one.modern:  # the first two were taken
                    await one.unsubscribe(PRODUCTS)
                    await one.unsubscribe(FIRST)
                async with one.following(PRODUCTS, FIRST), two.following(second):
                    assert "this session" in (await two.refused(third))["detail"]
            async with connected(url + "/mcp", mode) as three, three.following(PRODUCTS, FIRST):
                pass  # those that have gone do not count

    async def test_of_what_is_not_subscribed_to(self, app: Nexus) -> None:
        async with served(app, "legacy") as follower:
            with pytest.raises(MCPError, match="DF-404"):
                await follower.unsubscribe(PRODUCTS)


class TestRights:
    async def test_that_go_end_it(self, app: Nexus, mode: str) -> None:
        async with served(app, mode) as follower:
            await follower.call("products_create", name="lamp")
            async with follower.following(PRODUCTS) as told:
                await until(lambda: is_followed(app))
                app.policy.change(Session("local", "local", frozenset({"products.create"})))
                await told.all_of(PRODUCTS)  # so it reads it again, and sees
                with pytest.raises(MCPError, match="NX-403"):
                    await follower.read(PRODUCTS)
                if follower.ended is not None:
                    with pytest.raises(SubscriptionLost) as lost:
                        await follower.ended
                    assert isinstance(lost.value.__cause__, MCPError)
                    assert lost.value.__cause__.data["code"] == "NX-403"
                await until(lambda: not is_followed(app))
                await follower.call("products_create", name="pen")
                await told.nothing()

    async def test_to_one_record_end_with_those_to_read_it(self, app: Nexus, mode: str) -> None:
        async with served(app, mode) as follower:
            await follower.call("products_create", name="lamp")
            async with follower.following(FIRST) as told:
                scopes = frozenset({"products.list", "products.update"})
                app.policy.change(Session("local", "local", scopes))
                await follower.call("products_update", id=1, fields={"stock": 1})
                await told.all_of(FIRST)
                await until(lambda: not is_followed(app))
                await follower.call("products_update", id=1, fields={"stock": 2})
                await told.nothing()

    async def test_are_those_of_the_tenant(self, tmp_path: Path, mode: str) -> None:
        app = mcp_shop.build(f"sqlite:///{tmp_path / 'test.db'}", Settings(api_key="k"))
        sessions = {key: Session(key, key, frozenset({"*"}), tenant=key) for key in ("acme", "other")}

        async def resolve(credential: str | None) -> Session:
            return sessions[credential or ""]

        app.sessions.resolve = resolve  # type: ignore[method-assign]
        async with running_server(app) as url, AsyncExitStack() as stack:
            followers = []
            for key in sessions:
                headers = {"authorization": f"Bearer {key}"}
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, trust_env=False))
                target = streamable_http_client(url + "/mcp", http_client=http)
                followers.append(await stack.enter_async_context(connected(target, mode)))
            acme, other = followers
            async with acme.following("nexus://notes") as told, other.following("nexus://notes") as elsewhere:
                await acme.call("notes_create", text="a secret")
                await told.all_of("nexus://notes")
                await elsewhere.nothing()
                assert (await other.refused("nexus://notes/1"))["code"] == "DF-404"


class TestLeaving:
    async def test_leaves_nothing_behind(self, app: Nexus, mode: str) -> None:
        async with running_server(app) as url:
            async with connected(url + "/mcp", mode) as follower:
                async with follower.following(PRODUCTS):
                    await until(lambda: is_followed(app))
                    if not follower.modern:
                        await follower.unsubscribe(PRODUCTS)
                await until(lambda: not is_followed(app))
                async with follower.following(PRODUCTS):
                    await until(lambda: is_followed(app))
            await until(lambda: not is_followed(app))

    async def test_a_dropped_listen_stream(self, app: Nexus) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"notifications": {"resourceSubscriptions": [PRODUCTS]}, "_meta": meta}
        listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
        headers = HEADERS | {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        async with (
            running_server(app) as url,
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=10) as client,
        ):
            async with client.stream("POST", url + "/mcp", json=listen) as stream:
                assert stream.status_code == 200
                await until(lambda: is_followed(app))
            await until(lambda: not is_followed(app))

    async def test_a_dropped_stream_of_a_handshake_client_can_be_taken_up(self, app: Nexus) -> None:
        """What happens before there is a stream, or while there is none, is told when there is one."""

        async def create() -> None:
            await app.runtime.invoke("products.create", {"name": "x"}, LOCAL, channel="test")

        async with running_server(app) as url, httpx2.AsyncClient(trust_env=False, timeout=10) as client:
            client.headers.update(HEADERS)
            reply = await client.post(url + "/mcp", json=INITIALIZE)
            client.headers["mcp-session-id"] = reply.headers["mcp-session-id"]
            await client.post(url + "/mcp", json=INITIALIZED)
            subscribe = {"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe"}
            reply = await client.post(url + "/mcp", json={**subscribe, "params": {"uri": PRODUCTS}})
            assert reply.json()["result"] == {}
            assert not is_followed(app)
            await create()
            for _ in range(3):
                async with client.stream("GET", url + "/mcp") as stream:
                    assert stream.status_code == 200
                    await _updated(stream)
                    await until(lambda: is_followed(app))
                await until(lambda: not is_followed(app))
                await create()
            await client.delete(url + "/mcp")
            assert (await client.get(url + "/mcp")).status_code == 404

    @pytest.mark.parametrize("kind", ["auto", "legacy"])
    async def test_a_closed_stdin(self, tmp_path: Path, kind: str) -> None:
        arguments = [str(Path(mcp_shop.__file__)), f"sqlite:///{tmp_path / 'test.db'}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"notifications": {"resourceSubscriptions": [PRODUCTS]}, "_meta": meta}
        subscribe = {"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": PRODUCTS}}
        messages: list[object] = [INITIALIZE, INITIALIZED, subscribe]
        if kind == "auto":
            messages = [{"jsonrpc": "2.0", "id": 2, "method": "subscriptions/listen", "params": params}]
        for message in messages:
            process.stdin.write(json.dumps(message).encode() + b"\n")
        async with asyncio.timeout(20):
            for _ in range(2 if kind == "legacy" else 1):
                assert "error" not in json.loads(await process.stdout.readline())
            process.stdin.close()
            assert await process.wait() == 0


async def _updated(stream: httpx2.Response) -> None:
    async with asyncio.timeout(5):
        async for line in stream.aiter_lines():
            if line.startswith("data:") and '"notifications/resources/updated"' in line:
                return
    raise AssertionError("the stream ended")


async def test_a_server_that_closes_ends_a_listen_stream_in_order(app: Nexus) -> None:
    async with AsyncExitStack() as serving:
        url = await serving.enter_async_context(running_server(app))
        async with connected(url + "/mcp", "auto") as follower, follower.following(PRODUCTS):
            async with asyncio.timeout(5):
                await serving.aclose()
                assert follower.ended is not None
                await follower.ended  # no SubscriptionLost
    assert not is_followed(app)


class TestOutbox:
    async def test_what_happens_while_it_is_sent_is_told_again(self) -> None:
        sent: list[object] = []

        async def send(event: object) -> None:
            if not sent:
                outbox.put(ToolsListChanged())
                outbox.put(ToolsListChanged())
            sent.append(event)

        outbox = Outbox(send)
        outbox.put(ToolsListChanged())
        outbox.open()
        outbox.close()
        await outbox.run()
        assert sent == [ToolsListChanged()] * 2

    async def test_what_waits_is_bounded_and_kept(self) -> None:
        sent: list[object] = []

        async def send(event: object) -> None:
            sent.append(event)

        outbox = Outbox(send)
        running = asyncio.create_task(outbox.run())
        for number in range(1000):
            outbox.put(ResourceUpdated(str(number % 3)))
        await asyncio.sleep(0.1)
        assert sent == []
        outbox.open()
        outbox.close(RuntimeError("the reason"))
        with pytest.raises(RuntimeError, match="the reason"):
            await running
        assert sent == [ResourceUpdated(str(number)) for number in range(3)]
