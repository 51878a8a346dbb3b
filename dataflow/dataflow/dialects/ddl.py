"""How SQL is written where several databases write it alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

LOCKS = 256
"""Names share this many locks, so that one transaction cannot take endlessly many."""


def quoted(text: str) -> str:
    """A text as a literal, where a backslash is a character like others."""
    return "'" + text.replace("'", "''") + "'"


def upserted(table: str, changed: Sequence[str], counters: Sequence[str]) -> str:
    """What `ON CONFLICT (…)` is followed by, all names being quoted."""
    if not changed:
        return "DO NOTHING"
    values = [f"{name} = {table}.{name} + 1" for name in counters]
    values += [f"{name} = excluded.{name}" for name in changed]
    return f"DO UPDATE SET {', '.join(values)}"


def lock_numbers(names: Iterable[str]) -> list[int]:
    """In an order in which no two can wait for each other."""
    found: set[int] = set()
    for name in names:
        found.add(zlib.crc32(name.encode()) % LOCKS)
        if len(found) == LOCKS:
            break
    return sorted(found)
