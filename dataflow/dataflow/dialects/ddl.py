"""How SQL is written where several databases write it alike."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

LOCKS = 256
"""Names share this many locks, so that one transaction cannot take endlessly many."""


def quoted(text: str) -> str:
    """A text as a literal, where a backslash is a character like others."""
    return "'" + text.replace("'", "''") + "'"


def insert_one(table: sa.Table, columns: Sequence[str], beside: Sequence[Any]) -> sa.Insert:
    """The insert of one row, which gives its id and `beside`."""
    values = {name: sa.bindparam(f"v_{name}", type_=table.c[name].type) for name in columns}
    return sa.insert(table).values(values).returning(table.c.id, *beside)


def lock_numbers(names: Sequence[str]) -> list[int]:
    """In an order in which no two can wait for each other."""
    return sorted({zlib.crc32(name.encode()) % LOCKS for name in names})
