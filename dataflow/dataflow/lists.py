"""What the update operators on lists mean, as plain functions: for databases that run in our process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, true is not 1, the order of keys means nothing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def push(stored: Sequence[Any] | None, elements: Sequence[Any]) -> list[Any]:
    return [*(stored or ()), *elements]


def add(stored: Sequence[Any] | None, elements: Sequence[Any]) -> list[Any]:
    """Append what is not there yet, each element once."""
    found = list(stored or ())
    for element in elements:
        if not any(same(element, known) for known in found):
            found.append(element)
    return found


def pull(stored: Sequence[Any] | None, elements: Sequence[Any]) -> list[Any] | None:
    """Remove every element that equals one of `elements`."""
    if stored is None:
        return None
    return [known for known in stored if not any(same(known, element) for element in elements)]
