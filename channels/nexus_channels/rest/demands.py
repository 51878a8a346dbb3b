"""What a request asks beside its arguments, in its headers.

Idempotency-Key: …         the same answer for the same key and the same body; reading ignores it
Prefer: …                  see prefer.py
If-Match: "…"              only if the record is in this state (RFC 9110, 13.1.1)
If-None-Match: "…"         of a record that is read: only if it is in another (13.1.2)

No Last-Modified is sent, so If-Unmodified-Since and If-Modified-Since are ignored, as that RFC has it; and
without ranges, If-Range is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from starlette.types import Scope

from nexus.demands import Demands
from nexus.errors import InvalidInput
from nexus.etag import Match, parse_match
from nexus.operation import Effect, Operation
from nexus_channels.asgi import headers_of
from nexus_channels.rest.prefer import ASYNC, preferences_of

_READING = ("GET", "HEAD")

_NOTHING: Mapping[bytes, list[str]] = {}
_ASKING = frozenset({b"idempotency-key", b"if-match", b"if-none-match", b"prefer"})

Asked: TypeAlias = Mapping[bytes, list[str]]
"""The lines of the headers that ask for something."""


def asked_of(scope: Scope) -> Asked:
    """In one pass over all headers. Raises InvalidInput for a condition that only reading can have."""
    if _ASKING.isdisjoint(headers_of(scope)):
        return _NOTHING
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _ASKING:
            found.setdefault(name, []).append(value.decode("latin-1").strip())
    if b"if-none-match" in found and scope["method"] not in _READING:
        raise InvalidInput(
            f"If-None-Match is for reading: {scope['method']} cannot have it.",
            remedy="If-Match says in which state the record must be; a POST never changes one that is there.",
        )
    return found


def known_of(asked: Asked) -> Match | None:
    """What the client has already. Raises InvalidInput."""
    lines = asked.get(b"if-none-match")
    return None if lines is None else parse_match(", ".join(lines), "If-None-Match")


def demands_of(scope: Scope, asked: Asked, operation: Operation, *, recording: bool) -> Demands | None:
    """Raises InvalidInput for more than one key. A preference that cannot be honoured, as runs of this
    operation are not recorded, is left aside, which its RFC allows."""
    if not asked:
        return None
    keys = asked.get(b"idempotency-key", [])
    if len(keys) > 1:
        raise InvalidInput("There is more than one Idempotency-Key.")
    key, tags = _unquoted(keys[0]) if keys else None, asked.get(b"if-match")
    if_match = None if tags is None else ", ".join(tags)
    if b"prefer" not in asked:
        return Demands(key=key, if_match=if_match)
    preferred = preferences_of(scope, asked[b"prefer"])
    background = preferred.background and operation.recorded and recording
    preferred.check(
        *(() if background else (ASYNC,)), *(("return",) if operation.effect is Effect.READ else ())
    )
    preferred.applied("tx")
    preferred.applied("max-affected")
    return Demands(
        key=key,
        if_match=if_match,
        background=background,
        dry_run=preferred.dry_run,
        max_affected=preferred.max_affected,
    )


def _unquoted(key: str) -> str:
    """The draft of the header has it in quotes, most clients send it without."""
    return key[1:-1] if len(key) > 2 and key[0] == key[-1] == '"' else key
