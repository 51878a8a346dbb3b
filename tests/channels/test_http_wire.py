"""HTTP over a bare socket: what cannot be read, is too much, comes too slowly, or all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest

from dataflow import DataFlow
from nexus import Nexus, Settings
from nexus_channels.server import running_server
from tests.support.raw import Answer, Line, line, request

LIMIT = 50_000
J = b"host: localhost\r\ncontent-type: application/json\r\n"
POST = b"POST /api/lamps HTTP/1.1\r\n" + J
CHUNKED = POST + b"transfer-encoding: chunked\r\n"
END = b"0\r\n\r\n"
LAMP = b'd\r\n{"name": "x"}\r\n'
UPGRADE = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")


@pytest.fixture(scope="module")
async def url() -> AsyncIterator[str]:
    db = DataFlow(":memory:")

    @db.model
    class Lamp:
        name: str

    @db.model
    class Page:
        id: str

    settings = Settings(receive_timeout=1.0, body_limit=LIMIT)
    async with running_server(Nexus(db, channels=("rest", "websocket"), settings=settings)) as base:
        yield base


@pytest.fixture
async def raw(url: str) -> AsyncIterator[Line]:
    connected = await line(url)
    yield connected
    await connected.aclose()


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]


async def count(url: str) -> int:
    other = await line(url)
    await other.send(request(close=True))
    found: int = (await other.answer()).json()["count"]
    await other.aclose()
    return found


UNREADABLE = {
    "length and chunks": POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + LAMP + END,
    "chunks and length": CHUNKED + b"content-length: 4\r\n\r\n" + LAMP + END,
    "two lengths": POST + b"content-length: 13\r\ncontent-length: 12\r\n\r\n" + b'{"name": "x"}',
    "two lengths in one": POST + b"content-length: 13, 13\r\n\r\n" + b'{"name": "x"}',
    "a negative length": POST + b"content-length: -1\r\n\r\n",
    "a signed length": POST + b"content-length: +13\r\n\r\n" + b'{"name": "x"}',
    "a length without end": POST + b"content-length: 99999999999999999999999\r\n\r\n{}",
    "chunks in another word": POST + b"transfer-encoding: xchunked\r\n\r\n" + LAMP + END,
    "chunks that are not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + LAMP + END,
    "chunks twice": CHUNKED + b"transfer-encoding: chunked\r\n\r\n" + LAMP + END,
    "compressed chunks": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks before they were": POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of another size": CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n",
    "a chunk without end": CHUNKED + b"\r\nfffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a name with a space": POST + b"content-length : 2\r\n\r\n{}",
    "a folded line": b"GET /api/lamps HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n",
    "lines of another end": b"GET /api/lamps HTTP/1.1\nhost: localhost\n\n",
    "a null": b"GET /api/lamps HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
    "no host": b"GET /api/lamps HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/lamps HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
    "two credentials": request(path="/api", body=None)[:-2] + b"authorization: a\r\nauthorization: b\r\n\r\n",
    "a path that is not ASCII": "GET /api/pages/ä HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(),
    "a path that is not UTF-8": request(path="/api/pages/%ff"),
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that there is not": b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a body for another protocol": request(
        "POST", "/api/lamps", {"name": "x"}, "connection: upgrade", "upgrade: h2c"
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_cannot_be_read_is_refused_and_does_nothing(raw: Line, url: str, name: str) -> None:
    before = await count(url)
    await raw.send(UNREADABLE[name])
    assert_refused(await raw.answer(), 400, "NX-400")
    assert await count(url) == before


class TestTooMuch:
    @pytest.mark.parametrize("sent", [b"x-big: ", b"x"])
    async def test_a_header_without_end_is_not_kept(self, raw: Line, sent: bytes) -> None:
        """Ten megabytes are on their way: the refusal comes after the first few."""
        await raw.send(b"GET /api/lamps HTTP/1.1\r\nhost: localhost\r\n" + sent)
        answer = asyncio.create_task(raw.answer())
        megabytes = 0
        while not answer.done() and megabytes < 10:
            await raw.send(b"a" * 1_000_000)
            await asyncio.sleep(0.02)
            megabytes += 1
        assert_refused(await answer, 431, "NX-431")
        assert megabytes < 5

    async def test_very_many_headers(self, raw: Line) -> None:
        await raw.send(request(path="/api", body=None)[:-2] + b"x: y\r\n" * 1_000_000 + b"\r\n")
        assert_refused(await raw.answer(), 431, "NX-431")
        await raw.ended()

    @pytest.mark.parametrize(("fields", "size", "status"), [(90, 300, 200), (101, 1, 431), (90, 400, 431)])
    async def test_the_bounds(self, raw: Line, fields: int, size: int, status: int) -> None:
        await raw.send(request("GET", "/api", None, *[f"x-{n}: {'y' * size}" for n in range(fields)]))
        assert (await raw.answer()).status == status

    async def test_an_address_without_end(self, raw: Line) -> None:
        await raw.send(b"GET /api/lamps?x=" + b"a" * 10_000_000)
        assert_refused(await raw.answer(), 413, "NX-413")

    async def test_a_body_that_is_too_large_and_what_comes_after_it(self, raw: Line) -> None:
        await raw.send(request("POST", "/api/lamps", {"name": "x" * 2 * LIMIT}) + request(close=True))
        assert_refused(await raw.answer(), 413, "NX-413")
        assert (await raw.answer()).status == 200
        assert await raw.ended() == b""


class TestTooSlow:
    @pytest.mark.parametrize(
        "begun",
        [
            b"GE",
            b"GET /api/lamps HTTP/1.1\r\nhost: loc",
            POST + b"content-length: 100\r\n\r\n",
            POST + b"content-length: 100\r\n\r\n{",
            CHUNKED + b"\r\n10\r\n{",
        ],
    )
    async def test_what_does_not_come_whole(self, raw: Line, url: str, begun: bytes) -> None:
        await raw.send(begun)
        assert_refused(await raw.answer(), 408, "NX-408")
        assert await raw.ended() == b""

    async def test_what_comes_byte_by_byte(self, raw: Line) -> None:
        """Each is in time; all of them are not."""
        answer = asyncio.create_task(raw.answer())
        for byte in request(path="/api/lamps?limit=" + "1" * 1000):
            if answer.done():
                break
            await raw.send(bytes([byte]))
            await asyncio.sleep(0.02)
        assert_refused(await answer, 408, "NX-408")

    async def test_nothing_at_all(self, raw: Line) -> None:
        assert await raw.ended() == b""

    async def test_what_is_slow_to_be_answered_is_not_late(self, raw: Line) -> None:
        await raw.send(request("POST", "/api/lamps", {"name": "slow"})[:-3])
        await asyncio.sleep(0.3)
        await raw.send(b'w"}')
        assert (await raw.answer()).status == 201
        await asyncio.sleep(1.5)  # a connection that was used may be idle for as long
        await raw.send(request(close=True))
        assert (await raw.answer()).status == 200


class TestInARow:
    async def test_what_cannot_be_read_comes_after_what_can(self, raw: Line) -> None:
        await raw.send(request() * 2 + b"NOT HTTP\r\n\r\n")
        assert [(await raw.answer()).status for _ in range(2)] == [200, 200]
        assert await raw.ended() == b""

    async def test_a_websocket_does_not_overtake(self, raw: Line) -> None:
        key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        await raw.send(request() + request("GET", "/ws", None, *UPGRADE, key))
        assert (await raw.answer()).status == 200
        assert await raw.ended() == b""

    async def test_a_broken_body_behind_others(self, raw: Line) -> None:
        await raw.send(request() + CHUNKED + b"\r\nzz\r\n")
        assert (await raw.answer()).status == 200
        assert_refused(await raw.answer(), 400, "NX-400")
        assert await raw.ended() == b""

    async def test_writes_are_in_order(self, raw: Line) -> None:
        names = [f"lamp {n}" for n in range(20)]
        await raw.send(b"".join(request("POST", "/api/lamps", {"name": name}) for name in names))
        assert [(await raw.answer()).json()["name"] for _ in names] == names


class TestForms:
    async def test_head_has_no_body(self, raw: Line) -> None:
        await raw.send(request("HEAD", "/api/lamps") + request(close=True))
        head = (await raw.reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200 OK")
        assert "content-length: " in head
        assert (await raw.answer()).status == 200

    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/api/lamps", "GET, HEAD, OPTIONS, POST"),
            ("/api/lamps/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
            ("/livez", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_options(self, raw: Line, path: str, allow: str) -> None:
        await raw.send(request("OPTIONS", path))
        answer = await raw.answer()
        assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")

    @pytest.mark.parametrize("key", ["a%2Fb", "%E6%97%A5%E6%9C%AC", "%25", "a%3Ab", "%2e%2e"])
    async def test_encoded_ids(self, raw: Line, key: str) -> None:
        await raw.send(request("POST", "/api/pages", {"id": unquote(key)}))
        assert (await raw.answer()).status == 201
        await raw.send(request("GET", f"/api/pages/{key}"))
        assert (await raw.answer()).json()["id"] == unquote(key)

    async def test_an_address_with_its_host(self, raw: Line) -> None:
        await raw.send(request(path="http://localhost/api/lamps:count"))
        assert (await raw.answer()).status == 200

    async def test_a_client_that_would_like_another_protocol(self, raw: Line) -> None:
        await raw.send(request("GET", "/api", None, "connection: upgrade", "upgrade: h2c"))
        answer = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")

    async def test_what_follows_a_body_is_no_header(self, raw: Line) -> None:
        await raw.send(CHUNKED + b"\r\n" + LAMP + b"0\r\nx-request-id: trailing\r\nhost: evil\r\n\r\n")
        answer = await raw.answer()
        assert answer.status == 201
        assert answer.headers["x-request-id"] != "trailing"

    async def test_a_client_that_asks_before_it_sends(self, raw: Line) -> None:
        body = b'{"name": "x"}'
        await raw.send(POST + b"expect: 100-continue\r\ncontent-length: 13\r\n\r\n")
        assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await raw.send(body)
        assert (await raw.answer()).status == 201

    async def test_an_older_client(self, raw: Line) -> None:
        await raw.send(b"GET /api/lamps:count HTTP/1.0\r\nhost: localhost\r\n\r\n")
        assert (await raw.answer()).status == 200
        assert await raw.ended() == b""
