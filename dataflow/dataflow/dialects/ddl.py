"""How SQL is written where several databases write it alike."""

from __future__ import annotations


def quoted(text: str) -> str:
    """A text as a literal, where a backslash is a character like others."""
    return "'" + text.replace("'", "''") + "'"
