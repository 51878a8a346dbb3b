"""Entity tags: which state of a record somebody has seen (RFC 9110, 8.8.3)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from nexus.errors import InvalidInput, PreconditionFailed

Tag: TypeAlias = Callable[[Any, bytes], str | None]
"""From a result, and the JSON of it, to the tag of the record in it; None where there is none."""

_WEAK = "W/"
_ITEM = re.compile(r'[ \t,]*((?:W/)?"[^\x00-\x20"\x7f]*")[ \t]*(?=,|\Z)')
_BARE = re.compile(r"[A-Za-z0-9._-]+")
_SIZE = 10


@dataclass(frozen=True, slots=True)
class Match:
    """Which states are meant: those with one of these tags, or, where they are None, any."""

    tags: tuple[str, ...] | None

    def holds(self, tag: str | None) -> bool:
        """Whether a record with this tag is in such a state: a weak tag proves nothing."""
        if self.tags is None:
            return tag is not None
        return tag in self.tags and not tag.startswith(_WEAK)

    def check(self, what: str, tag: str | None) -> None:
        """Raises PreconditionFailed."""
        if not self.holds(tag):
            raise self.failure(what, tag)

    def failure(self, what: str, tag: str | None) -> PreconditionFailed:
        weak = self.tags is not None and all(each.startswith(_WEAK) for each in self.tags)
        return PreconditionFailed(
            f"{what} is not in the state that 'if_match' says."
            + (" A weak tag, W/…, says of no state that it is this one." if weak else ""),
            remedy="Read it again, and repeat the change with the tag that it has now.",
            etag=tag,
        )


def parse_match(given: str, name: str = "if_match") -> Match:
    """Tags with commas between them, or `*`; a single one may come without quotes. Raises InvalidInput."""
    text = given.strip(" \t")
    if text == "*":
        return Match(None)
    if _BARE.fullmatch(text):
        return Match((f'"{text}"',))
    tags: list[str] = []
    at = 0
    while item := _ITEM.match(text, at):
        tags.append(item[1])
        at = item.end()
    if not tags or text[at:].strip(" \t,"):
        raise InvalidInput(
            f"'{name}' cannot be read: {given[:80]!r}.",
            remedy='Give the tag as it came, in its quotes: "…", several with commas between them, or *.',
        )
    return Match(tuple(tags))


def is_known(match: Match, tag: str) -> bool:
    """Whether who has seen what the tags say has seen this: weak ones are as good (RFC 9110, 13.1.2)."""
    return match.tags is None or tag.removeprefix(_WEAK) in [each.removeprefix(_WEAK) for each in match.tags]


def strong(encoded: bytes) -> str:
    """The tag of a record by what it holds."""
    return f'"{hashlib.blake2b(encoded, digest_size=_SIZE).hexdigest()}"'


def weak(encoded: bytes) -> str:
    """The tag of what is more than a record: good for not sending it again, and for nothing else."""
    return _WEAK + strong(encoded)
