"""Filters as a predicate over records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any as Object

from nexus.filters.tree import All, Any, Filter, Inside, Not, Related, Test


def matches(tree: Filter, record: Mapping[str, Object]) -> bool:
    """Whether a record, of values as the data layer gives them, is one that the filter means."""
    match tree:
        case All(parts):
            return all(matches(part, record) for part in parts)
        case Any(parts):
            return any(matches(part, record) for part in parts)
        case Not(part):
            return not matches(part, record)
        case Test(field, op, value):
            have = record.get(field)
            return _TESTS[op](have.value if isinstance(have, Enum) else have, value)
        case Inside(field):
            return matches_inside(tree, record.get(field))
        case Related(relation, part):
            found = record.get(relation)
            others = found if isinstance(found, list) else [] if found is None else [found]
            return any(matches(part, other) for other in others)


def matches_inside(test: Inside, value: Object) -> bool:
    """Whether a JSON value passes."""
    check = _CHECKS[test.op]
    return any(found is not None and check(found, test) for found in _found(value, test.path, test.spread))


def _found(value: Object, path: tuple[str, ...], spread: bool) -> Iterator[Object]:
    values = [value]
    for step in path:
        values = [after for before in values for after in _stepped(before, step)]
    for found in values:
        yield found
        if spread and isinstance(found, list):
            yield from found


def _stepped(value: Object, step: str) -> Iterator[Object]:
    if isinstance(value, dict):
        if step in value:
            yield value[step]
    elif isinstance(value, list):
        if is_index(step) and int(step) < len(value):
            yield value[int(step)]
        for element in value:
            if isinstance(element, dict) and step in element:
                yield element[step]


def is_index(step: str) -> bool:
    """Whether a step of a path can mean the element of a list."""
    return step.isascii() and step.isdigit() and len(step) <= 6 and str(int(step)) == step


def same(one: Object, other: Object) -> bool:
    """Equal as JSON values: numbers by value, objects whatever the order of their keys."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    if _number(one) and _number(other):
        return _order(one, other) == 0
    return type(one) is type(other) and bool(one == other)


def _number(value: Object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _order(one: Object, other: Object) -> int | None:
    """Below, at or above 0 as `one` is less, equal or more; None where they cannot be compared. Numbers are
    what is written: an integer meets a fraction as decimal numbers, not as the nearest binary one."""
    if _number(one) and _number(other):
        if type(one) is not type(other):
            one, other = Decimal(repr(one)), Decimal(repr(other))
    elif not (isinstance(one, str) and isinstance(other, str)):
        return None
    return int(one > other) - int(one < other)


def _compared(good: Callable[[int], bool]) -> Callable[[Object, Inside], bool]:
    def check(found: Object, test: Inside) -> bool:
        order = _order(found, test.value)
        return order is not None and good(order)

    return check


def _any_element(found: Object, test: Inside) -> bool:
    inner = test.inner
    assert inner is not None
    return isinstance(found, list) and any(matches(inner, {"": element}) for element in found)


def _in_pattern(found: Object, test: Inside) -> bool:
    return isinstance(found, str) and test.pattern is not None and test.pattern.found_in(found)


_CHECKS: dict[str, Callable[[Object, Inside], bool]] = {
    "present": lambda found, test: True,
    "eq": lambda found, test: same(found, test.value),
    "in": lambda found, test: any(same(found, value) for value in test.value),
    "gt": _compared(lambda order: order > 0),
    "gte": _compared(lambda order: order >= 0),
    "lt": _compared(lambda order: order < 0),
    "lte": _compared(lambda order: order <= 0),
    "startswith": lambda found, test: isinstance(found, str) and found.startswith(test.value),
    "endswith": lambda found, test: isinstance(found, str) and found.endswith(test.value),
    "substring": lambda found, test: isinstance(found, str) and test.value in found,
    "regex": _in_pattern,
    "size": lambda found, test: isinstance(found, list) and len(found) == test.value,
    "element": _any_element,
}


def _present(compare: Callable[[Object, Object], Object]) -> Callable[[Object, Object], bool]:
    return lambda have, want: have is not None and bool(compare(have, want))


_TESTS: dict[str, Callable[[Object, Object], bool]] = {
    "eq": lambda have, want: bool(have == want),
    "in": lambda have, want: have in want,
    "gt": _present(lambda have, want: have > want),
    "gte": _present(lambda have, want: have >= want),
    "lt": _present(lambda have, want: have < want),
    "lte": _present(lambda have, want: have <= want),
    "startswith": _present(lambda have, want: have.startswith(want)),
    "endswith": _present(lambda have, want: have.endswith(want)),
    "substring": _present(lambda have, want: want in have),
    "regex": _present(lambda have, want: want.found_in(have)),
}
