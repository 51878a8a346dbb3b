"""The files beside this one, as responses."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.types import Scope

from nexus_channels.asgi import Header, Reply

_TYPES = {
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
}
PAGES = {"/docs": "docs.html", "/docs/docs.js": "docs.js", "/docs/docs.css": "docs.css"}

# Nothing from elsewhere, nothing inline, in no frame: a page shows what others have stored.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),  # kept, and asked for again with its tag
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the package. Its tag changes with what it holds."""

    content: bytes
    media: bytes
    tag: bytes

    async def reply(self, scope: Scope) -> Reply:
        headers: list[Header] = [(b"etag", self.tag), *_HEADERS]
        if self.tag in _tags(scope):
            return 304, b"", headers
        return 200, self.content, [(b"content-type", self.media), *headers]


@functools.cache
def pages() -> dict[str, File]:
    """By address."""
    return {address: _read(name) for address, name in PAGES.items()}


def _read(name: str) -> File:
    content = files(__package__).joinpath(name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()
    return File(content, _TYPES[name.rsplit(".", 1)[-1]], tag)


def _tags(scope: Scope) -> set[bytes]:
    """Those that the client has (If-None-Match)."""
    return {
        tag.strip().removeprefix(b"W/")
        for name, value in scope["headers"]
        if name == b"if-none-match"
        for tag in value.split(b",")
    }
