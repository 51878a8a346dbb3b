"""What the channels share of HTTP: read a body, answer, answer with a problem (RFC 9457)."""

from __future__ import annotations

import logging
import math
import urllib.parse
from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec
from starlette.types import Message, Receive, Scope, Send

from nexus.errors import (
    InvalidInput,
    KeyInFlight,
    Malformed,
    MethodNotAllowed,
    NexusError,
    PreconditionFailed,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedEncoding,
    UnsupportedMedia,
)

logger = logging.getLogger("nexus")

Header: TypeAlias = tuple[bytes, bytes]
Reply: TypeAlias = tuple[int, bytes, list[Header]]
"""Status, body and headers but for the length."""

JSON: Header = (b"content-type", b"application/json")
PROBLEM: Header = (b"content-type", b"application/problem+json")
_RETRY_AFTER = b"1"
_MOST_ARGUMENTS = 200


Whole: TypeAlias = Callable[[int, list[Header], bytes], bool]
WHOLE = "nexus.whole"
"""An extension of ASGI that our server has; its `send` is a Whole. That sends a response that is complete at
once, without the messages and the checks that parts of one need; or says False where it cannot be."""

HEADERS = "nexus.headers"
"""Where in a scope its headers are by name, if nothing has changed them since."""

_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class Sending:
    """The `send` of a request: adds headers to its response, and keeps what `status` it began with; 0 before
    that."""

    __slots__ = ("_added", "_send", "_whole", "status")

    def __init__(self, send: Send, added: list[Header], whole: Whole | None) -> None:
        self._send = send
        self._added = added
        self._whole = whole
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] in _STARTS:
            self.status = message.get("status", 101)
            message["headers"] = [*message.get("headers", ()), *self._added]
        await self._send(message)

    def at_once(self, reply: Reply) -> bool:
        """Send a whole response, if the server can; else False."""
        if self._whole is None:
            return False
        status, body, headers = reply
        if not self._whole(status, headers + self._added, body):
            return False
        self.status = status
        return True


class Disconnected(Exception):
    """The client went away before all of its request had come."""


async def answer(send: Send, reply: Reply, *, head: bool = False) -> None:
    """Send a whole response; of a HEAD request's only the headers."""
    status, body, headers = reply
    if status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    if type(send) is Sending and not head and send.at_once(reply):
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def reply_json(content: object, status: int = 200) -> Reply:
    return status, msgspec.json.encode(content), [JSON]


def reply_problem(failure: NexusError, status: int | None = None) -> Reply:
    """The problem document of an error, with the headers that its status asks for."""
    status = status or failure.status
    document = {
        "type": f"urn:nexus:error:{failure.code}",
        "status": status,
        **failure.describe(),
    }
    headers = [PROBLEM]
    if isinstance(failure, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    elif isinstance(failure, (Unavailable, KeyInFlight)):
        headers.append((b"retry-after", _RETRY_AFTER))
    elif isinstance(failure, PreconditionFailed) and failure.etag is not None:
        headers.append((b"etag", failure.etag.encode()))
    elif isinstance(failure, RateLimited):
        headers.append((b"retry-after", b"%d" % math.ceil(failure.seconds)))
    elif isinstance(failure, UnsupportedEncoding):
        headers.append((b"accept-encoding", b"identity"))
    elif isinstance(failure, MethodNotAllowed):
        headers.append((b"allow", allow(failure.allowed)))
    return status, msgspec.json.encode(document), headers


def allow(methods: Iterable[str]) -> bytes:
    """The value of an Allow header."""
    return ", ".join(methods).encode()


async def refuse(
    scope: Scope, receive: Receive, send: Send, failure: NexusError, status: int | None = None
) -> None:
    """Answer a request, or deny a websocket's handshake, with an error."""
    reply = reply_problem(failure, status)
    if scope["type"] == "http":
        await answer(send, reply, head=scope["method"] == "HEAD")
        return
    await receive()  # websocket.connect
    if "websocket.http.response" in scope.get("extensions", ()):
        status, body, headers = reply
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1002, "reason": failure.title})


def unexpected(scope: Scope, failure: BaseException) -> NexusError:
    """Log a failure that is ours, and give what may be said of it."""
    logger.error("%s %s failed", scope.get("method", "websocket"), scope["path"], exc_info=failure)
    return NexusError("The request failed.", remedy="The server's log says why.")


async def read_body(scope: Scope, receive: Receive, limit: int, *, rows: bool = False) -> bytes:
    """The JSON text of a request, which may be empty; `rows`: it is of another form, which the caller knows.

    Raises TooLarge as soon as the limit is passed, UnsupportedMedia for what is not declared as
    JSON, Disconnected when it does not come to its end."""
    headers = headers_of(scope)
    declared = headers.get(b"content-length")
    if declared is not None and _length(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest_of(body, receive, limit)
    elif message["type"] == "http.disconnect":
        raise Disconnected
    if len(body) > limit:
        raise _too_large(limit)
    if body:
        _check_media(headers, rows)
    return body


def route_path(scope: Scope) -> str:
    """The path below what the application is mounted at, decoded."""
    path: str = scope["path"]
    root = scope.get("root_path")
    return path.removeprefix(root) or "/" if root else path


def path_below(scope: Scope) -> str:
    """The address below the channel, still percent-encoded, so that an id may hold a slash."""
    root: str = scope.get("root_path", "")
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        return urllib.parse.quote(scope["path"].removeprefix(root))
    path = raw.decode("latin-1")
    return path[len(root) :] if path.startswith(root) else _below_encoded(path, root)


def _below_encoded(path: str, root: str) -> str:
    """Where what is above the channel is percent-encoded, too."""
    end = 0
    while end < len(path):
        after = path.find("/", end + 1)
        end = len(path) if after < 0 else after
        if urllib.parse.unquote(path[:end]) == root:
            return path[end:]
    return ""


def root_of(scope: Scope) -> str:
    """What addresses begin with, percent-encoded."""
    root: str = scope.get("root_path", "")
    return urllib.parse.quote(root) if root else root


def rooted(scope: Scope) -> Scope:
    """The scope with a path that begins with its `root_path`, as ASGI has it. Behind a proxy that takes a
    prefix away it may stand in the root alone: servers and FastAPI(root_path=…) leave it at that."""
    root: str = scope.get("root_path", "")
    if not root or _is_below(scope["path"], root):
        return scope
    for taken in (scope.get("app_root_path", ""), root):
        if taken and _is_below(taken + scope["path"], root):
            whole = {**scope, "path": taken + scope["path"]}
            if raw := scope.get("raw_path"):
                whole["raw_path"] = urllib.parse.quote(taken).encode() + raw
            return whole
    return scope


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/")


def unquoted(text: str) -> str:
    if "%" not in text:
        return text
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Malformed("The address is not UTF-8.") from None


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return urllib.parse.parse_qsl(
            query.decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_ARGUMENTS,
        )
    except UnicodeDecodeError:
        raise Malformed("The query is not UTF-8.") from None
    except ValueError:
        raise InvalidInput(f"The query holds more than {_MOST_ARGUMENTS} arguments.") from None


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name; of one that is repeated, the last."""
    known: dict[bytes, bytes] | None = scope.get(HEADERS)
    return dict(scope["headers"]) if known is None else known


def has_body(scope: Scope) -> bool:
    """Whether a request comes with a body, as far as its headers say."""
    headers = headers_of(scope)
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _rest_of(first: bytes, receive: Receive, limit: int) -> bytes:
    chunks, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _check_media(headers: dict[bytes, bytes], rows: bool) -> None:
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    json = media == b"application/json" or (media.startswith(b"application/") and media.endswith(b"+json"))
    if not json and not rows:
        named = media.decode("latin-1")[:80] or "nothing"
        raise UnsupportedMedia(
            f"The body is declared as {named}.",
            remedy="Send JSON, as Content-Type: application/json.",
        )
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedEncoding("The body is compressed.", remedy="Send it as it is.")


def _length(declared: bytes) -> int:
    try:
        return int(declared)
    except ValueError:
        raise Malformed("The Content-Length is not a number.") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.", remedy="Send less at once.")
