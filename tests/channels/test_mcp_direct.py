"""What is answered past the SDK is answered as the SDK answers it: both are asked the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from opentelemetry.trace import NoOpTracerProvider
from starlette.types import Message, Scope

from nexus import LOCAL, Call, Nexus, Operation
from nexus.errors import Malformed
from nexus.session import Session
from nexus_channels.mcp import peers
from nexus_channels.mcp.calls import SOON
from nexus_channels.mcp.http import Served, serving
from nexus_channels.mcp.messages import ENVELOPE, check_json
from nexus_channels.mcp.tools import PAGE
from tests.channels import mcp_app

MODERN, OLDER = "2026-07-28", "2025-06-18"
ERAS = [MODERN, OLDER]
BOTH = "application/json, text/event-stream"
BESIDE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "a test", "version": "1"},
}

Headers = list[tuple[str, str]]


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    @property
    def seen(self) -> object:
        """What a client sees of it."""
        assert int(self.headers.get("content-length", len(self.body))) == len(self.body)
        session, kind, body = (
            "mcp-session-id" in self.headers,
            self.headers.get("content-type"),
            self.body.decode(),
        )
        if kind == "application/json" and body:
            body = json.dumps(json.loads(body), sort_keys=True)
        return self.status, kind, session, body


class Door:
    """A server, asked with the SDK alone or with what stands in front of it; `past` counts what was answered
    past it."""

    def __init__(self, served: Served, *, direct: bool) -> None:
        self.served = served
        self.direct = direct
        self.session_id = ""
        self.past = 0

    async def open(self, version: str) -> None:
        """A session of the protocol, where there are sessions, which has called a tool."""
        if version == MODERN:
            return
        params = {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "a test", "version": "1"},
        }
        asked = message("initialize", params)
        reply = await self.ask(asked, [("content-type", "application/json"), ("accept", BOTH)])
        self.session_id = reply.headers["mcp-session-id"]
        await self.ask(message("notifications/initialized", number=None), self.headers(version))
        await self.ask(message("tools/list"), self.headers(version))

    def headers(self, version: str, *more: tuple[str, str]) -> Headers:
        given = [("content-type", "application/json"), ("accept", BOTH), ("mcp-protocol-version", version)]
        if self.session_id:
            given.append(("mcp-session-id", self.session_id))
        return [*given, *more]

    async def ask(
        self,
        body: bytes,
        headers: Headers,
        *,
        session: Session = LOCAL,
        method: str = "POST",
        leaving: asyncio.Event | None = None,
    ) -> Reply:
        """What is answered, unless the client has left before."""
        reply, unread, gone = Reply(), [body], leaving or asyncio.Event()
        scope: Scope = {
            "type": "http",
            "method": method,
            "path": "/mcp",
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "nexus.session": session,
            "nexus.request": "a-request",
        }

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        if (
            method == "POST"
            and self.direct
            and await self.served.direct.answers(scope, receive, reply.send, body)
        ):
            self.past += 1
        else:
            await self.served.app(scope, receive, reply.send)
        return reply


@asynccontextmanager
async def doors(version: str) -> AsyncIterator[tuple[Door, Door]]:
    """Into two servers alike: through the SDK alone, and past it."""
    largest = mcp_app.LIMIT + ENVELOPE
    async with (
        serving(build().runtime, mcp_app.LIMIT, largest) as first,
        serving(build().runtime, mcp_app.LIMIT, largest) as second,
    ):
        by_sdk, past_it = Door(first, direct=False), Door(second, direct=True)
        await by_sdk.open(version)
        await past_it.open(version)
        past_it.past = 0
        yield by_sdk, past_it


def message(method: str, params: object = None, number: object = 1) -> bytes:
    asked: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    if number is not None:
        asked["id"] = number
    if params is not None:
        asked["params"] = params
    return json.dumps(asked).encode()


def call(
    version: str,
    tool: str,
    arguments: object = None,
    meta: Mapping[str, Any] | None = None,
    number: object = 1,
) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """A message, and the headers that it needs beside the usual ones."""
    params: dict[str, Any] = {"name": tool}
    if arguments is not None:
        params["arguments"] = arguments
    if version == MODERN or meta is not None:
        params["_meta"] = {**(BESIDE if version == MODERN else {}), **(meta or {})}
    headers = [("mcp-method", "tools/call"), ("mcp-name", tool)] if version == MODERN else []
    return message("tools/call", params, number), headers


async def alike(
    doors: tuple[Door, Door], version: str, body: bytes, more: Sequence[tuple[str, str]]
) -> Reply:
    by_sdk, past_it = doors
    expected = await by_sdk.ask(body, by_sdk.headers(version, *more))
    found = await past_it.ask(body, past_it.headers(version, *more))
    assert found.seen == expected.seen
    return found


USUAL: list[tuple[str, object]] = [
    ("things_create", {"name": "a lamp", "note": 'é "\u2028\U0001f600\\'}),
    ("things_get", {"id": 1}),
    ("things.get", {"id": 1.0}),
    ("ThingGetNode", {"id": 1}),
    ("things_list", None),
    ("things_list", {"limit": 0}),
    ("things_get", {"id": 99}),
    ("things_get", {"id": "one"}),
    ("things_get", {"id": 2**80}),
    ("things_create", {}),
    ("things_create", {"name": "x", "nam": "y"}),
    ("things_create", {"name": "x" * mcp_app.LIMIT}),
    ("find", {"id": 7}),
    ("raw", {}),
    ("unsendable", {}),
    ("explode", {}),
    ("anything", {"value": {"a": [None, 1.5, -0.0, 2**70, True, {}]}}),
    ("things_delete", {"id": 1}),
    ("secret", {"id": 1}),
    ("things_lst", {}),
]


def build() -> Nexus:
    app = mcp_app.build()

    @app.operation
    async def routed(
        call: Call, where: Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Where"})]
    ) -> str:
        return where

    async def tagged(call: Call, given: mcp_app.Nothing) -> mcp_app.Thing:
        return mcp_app.Thing(1, "a lamp")

    app.registry.add(
        Operation(
            "tagged", tagged, mcp_app.Nothing, mcp_app.Thing, tag=lambda record, text: '"1"', shows_tag=True
        )
    )
    return app


@pytest.fixture(params=ERAS)
def version(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
async def both(version: str) -> AsyncIterator[tuple[Door, Door]]:
    async with doors(version) as pair:
        yield pair


async def test_calls(both: tuple[Door, Door], version: str) -> None:
    for tool, arguments in USUAL:
        await alike(both, version, *call(version, tool, arguments))
    assert both[1].past == len(USUAL)


async def test_what_stands_beside_a_call(both: tuple[Door, Door], version: str) -> None:
    beside: list[tuple[dict[str, Any], bool]] = [
        ({"nexus/dry_run": True}, True),
        ({"nexus/max_affected": 0}, True),
        ({"nexus/max_affected": -1}, True),
        ({"nexus/background": True}, True),
        ({"nexus/if_match": "x"}, True),
        ({"nexus/unheard_of": 1}, True),
        ({"org.example/own": [1]}, True),
        ({"progressToken": 1}, False),
        ({"progressToken": []}, False),
        ({"org.example/long": "x" * 5000}, False),
    ]
    for meta, past in beside:
        before = both[1].past
        await alike(both, version, *call(version, "things_create", {"name": "x"}, meta))
        assert (both[1].past > before) == past, meta


async def test_headers_that_must_agree(both: tuple[Door, Door], version: str) -> None:
    body, more = call(version, "routed", {"where": "here"})
    for said in ([], [("mcp-param-where", "here")], [("mcp-param-where", "there")]):
        await alike(both, version, body, [*more, *said])
    for said in ([], [("mcp-method", "tools/call")], [("mcp-method", "tools/list"), ("mcp-name", "echo")]):
        await alike(both, version, call(version, "things_list")[0], said)
    encoded = "=?base64?dGhpbmdzX2xpc3Q=?="
    for name in (encoded, "things_list", "things_lst", ""):
        for tool in ("things_list", encoded):
            said = [("mcp-method", "tools/call"), ("mcp-name", name)]
            await alike(both, version, call(version, tool)[0], said)
    twice = [("mcp-method", "tools/call"), ("mcp-name", "things_list"), ("mcp-name", "things_list")]
    await alike(both, version, call(version, "things_list")[0], twice)


async def test_what_a_client_takes(both: tuple[Door, Door], version: str) -> None:
    body, more = call(version, "things_list")
    by_sdk, past_it = both
    for name, values in {
        "accept": (
            BOTH,
            "application/json",
            "text/event-stream",
            "*/*",
            "",
            "text/html",
            "application/*, text/*",
        ),
        "content-type": ("application/json", "application/json; charset=utf-8", "application/vnd.x+json"),
        "mcp-protocol-version": ("2026-07-28", "2025-06-18", "2024-11-05", "1999-01-01", ""),
        "mcp-session-id": ("unknown", ""),
    }.items():
        for value in (*values, None):
            said = [[*((n, v) for n, v in door.headers(version, *more) if n != name)] for door in both]
            for headers in said:
                headers += [] if value is None else [(name, value)]
            expected, found = await by_sdk.ask(body, said[0]), await past_it.ask(body, said[1])
            assert found.seen == expected.seen, (name, value)
    assert past_it.past >= 5


async def test_lists(both: tuple[Door, Door], version: str) -> None:
    async def pages() -> list[str]:
        names, cursor = [], None
        while True:
            reply = await alike(both, version, *listing(version, cursor))
            result = json.loads(reply.body)["result"]
            names += [tool["name"] for tool in result["tools"]]
            cursor = result.get("nextCursor")
            if cursor is None:
                return names

    before = await pages()
    await alike(both, version, *call(version, "register", {"names": [f"more_{n:03}" for n in range(PAGE)]}))
    after = await pages()
    assert set(after) - set(before) == {f"more_{n:03}" for n in range(PAGE)}
    assert both[1].past == 4
    for wrong in ("", "x", "é"):
        await alike(both, version, *listing(version, wrong))
    assert both[1].past == 4


def listing(version: str, cursor: str | None = None) -> tuple[bytes, Sequence[tuple[str, str]]]:
    params: dict[str, object] = {} if cursor is None else {"cursor": cursor}
    if version == MODERN:
        params["_meta"] = BESIDE
    return message("tools/list", params), [("mcp-method", "tools/list")]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
CALLED = st.sampled_from([tool for tool, _ in USUAL if tool not in ("explode", "unsendable")])
ARGUMENTS = (
    st.fixed_dictionaries({}, optional={"value": VALUES, "id": VALUES, "name": VALUES, "limit": VALUES})
    | st.fixed_dictionaries({"id": st.integers(0, 3)})
    | st.fixed_dictionaries({"name": st.text(max_size=8)})
    | st.fixed_dictionaries({"value": VALUES})
)
BESIDE_CALLS = st.sampled_from([*BESIDE, "nexus/dry_run", "nexus/max_affected", "progressToken", "other"])


def wrong(draw: st.DrawFn, message: dict[str, Any]) -> str:
    """The message as JSON, with something about it that may not be right."""
    params = message["params"]
    match draw(st.integers(0, 6)):
        case 0:
            message[draw(st.sampled_from([*message, "extra"]))] = draw(VALUES)
        case 1:
            params[draw(st.sampled_from([*params, "task", "cursor", "extra"]))] = draw(VALUES)
        case 2:
            params["_meta"] = {**BESIDE, draw(BESIDE_CALLS): draw(VALUES)}
        case 3:
            del message[draw(st.sampled_from([*message]))]
        case 4:
            del params[draw(st.sampled_from([*params]))]
        case 5:
            message["method"] = draw(
                st.sampled_from(["tools/list", "ping", "resources/list", "tools/calls", ""])
            )
        case 6:
            twice, value = draw(st.sampled_from([*message])), draw(VALUES)
            return f"{{{json.dumps(twice)}: {json.dumps(value)}, {json.dumps(message)[1:]}"
    return json.dumps(message)


@st.composite
def asked(draw: st.DrawFn) -> tuple[bytes, Sequence[tuple[str, str]]]:
    """A message and its headers, in one case of two right."""
    params = {"name": draw(CALLED), "arguments": draw(ARGUMENTS), "_meta": BESIDE}
    number = draw(st.integers(-(2**70), 2**70) | st.text(max_size=5))
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    body = json.dumps(message) if draw(st.booleans()) else wrong(draw, message)
    method, name = message.get("method"), params.get("name")
    more = [("mcp-method", method if isinstance(method, str) and method.isascii() else "")]
    if isinstance(name, str) and name.isascii():
        more.append(("mcp-name", name))
    return body.encode(), more


@settings(max_examples=40)
@given(st.sampled_from(ERAS), st.lists(asked(), min_size=8, max_size=8))
def test_anything(version: str, messages: list[tuple[bytes, Sequence[tuple[str, str]]]]) -> None:
    async def compare() -> None:
        async with doors(version) as both:
            for body, more in messages:
                with suppress(Malformed):  # which the endpoint refuses before either
                    check_json(body)
                    await alike(both, version, body, more)

    asyncio.run(compare())


class TestLongCalls:
    """They begin past the SDK, and end in it."""

    async def test_are_answered_alike(self, both: tuple[Door, Door], version: str) -> None:
        reply = await alike(both, version, *call(version, "echo", {"text": "x", "pause": 3 * SOON}))
        assert json.loads(reply.body)["result"]["structuredContent"] == {"result": "x"}
        await alike(both, version, *call(version, "explode", {}))

    async def test_are_cancelled_when_their_client_leaves(self) -> None:
        async with doors(MODERN) as both:
            for door in both:
                body, more = call(MODERN, "wait", {"name": "x"})
                leaving = asyncio.Event()
                asking = asyncio.create_task(door.ask(body, door.headers(MODERN, *more), leaving=leaving))
                await asyncio.sleep(0.001)
                leaving.set()
                await asking
                assert await cancelled(door, MODERN) == ["x"]

    @pytest.mark.parametrize("after", [0.0, 3 * SOON])
    async def test_are_cancelled_by_a_notification(self, after: float) -> None:
        async with doors(OLDER) as both:
            replies = []
            for door in both:
                body, _ = call(OLDER, "wait", {"name": "x"}, number=7)
                asking = asyncio.create_task(door.ask(body, door.headers(OLDER)))
                await asyncio.sleep(after)
                notice = message("notifications/cancelled", {"requestId": 7}, number=None)
                await door.ask(notice, door.headers(OLDER))
                replies.append((await asking).seen)
                assert await cancelled(door, OLDER) == ["x"]
            assert replies[0] == replies[1]

    async def test_end_with_their_session(self) -> None:
        async with doors(OLDER) as both:
            replies = []
            for door in both:
                body, _ = call(OLDER, "wait", {"name": "x"})
                asking = asyncio.create_task(door.ask(body, door.headers(OLDER)))
                await asyncio.sleep(0.005)
                ending = await door.ask(b"", door.headers(OLDER), method="DELETE")
                late = await door.ask(call(OLDER, "things_list")[0], door.headers(OLDER))
                replies.append([reply.seen for reply in (ending, late, await asking)])
                assert late.status == 404
                await door.open(OLDER)
                assert await cancelled(door, OLDER) == ["x"]
            assert replies[0] == replies[1]


async def cancelled(door: Door, version: str) -> list[str]:
    body, more = call(version, "who_was_cancelled")
    async with asyncio.timeout(5):
        while True:
            reply = await door.ask(body, door.headers(version, *more))
            if found := json.loads(reply.body)["result"]["structuredContent"]["result"]:
                return list(found)
            await asyncio.sleep(0.01)


class TestSessions:
    """Of the protocol: they belong to the session of Nexus that opened them."""

    async def test_are_unknown_to_others(self) -> None:
        other = Session(id="another", user="another", scopes=LOCAL.scopes)
        async with doors(OLDER) as both:
            body = call(OLDER, "things_list")[0]
            for door in both:
                unknown = await door.ask(body, [*door.headers(OLDER)[:-1], ("mcp-session-id", "unknown")])
                for method in ("POST", "GET", "DELETE"):
                    reply = await door.ask(body, door.headers(OLDER), session=other, method=method)
                    assert reply.seen == unknown.seen
                    assert reply.status == 404
                assert (await door.ask(body, door.headers(OLDER))).status == 200

    async def test_are_shown_to_the_sdk_from_time_to_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with doors(OLDER) as both:
            await alike(both, OLDER, *call(OLDER, "things_list"))
            assert both[1].past == 1
            monkeypatch.setattr(peers, "SEEN", 0.0)
            await alike(both, OLDER, *call(OLDER, "things_list"))
            assert both[1].past == 1


async def test_where_there_is_tracing_the_sdk_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with doors(MODERN) as both:
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", NoOpTracerProvider())
        await alike(both, MODERN, *call(MODERN, "things_list"))
        assert both[1].past == 0
