"""What can be said of an operation's arguments beyond their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Schemas = Mapping[str, Any]


def _nothing() -> Schemas:
    return {}


@dataclass(frozen=True, slots=True)
class Details:
    """For channels that describe an operation, or read its arguments from something else than JSON.

    `fields` are those of the records that it is about, with the types of their values: what a filter may
    name. `instead_of_id` are the arguments that say which record is meant where its id does not. `apart` are
    groups of arguments of which one is given at a time. `schemas` gives JSON Schemas of arguments by name,
    more exact than their types, and in `$defs` what they refer to; it is called when somebody asks for a
    description. False there leaves an argument out of it: another says the same, or no value can be right.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    instead_of_id: frozenset[str] = frozenset()
    apart: tuple[frozenset[str], ...] = ()
    schemas: Callable[[], Schemas] = _nothing


NO_DETAILS = Details()
