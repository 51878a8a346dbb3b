"""Responses in gzip: for whom, of what, and what becomes of tags and streams."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send

from dataflow import DataFlow
from nexus import Nexus, Settings
from nexus.session import Sessions
from nexus_channels.guard import Guard
from nexus_channels.server import running_server
from nexus_channels.web.compression import accepts_gzip
from tests.support.problems import assert_problem
from tests.support.raw import Line, line, request
from tests.support.wire import wire

GZIP = {"accept-encoding": "gzip"}
PLAIN = {"accept-encoding": "identity"}


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    db = DataFlow(":memory:")

    @db.model
    class Lamp:
        name: str

    app = Nexus(db, channels=("rest", "websocket"), settings=Settings(compression=True))
    async with running_server(app) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as made:
        data = [{"name": f"lamp {number}"} for number in range(1200)]
        assert (await made.post("/api/lamps:bulk_create", json={"data": data})).status_code == 200
        yield made


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=1.0, *;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("br, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.2, identity;q=0.5", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
def test_who_accepts_it(accepted: str, wanted: bool) -> None:
    assert accepts_gzip(accepted.encode()) is wanted


@pytest.mark.parametrize("path", ["/api/lamps?limit=50", "/openapi.json", "/docs/docs.js"])
async def test_long_texts(client: httpx2.AsyncClient, path: str) -> None:
    packed = await client.get(path, headers=GZIP)
    plain = await client.get(path, headers=PLAIN)
    assert plain.status_code == packed.status_code == 200, path
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.content == plain.content
    for answer in (packed, plain):
        assert "Accept-Encoding" in answer.headers["vary"]


async def test_short_texts_stay_as_they_are(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/lamps/1", headers=GZIP)
    assert "content-encoding" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_head_tells_the_same(client: httpx2.AsyncClient) -> None:
    answer = await client.head("/api/lamps?limit=50", headers=GZIP)
    assert answer.headers["content-encoding"] == "gzip"
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("media", ["text/csv", "application/x-ndjson"])
async def test_streams_come_piece_by_piece(client: httpx2.AsyncClient, media: str) -> None:
    """What the first page gives can be read before the last has been made."""
    raw: Line = await line(str(client.base_url))
    await raw.send(request("GET", "/api/lamps", None, f"accept: {media}", "accept-encoding: gzip"))
    head = (await raw.reader.readuntil(b"\r\n\r\n")).decode()
    assert "content-encoding: gzip" in head
    unpack, pieces = zlib.decompressobj(31), []
    while size := int(await raw.reader.readline(), 16):
        pieces.append(unpack.decompress(await raw.reader.readexactly(size)))
        await raw.reader.readline()
    await raw.aclose()
    assert unpack.eof
    plain = await client.get("/api/lamps", headers={"accept": media, **PLAIN})
    assert b"".join(pieces) == plain.content
    assert sum(piece != b"" for piece in pieces) >= 3


async def test_the_websocket_is_not_compressed(client: httpx2.AsyncClient) -> None:
    async with wire(str(client.base_url).rstrip("/"), additional_headers=GZIP) as connected:
        assert connected.connection.response is not None
        assert "content-encoding" not in connected.connection.response.headers
        assert await connected.ask(type="ping") == {"type": "pong"}


async def test_what_comes_compressed_is_refused(client: httpx2.AsyncClient) -> None:
    body, headers = gzip.compress(b'{"name": "x"}'), {"content-type": "application/json"}
    refused = await client.post("/api/lamps", content=body, headers={**headers, "content-encoding": "gzip"})
    assert_problem(refused, 415, "NX-415")
    assert refused.headers["accept-encoding"] == "identity"
    other = await client.post("/api/lamps", content=b"x", headers={"content-type": "text/plain"})
    assert_problem(other, 415, "NX-415")
    assert "accept-encoding" not in other.headers


class Tagged:
    """An application with one long record, which knows its tag."""

    def __init__(self) -> None:
        self.conditions: dict[bytes, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.conditions = dict(scope["headers"])
        known = self.conditions.get(b"if-none-match") == b'"v7"'
        headers = [(b"content-type", b"application/json"), (b"etag", b'"v7"')]
        if scope["path"] == "/events":
            headers[0] = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 304 if known else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if known else b"x" * 5000})


async def ask(app: Any, path: str = "/", **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "http_version": "1.1", "headers": [(b"host", b"localhost"), *named],
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


class TestTags:
    @pytest.fixture
    def inner(self) -> Tagged:
        return Tagged()

    @pytest.fixture
    def app(self, inner: Tagged) -> Guard:
        return Guard(inner, Sessions(), Settings(compression=True))

    async def test_another_form_has_another_tag(self, app: Guard) -> None:
        _, headers, body = await ask(app, accept_encoding="gzip")
        assert headers[b"etag"] == b'"v7-gzip"'
        assert gzip.decompress(body) == b"x" * 5000
        _, headers, body = await ask(app)
        assert (headers[b"etag"], len(body)) == (b'"v7"', 5000)

    @pytest.mark.parametrize("tag", ['"v7"', '"v7-gzip"', '"v1", "v7-gzip"'])
    async def test_either_stands_for_the_record(self, app: Guard, inner: Tagged, tag: str) -> None:
        await ask(app, if_match=tag, accept_encoding="gzip")
        assert inner.conditions[b"if-match"] == tag.replace("-gzip", "").encode()

    async def test_what_has_not_changed_keeps_the_tag_that_was_shown(self, app: Guard) -> None:
        for tag in (b'"v7"', b'"v7-gzip"'):
            status, headers, body = await ask(app, if_none_match=tag.decode(), accept_encoding="gzip")
            assert (status, headers[b"etag"], body) == (304, tag, b"")

    async def test_events_are_left_alone(self, app: Guard) -> None:
        _, headers, body = await ask(app, "/events", accept_encoding="gzip")
        assert b"content-encoding" not in headers
        assert len(body) == 5000
