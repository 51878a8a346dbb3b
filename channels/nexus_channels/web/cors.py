"""Which pages of other origins may use the server (the CORS protocol of the Fetch standard)."""

from __future__ import annotations

import re

from nexus.errors import ConfigurationError
from nexus_channels.asgi import Header, Reply

_ANY = "*"
_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+").fullmatch
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_MAY_SEND = (
    b"Authorization, Content-Type, Accept, X-API-Key, X-Request-ID, Traceparent, Tracestate, Idempotency-Key,"
    b" If-Match, If-None-Match, Prefer, Last-Event-ID, Mcp-Method, Mcp-Name, Mcp-Protocol-Version,"
    b" Mcp-Session-Id"
)
_MAY_READ = (
    b"ETag, Location, Link, X-Request-ID, RateLimit, RateLimit-Policy, Retry-After, Preference-Applied,"
    b" Idempotency-Replayed, Mcp-Session-Id"
)
_SECONDS = b"600"


class Cors:
    """The origins of the setting NEXUS_CORS_ORIGINS. Raises ConfigurationError for what is no origin."""

    def __init__(self, setting: str, *, open_to_all: bool) -> None:
        given = [one.strip().lower() for one in setting.split(",") if one.strip()]
        self._any = _ANY in given
        if self._any and len(given) > 1:
            raise ConfigurationError("NEXUS_CORS_ORIGINS: '*' stands for all origins, and so alone.")
        if self._any and open_to_all:
            raise ConfigurationError(
                "NEXUS_CORS_ORIGINS=* without an API key would let every page of the web use this server.",
                remedy="Name the origins, or set NEXUS_API_KEY.",
            )
        for one in given if not self._any else ():
            if not _origin(one):
                raise ConfigurationError(
                    f"NEXUS_CORS_ORIGINS: '{one[:80]}' is not an origin.",
                    remedy="One is written as https://shop.example or http://localhost:5173, without a path.",
                )
        self._origins = frozenset(_normal(one.encode()) for one in given)

    def allows(self, origin: bytes) -> bool:
        return self._any or _normal(origin.lower()) in self._origins

    def headers(self, origin: bytes | None) -> list[Header]:
        """What belongs into the response to a page of that origin, and into those to others."""
        if self._any:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _MAY_READ)]
        if origin is None or not self.allows(origin):
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _MAY_READ),
            (b"vary", b"Origin"),
        ]

    def preflight(self) -> Reply:
        """The answer to a browser that asks first whether a page may."""
        return (
            204,
            b"",
            [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _MAY_SEND),
                (b"access-control-max-age", _SECONDS),
            ],
        )


def is_preflight(method: str | None, headers: dict[bytes, bytes]) -> bool:
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def _normal(origin: bytes) -> bytes:
    """Without the port that its scheme has anyway."""
    for scheme, port in ((b"http://", b":80"), (b"https://", b":443")):
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin
