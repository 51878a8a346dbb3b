"""What the operators of a filter are applied to, and what they mean there: fields, and places in JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any as Object
from typing import Protocol

import msgspec

from nexus.errors import InvalidFilter
from nexus.filters.tree import NOTHING, All, Any, Filter, Inside, Not, Test
from nexus.patterns.match import Pattern

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
MOST_STEPS = 16
LONGEST_STEP = 1000
MOST_VALUES = 1000
_DEEPEST_VALUE = 100


class Target(Protocol):
    """`shown` names it in errors. Where an operator makes no sense, InvalidFilter says so."""

    @property
    def shown(self) -> str: ...

    def null(self) -> Filter:
        """Absent, or null."""

    def equal(self, value: object) -> Filter: ...

    def one_of(self, values: list[object]) -> Filter: ...

    def ordered(self, op: str, value: object) -> Filter:
        """gt, gte, lt or lte."""

    def text(self, op: str, value: str) -> Filter:
        """startswith, endswith."""

    def pattern(self, op: str, pattern: Pattern) -> Filter: ...

    def contains(self, value: object) -> Filter: ...

    def size(self, size: int) -> Filter: ...

    def element(self, op: str, inner: Filter) -> Filter:
        """A list with an element that `inner` is true for."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field. `convert` makes a value one that can be compared with the field's."""

    shown: str
    convert: Callable[[str, object], Object]
    textual: bool

    def null(self) -> Filter:
        return Test(self.shown, "eq", None)

    def equal(self, value: object) -> Filter:
        return Test(self.shown, "eq", self.convert(self.shown, value))

    def one_of(self, values: list[object]) -> Filter:
        return Test(self.shown, "in", tuple([self.convert(self.shown, value) for value in values]))

    def ordered(self, op: str, value: object) -> Filter:
        return Test(self.shown, op, self.convert(self.shown, value))

    def text(self, op: str, value: str) -> Filter:
        self._check_textual(op)
        return Test(self.shown, op, self.convert(self.shown, value))

    def pattern(self, op: str, pattern: Pattern) -> Filter:
        self._check_textual(op)
        return Test(self.shown, "regex", pattern)

    def contains(self, value: object) -> Filter:
        if not isinstance(value, str):
            raise InvalidFilter(f"'{self.shown}': '$contains' takes a text on a text, not {shown(value)}.")
        self._check_textual("contains")
        return Test(self.shown, "substring", self.convert(self.shown, value))

    def size(self, size: int) -> Filter:
        raise self._no_list("size")

    def element(self, op: str, inner: Filter) -> Filter:
        raise self._no_list(op)

    def _check_textual(self, op: str) -> None:
        if not self.textual:
            raise InvalidFilter(f"'{self.shown}': '${op}' works on texts, and this field holds none.")

    def _no_list(self, op: str) -> InvalidFilter:
        return InvalidFilter(f"'{self.shown}': '${op}' works on lists, and this field holds none.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads in a JSON field; the field "" is the element that is being looked at."""

    field: str
    path: tuple[str, ...] = ()
    spread: bool = True

    @property
    def shown(self) -> str:
        return ".".join((self.field, *self.path))[:80] or "element"

    def null(self) -> Filter:
        return Not(Inside(self.field, self.path, False, "present"))

    def equal(self, value: object) -> Filter:
        return self._inside("eq", json_value(self.shown, value))

    def one_of(self, values: list[object]) -> Filter:
        if len(values) > MOST_VALUES:
            raise InvalidFilter(
                f"'{self.shown}': a list to compare JSON with has at most {MOST_VALUES} values."
            )
        wanted = [json_value(self.shown, value) for value in values if value is not None]
        test = self._inside("in", wanted)
        return test if len(wanted) == len(values) else Any((self.null(), test))

    def ordered(self, op: str, value: object) -> Filter:
        plain = json_value(self.shown, value)
        if isinstance(plain, bool):
            return _ordered_boolean(op, plain, self.equal)
        if not isinstance(plain, (int, float, str)):
            raise InvalidFilter(f"'{self.shown}': '${op}' takes a number or a text, not {shown(value)}.")
        return self._inside(op, plain)

    def text(self, op: str, value: str) -> Filter:
        return self._inside(op, json_value(self.shown, value))

    def pattern(self, op: str, pattern: Pattern) -> Filter:
        return Inside(self.field, self.path, self.spread, "regex", pattern=pattern)

    def contains(self, value: object) -> Filter:
        plain = json_value(self.shown, value)
        if isinstance(plain, dict):
            if not plain:
                raise InvalidFilter(f"'{self.shown}': '$contains' with an empty object means nothing.")
            return All(
                tuple(
                    Place(self.field, (*self.path, _step(self.shown, key)), False).contains(part)
                    if isinstance(part, dict) and part
                    else Place(self.field, (*self.path, _step(self.shown, key)), False).equal_or_null(part)
                    for key, part in plain.items()
                )
            )
        if isinstance(plain, list):
            if not plain:
                raise InvalidFilter(f"'{self.shown}': '$contains' with an empty list means nothing.")
            return All(tuple(self._has(part) for part in plain))
        if isinstance(plain, str):
            substring = Inside(self.field, self.path, False, "substring", plain)
            return Any((substring, self._has(plain)))
        return self._has(plain)

    def equal_or_null(self, value: object) -> Filter:
        return self.null() if value is None else self.equal(value)

    def size(self, size: int) -> Filter:
        return Inside(self.field, self.path, False, "size", size)

    def element(self, op: str, inner: Filter) -> Filter:
        return Inside(self.field, self.path, False, "element", inner=inner)

    def _has(self, value: object) -> Filter:
        return self.element("contains", ELEMENT.equal_or_null(value))

    def _inside(self, op: str, value: object) -> Filter:
        return Inside(self.field, self.path, self.spread, op, value)


ELEMENT = Place("", (), False)


def place(field: str, dotted: str) -> Place:
    """Raises InvalidFilter for a path that leads nowhere."""
    path = tuple(dotted.split(".")) if dotted else ()
    if len(path) > MOST_STEPS:
        raise InvalidFilter(f"'{field}.{dotted[:60]}…': a path has at most {MOST_STEPS} steps.")
    return Place(field, tuple(_step(f"{field}.{dotted[:60]}", step) for step in path))


def _step(where: str, step: str) -> str:
    if not step or len(step) > LONGEST_STEP or "\0" in step:
        raise InvalidFilter(f"'{where}': a step of a path has 1 to {LONGEST_STEP} characters, and no NUL.")
    return step


def _ordered_boolean(op: str, value: bool, equal: Callable[[object], Filter]) -> Filter:
    """false comes before true."""
    if op in ("gt", "lt"):
        return NOTHING if value is (op == "gt") else equal(not value)
    return equal(value) if value is (op == "gte") else Any((equal(False), equal(True)))


def json_value(where: str, value: object) -> Object:
    """A value as JSON holds it. Raises InvalidFilter for one that not every database can hold."""
    if type(value) is str and value.isascii() and "\0" not in value:
        return value
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        _check_json(plain, 0)
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as failure:
        raise InvalidFilter(f"'{where}' cannot be compared with {shown(value)}: {failure}.") from failure
    return plain


def _check_json(value: Object, depth: int) -> None:
    if depth > _DEEPEST_VALUE:
        raise ValueError(f"it is nested more than {_DEEPEST_VALUE} levels deep")
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_json(key, depth)
            _check_json(part, depth + 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check_json(part, depth + 1)
    elif isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text cannot contain the character NUL")
        value.encode()
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise ValueError("an integer has at most 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number must be finite")


def shown(value: object) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
