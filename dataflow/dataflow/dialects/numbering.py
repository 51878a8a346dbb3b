"""Ids that the database counts by itself, and their end."""

from __future__ import annotations

from nexus.errors import Conflict


def used_up() -> Conflict:
    """There is a record with the largest id, so that the database cannot count on."""
    return Conflict(
        "No id is left for another record: the largest is taken.",
        remedy="Give the record an id, or remove the one with the largest.",
    )
