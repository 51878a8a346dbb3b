"""The outermost layer: which browser pages may ask, who asks, how often, and under which id."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.config import Settings, is_loopback
from nexus.errors import (
    Forbidden,
    Malformed,
    Misdirected,
    NexusError,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from nexus.request import REQUEST, new_request, request_of
from nexus.session import Session, Sessions
from nexus_channels.asgi import (
    HEADERS,
    WHOLE,
    Header,
    Sending,
    Whole,
    answer,
    refuse,
    rooted,
    route_path,
    unexpected,
)
from nexus_channels.pages import PAGES
from nexus_channels.web.access import log_access
from nexus_channels.web.compression import compressing
from nexus_channels.web.cors import Cors, is_preflight
from nexus_channels.web.rates import Rates, rate_from

READINESS = frozenset({"/readyz", "/ready"})
OPEN_PATHS = frozenset({"/", "/livez", "/health", *READINESS, *PAGES})
"""What is answered without a credential, however often."""

_NONE: dict[str, Any] = {}
_SAFE = frozenset({"GET", "HEAD"})
_ONCE = frozenset({b"host", b"authorization", b"x-api-key", b"content-type"})
_TELLING = frozenset({b"origin", b"sec-fetch-site", b"transfer-encoding"})
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}


class Guard:
    """ASGI middleware. It puts the caller's Session into `scope["nexus.session"]`, the request's id into
    `scope["nexus.request"]`, into REQUEST and on every response, and turns away what a page of another site
    makes a browser send.

    An exception that comes out of the application is logged here and answered with a problem. Raises
    ConfigurationError for settings that cannot be honoured.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        settings: Settings | None = None,
        *,
        is_open: Callable[[Scope], bool] = lambda _: False,
        plain: bool = False,
    ) -> None:
        """`is_open` says which addresses beside OPEN_PATHS are answered without a credential; one that is
        shown there is looked at. `plain` says that nothing stands between here and what answers, and changes
        requests or responses."""
        settings = settings or Settings()
        self._app = app
        self._sessions = sessions
        self._is_open = is_open
        self._cors = Cors(settings.cors_origins, open_to_all=sessions.open) if settings.cors_origins else None
        self._rates = Rates(rate_from(settings.rate_limit)) if settings.rate_limit else None
        self._compress = settings.compression
        self._open = sessions.open
        self._plain = plain and not settings.compression
        self._logs = settings.access_log
        self.draining = False
        """Set by a server that ends soon, and so is not ready."""
        self.closing = False
        """Set by a server that from now on cancels requests because it ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter() if self._logs else 0.0
        if scope.get("root_path"):
            scope = rooted(scope)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given, trace = headers.get(b"x-request-id"), headers.get(b"traceparent")
        request = new_request() if given is trace is None else request_of(given, trace)
        scope["nexus.request"] = request
        added: list[Header] = [(b"x-request-id", request.encode())]
        whole: Whole | None = None
        if self._plain:
            scope[HEADERS] = headers
            whole = scope.get("extensions", _NONE).get(WHOLE, _NONE).get("send")
        http = scope["type"] == "http"
        if http:
            if self._cors is not None:
                added += self._cors.headers(headers.get(b"origin"))
            if self._compress:
                send = compressing(scope, headers, send)
        sending = Sending(send, added, whole)
        before = REQUEST.set(request)
        try:
            try:
                self._check_sender(scope, headers)
                if http and self._cors is not None and is_preflight(scope["method"], headers):
                    await answer(sending, self._cors.preflight())
                    return
                path = route_path(scope)
                if path not in OPEN_PATHS:
                    credential = _credential(headers)
                    if credential is None and not self._open and self._is_open(scope):
                        pass  # nobody in particular
                    elif self._rates is None:
                        scope["nexus.session"] = await self._sessions.resolve(credential)
                    else:
                        scope["nexus.rates"] = self._rates
                        scope["nexus.session"] = await self._counted(self._rates, scope, credential, added)
                elif self.draining and path in READINESS:
                    raise Unavailable("The server is closing.")
            except NexusError as failure:
                await refuse(scope, receive, sending, failure)
                return
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not sending.status:
                await refuse(scope, receive, sending, Unavailable("The server is closing."))
            if not self.closing:
                raise
        except Exception as failure:
            problem = unexpected(scope, failure)
            if not sending.status:
                await refuse(scope, receive, sending, problem)
        finally:
            REQUEST.reset(before)
            if self._logs:
                log_access(scope, sending.status, time.perf_counter() - begun)

    async def _counted(
        self, rates: Rates, scope: Scope, credential: str | None, added: list[Header]
    ) -> Session:
        address = (scope.get("client") or ("",))[0]
        try:
            rates.admit(address, credential)
            session = await self._sessions.resolve(credential)
            rates.accepted(credential)
            added += rates.count(session)
        except Unauthenticated:
            rates.rejected(address)
            raise
        except RateLimited as failure:
            added += rates.refusal(failure)
            raise
        return session

    def _check_sender(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raises for a request that a page of another site may have made, and for one that says twice what
        others between may have read once.

        Without credentials it is the Host header that tells: a name that such a page's owner has
        pointed at this machine is not a name of this machine."""
        host = headers.get(b"host", b"")
        if not host and b"host" not in headers and scope.get("http_version") == "1.1":
            raise Malformed("The request has no Host header.")
        if self._open:
            if _is_elsewhere(scope.get("client")):
                raise Forbidden(
                    "Without an API key this server answers to its own machine only.",
                    remedy="Set NEXUS_API_KEY.",
                )
            if not _names_loopback(host):
                raise Misdirected(
                    f"This server does not answer to the host '{host.decode('latin-1')[:80]}'.",
                    remedy="Without an API key it answers to localhost, 127.0.0.1 and [::1] only.",
                )
        if len(headers) != len(scope["headers"]):
            _check_repeated(scope["headers"])
        if _TELLING.isdisjoint(headers):
            return
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or scope["http_version"] == "1.0"):
            raise Malformed("The body is in a transfer coding that is not read.", remedy="Send it in chunks.")
        origin = headers.get(b"origin")
        if origin is not None and not _same_site(origin, host):
            if self._cors is not None and self._cors.allows(origin):
                return
            raise Forbidden(
                f"A page of {origin.decode('latin-1')[:80]} may not use this server.",
                remedy="Only pages that it serves itself, or that NEXUS_CORS_ORIGINS names, may.",
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
    if b"authorization" not in headers and b"x-api-key" not in headers:
        return None
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        token = headers.get(b"x-api-key", b"")
    return token.strip().decode("latin-1") or None


def _check_repeated(headers: list[Header]) -> None:
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Malformed(f"There is more than one {name.decode().title()} header.")


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
