"""Cursor tokens: a position in a change log that a client can keep, and cannot make up.

It also says when the change at its position was made: if another change has that position, the database was
restored to an earlier state and went on from there, and what the client knows is not what led to it.

The key of the signature is the log's epoch, which is random and never leaves the database: so tokens need no
configuration, survive restarts and are alike in every process.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac

import msgspec

from nexus.errors import CursorExpired, InvalidCursor
from nexus.ports import LogHead

_MAC = 12
_LONGEST = 512


@functools.lru_cache(maxsize=1024)  # many follow the same query, and get the same changes
def issue(epoch: bytes, pos: int, query: str, mark: str = "") -> str:
    """A token for `pos`, good for the same `query` only; `mark` is the moment of the change there."""
    payload = msgspec.json.encode([_public(epoch), pos, query, mark])
    return base64.urlsafe_b64encode(_mac(epoch, payload) + payload).decode().rstrip("=")


def redeem(token: str, head: LogHead, query: str) -> tuple[int, str]:
    """The position in `token`, and its mark.

    Raises InvalidCursor for what is no token at all, CursorExpired for one that cannot be resumed from."""
    signature, payload = _open(token)
    try:
        epoch, pos, asked, mark = msgspec.json.decode(payload, type=tuple[str, int, str, str])
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        raise _invalid() from failure
    if epoch != _public(head.epoch):
        raise _expired("it belongs to another database or to one that was restored")
    if not hmac.compare_digest(signature, _mac(head.epoch, payload)):
        raise _invalid()
    if asked != query:
        raise _expired("it was given for another topic or filter")
    if pos < head.floor:
        raise _expired("the changes after it are no longer kept")
    if pos > head.pos:
        raise restored()
    return pos, mark


def restored() -> CursorExpired:
    """For a cursor whose past is not the database's."""
    return _expired("the database was restored to an earlier state")


def digest(*parts: object) -> str:
    """A short name for a query, equal for equal queries."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def _open(token: str) -> tuple[bytes, bytes]:
    if len(token) > _LONGEST:
        raise _invalid()
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError) as failure:
        raise _invalid() from failure
    return raw[:_MAC], raw[_MAC:]


@functools.lru_cache(maxsize=64)
def _public(epoch: bytes) -> str:
    return hashlib.blake2b(epoch, digest_size=6).hexdigest()


def _mac(epoch: bytes, payload: bytes) -> bytes:
    return hmac.digest(epoch, payload, "sha256")[:_MAC]


def _invalid() -> InvalidCursor:
    return InvalidCursor("This cursor was not written by this server.", remedy="Subscribe without 'since'.")


def _expired(reason: str) -> CursorExpired:
    return CursorExpired(
        f"This cursor cannot be resumed: {reason}.", remedy="Subscribe again with a snapshot."
    )
