"""Responses in gzip, where they are text, long enough, and asked for in that form."""

from __future__ import annotations

import functools
import zlib

from starlette.types import Message, Scope, Send

from nexus_channels.asgi import Header

LEAST = 1024
_LEVEL = 1
_GZIP = 31
_SUFFIX = b'-gzip"'
_TEXTS = (b"text/", b"application/json", b"application/problem+json", b"application/x-ndjson")
_MORE_TEXTS = (b"application/ndjson", b"application/jsonl", b"application/javascript", b"image/svg+xml")
_STREAM = b"text/event-stream"
_CONDITIONS = frozenset({b"if-match", b"if-none-match"})
_VARY: Header = (b"vary", b"Accept-Encoding")
_ENCODED: Header = (b"content-encoding", b"gzip")
_WITHOUT_BODY = frozenset({204, 205, 206, 304})


class Compressing:
    """An ASGI `send` for one response.

    The tag of a compressed representation ends in `-gzip`, since another form of the same needs another
    strong tag (RFC 9110, 8.8.3.3); `without_suffix` takes it off the conditions of requests, so that either
    tag stands for the record.
    """

    def __init__(self, send: Send, method: str, *, wanted: bool, tagged: bool) -> None:
        self._send = send
        self._head = method == "HEAD"
        self._wanted = wanted
        self._tagged = tagged
        self._start: Message | None = None
        self._stream: zlib._Compress | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            await self._first(self._start, message)
        elif self._stream is not None:
            body, more = message.get("body", b""), message.get("more_body", False)
            packed = self._stream.compress(body) if body else b""
            packed += self._stream.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
            await self._send({**message, "body": packed})
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = dict(message["headers"])
        if not _compressible(headers, message["status"]):
            if message["status"] == 304 and self._tagged:
                message["headers"] = [_retagged(header) for header in message["headers"]]
            await self._send(message)
            return
        message["headers"] = [*message["headers"], _VARY]
        length = headers.get(b"content-length")
        if not self._wanted or (length is not None and int(length) < LEAST):
            await self._send(message)
        elif self._head:  # how long the body would be is not known without it
            message["headers"] = _encoded(message["headers"])
            await self._send(message)
        else:
            self._start = message

    async def _first(self, start: Message, message: Message) -> None:
        """Of a body that comes at once the length is known."""
        self._start = None
        body = message.get("body", b"")
        start["headers"] = _encoded(start["headers"])
        stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        if message.get("more_body", False):
            self._stream = stream
            packed = stream.compress(body) + stream.flush(zlib.Z_SYNC_FLUSH)
        else:
            packed = stream.compress(body) + stream.flush()
            start["headers"].append((b"content-length", b"%d" % len(packed)))
        await self._send(start)
        await self._send({**message, "body": packed})


def compressing(scope: Scope, headers: dict[bytes, bytes], send: Send) -> Send:
    """The `send` of a request; the conditions in its scope are then about the record's own tag."""
    tagged = _SUFFIX in headers.get(b"if-none-match", b"")
    if tagged or _SUFFIX in headers.get(b"if-match", b""):
        scope["headers"] = [
            (name, value.replace(_SUFFIX, b'"') if name in _CONDITIONS else value)
            for name, value in scope["headers"]
        ]
    wanted = accepts_gzip(headers.get(b"accept-encoding", b""))
    return Compressing(send, scope["method"], wanted=wanted, tagged=tagged)


@functools.lru_cache(maxsize=256)
def accepts_gzip(accepted: bytes) -> bool:
    """Whether gzip is acceptable, and liked at least as well as no compression (RFC 9110, 12.5.3)."""
    qualities: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        qualities["gzip" if name == "x-gzip" else name] = quality
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _compressible(headers: dict[bytes, bytes], status: int) -> bool:
    if status in _WITHOUT_BODY or status < 200 or b"content-encoding" in headers:
        return False
    media = headers.get(b"content-type", b"")
    return media.startswith(_TEXTS + _MORE_TEXTS) and not media.startswith(_STREAM)


def _encoded(headers: list[Header]) -> list[Header]:
    kept = [_retagged(header) for header in headers if header[0] != b"content-length"]
    return [*kept, _ENCODED]


def _retagged(header: Header) -> Header:
    name, value = header
    if name != b"etag" or not value.endswith(b'"'):
        return header
    return name, value[:-1] + _SUFFIX
