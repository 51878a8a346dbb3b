"""The outermost layer: which browser pages may ask, who asks, and under which id."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import itertools
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nexus.config import is_loopback
from nexus.errors import Forbidden, Misdirected, NexusError, Unavailable
from nexus.session import Sessions
from nexus_channels.asgi import refuse, route_path, unexpected
from nexus_channels.pages import PAGES

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/health", "/ready", *PAGES})
"""What is answered without a credential."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SAFE = frozenset({"GET", "HEAD"})
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class Guard:
    """ASGI middleware. It puts the caller's Session into `scope["nexus.session"]`, a request id on
    every response, and turns away what a page of another site makes a browser send.

    An exception that comes out of the application is logged here and answered with a problem.
    """

    def __init__(
        self, app: ASGIApp, sessions: Sessions, *, is_open: Callable[[Scope], bool] = lambda _: False
    ) -> None:
        """`is_open` says which addresses beside OPEN_PATHS are answered without a credential; one that is
        shown there is looked at."""
        self._app = app
        self._sessions = sessions
        self._is_open = is_open
        self._prefix = os.urandom(6).hex().encode() + b"-"
        self._numbers = itertools.count(1)
        self.closing = False
        """Set by a server that from now on cancels requests because it ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        if given is None or not _SANE_ID.fullmatch(given):
            given = self._prefix + b"%x" % next(self._numbers)
        request_id = (b"x-request-id", given)
        started = False

        async def identified(message: Message) -> None:
            nonlocal started
            if message["type"] in _STARTS:
                started = True
                message["headers"] = [*message.get("headers", ()), request_id]
            await send(message)

        try:
            self._check_origin(scope, headers)
            if route_path(scope) not in OPEN_PATHS:
                await self._identify(scope, headers)
        except NexusError as failure:
            await refuse(scope, receive, identified, failure)
            return
        try:
            await self._app(scope, receive, identified)
        except asyncio.CancelledError:
            if not started:
                await refuse(scope, receive, identified, Unavailable("The server is closing."))
            if not self.closing:
                raise
        except Exception as failure:
            problem = unexpected(scope, failure)
            if not started:
                await refuse(scope, receive, identified, problem)

    async def _identify(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        credential = _credential(headers)
        if credential is not None or self._sessions.open or not self._is_open(scope):
            scope["nexus.session"] = await self._sessions.resolve(credential)

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raises for a request that a page of another site may have made.

        Without credentials it is the Host header that tells: a name that such a page's owner has
        pointed at this machine is not a name of this machine."""
        host = headers.get(b"host", b"")
        if self._sessions.open and _is_elsewhere(scope.get("client")):
            raise Forbidden(
                "Without an API key this server answers to its own machine only.", remedy="Set NEXUS_API_KEY."
            )
        if self._sessions.open and not _names_loopback(host):
            raise Misdirected(
                f"This server does not answer to the host '{host.decode('latin-1')[:80]}'.",
                remedy="Without an API key it answers to localhost, 127.0.0.1 and [::1] only.",
            )
        origin = headers.get(b"origin")
        if origin is not None and not _same_site(origin, host):
            raise Forbidden(
                f"A page of {origin.decode('latin-1')[:80]} may not use this server.",
                remedy="Only pages that it serves itself may.",
            )
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope.get("method") not in _SAFE:
            raise Forbidden("A page of another site may not use this server.")


def _is_elsewhere(client: Sequence[Any] | None) -> bool:
    """Whether a request comes from another machine. Our own server listens where none can ask; others do
    what they are told."""
    return client is not None and _is_foreign(client[0])


@functools.lru_cache(maxsize=256)
def _is_foreign(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False  # a test's client, or one of a unix socket
    return not (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _credential(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        token = headers.get(b"x-api-key", b"")
    return token.strip().decode("latin-1") or None


@functools.lru_cache(maxsize=256)
def _names_loopback(host: bytes) -> bool:
    name = host.decode("latin-1")
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    else:
        name = name.partition(":")[0]
    return is_loopback(name.lower())


def _same_site(origin: bytes, host: bytes) -> bool:
    scheme, _, place = origin.lower().partition(b"://")
    default = _DEFAULT_PORTS.get(scheme)
    if default is None:
        return False
    return place.removesuffix(default) == host.lower().removesuffix(default) and place != b""
