"""Filters: parsed once into a small tree, which runs here as a predicate over records and in `dataflow` as
SQL. The grammar and its meaning are MongoDB's, where a NULL is an absent field.

Filter
├── All(parts)            every part; All(()) matches everything
├── Any(parts)            at least one part
├── Not(part)
└── Test(field, op, value)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any as Object
from typing import TypeAlias

from nexus.errors import InvalidFilter, did_you_mean

Convert = Callable[[str, object], object]

_DEEPEST = 100
_COMPARISONS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})
_LISTS = frozenset({"$in", "$nin"})
_FLAGS = frozenset({"$exists", "$null"})
_LATER = frozenset(
    {
        "$regex",
        "$options",
        "$like",
        "$ilike",
        "$contains",
        "$overlap",
        "$any",
        "$elemMatch",
        "$size",
    }
)
_OPERATORS = _COMPARISONS | _LISTS | _FLAGS | {"$not", "$between", "$startswith", "$endswith"}
_LOGIC = frozenset({"$and", "$or", "$nor", "$not"})


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class Test:
    """`op` is one of eq, gt, gte, lt, lte, in, startswith, endswith. Of these only `eq` and `in` may hold
    None, which means: absent or null."""

    field: str
    op: str
    value: Object


Filter: TypeAlias = All | Any | Not | Test

EVERYTHING = All(())


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that a filter may name, and how a value given for one becomes a value to compare with.
    `convert` raises InvalidFilter for a value that the field cannot hold."""

    owner: str
    names: frozenset[str]
    convert: Convert


def parse(given: object, fields: Fields) -> Filter:
    """The tree of a filter document; raises InvalidFilter naming the field, the operator or the value."""
    if given is None:
        return EVERYTHING
    return _document(given, fields, 0)


def _document(given: object, fields: Fields, depth: int) -> Filter:
    if depth > _DEEPEST:
        raise InvalidFilter(f"The filter is nested more than {_DEEPEST} levels deep.")
    if not isinstance(given, Mapping):
        raise InvalidFilter(
            f"A filter must be an object, not {_shown(given)}.", remedy='As in {"name": "x"}.'
        )
    parts: list[Filter] = []
    for name, value in given.items():
        if name in _LOGIC:
            parts.append(_logic(name, value, fields, depth + 1))
        elif name.startswith("$"):
            raise _unknown_operator(name, _LOGIC if name not in _OPERATORS else frozenset())
        elif name not in fields.names:
            raise InvalidFilter(
                f"{fields.owner} has no field '{name[:80]}'.",
                remedy=did_you_mean(name, fields.names),
            )
        else:
            parts.append(_field(name, value, fields, depth + 1))
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _logic(name: str, value: object, fields: Fields, depth: int) -> Filter:
    if name == "$not":
        return Not(_document(value, fields, depth))
    if not isinstance(value, (list, tuple)) or not value:
        raise InvalidFilter(f"'{name}' takes a non-empty list of filters, not {_shown(value)}.")
    parts = tuple(_document(part, fields, depth) for part in value)
    if name == "$and":
        return All(parts)
    return Any(parts) if name == "$or" else Not(Any(parts))


def _field(name: str, value: object, fields: Fields, depth: int) -> Filter:
    if not _is_operators(value):
        return Test(name, "eq", fields.convert(name, value))
    assert isinstance(value, Mapping)
    parts = tuple(_operator(name, op, operand, fields, depth) for op, operand in value.items())
    return parts[0] if len(parts) == 1 else All(parts)


def _operator(name: str, op: str, operand: object, fields: Fields, depth: int) -> Filter:
    if depth > _DEEPEST:
        raise InvalidFilter(f"The filter is nested more than {_DEEPEST} levels deep.")
    if op in _COMPARISONS:
        value = fields.convert(name, operand)
        if value is None and op not in ("$eq", "$ne"):
            # MongoDB: null is only ever as large as null.
            return Test(name, "eq", None) if op in ("$gte", "$lte") else Not(EVERYTHING)
        return Not(Test(name, "eq", value)) if op == "$ne" else Test(name, op[1:], value)
    if op in _LISTS:
        values = tuple(fields.convert(name, item) for item in _list_of(name, op, operand))
        test = Test(name, "in", values)
        return Not(test) if op == "$nin" else test
    if op in _FLAGS:
        if not isinstance(operand, bool):
            raise InvalidFilter(f"'{name}': '{op}' takes true or false, not {_shown(operand)}.")
        absent = Test(name, "eq", None)
        return absent if operand is (op == "$null") else Not(absent)
    if op == "$not":
        if _is_operators(operand):
            return Not(_field(name, operand, fields, depth + 1))
        return Not(Test(name, "eq", fields.convert(name, operand)))
    if op == "$between":
        bounds = _list_of(name, op, operand)
        if len(bounds) != 2 or None in bounds:
            raise InvalidFilter(f"'{name}': '$between' takes two values, a lower and an upper one.")
        low, high = (fields.convert(name, bound) for bound in bounds)
        return All((Test(name, "gte", low), Test(name, "lte", high)))
    if op in ("$startswith", "$endswith"):
        if not isinstance(operand, str) or not isinstance(fields.convert(name, operand), str):
            raise InvalidFilter(f"'{name}': '{op}' takes a text, on a text field.")
        return Test(name, op[1:], operand)
    raise _unknown_operator(op, _OPERATORS, field=name)


def _is_operators(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(str(key).startswith("$") for key in value)


def _list_of(name: str, op: str, operand: object) -> list[object]:
    if not isinstance(operand, (list, tuple)):
        raise InvalidFilter(f"'{name}': '{op}' takes a list, not {_shown(operand)}.")
    return list(operand)


def _unknown_operator(op: str, known: frozenset[str], field: str = "") -> InvalidFilter:
    where = f"'{field}': " if field else ""
    if op in _LATER:
        return InvalidFilter(f"{where}'{op}' is not available yet.")
    if not known:
        return InvalidFilter(f"'{op}' belongs to a field.", remedy=f'As in {{"name": {{"{op}": …}}}}.')
    return InvalidFilter(f"{where}There is no operator '{op[:80]}'.", remedy=did_you_mean(op, known))


def _shown(value: object) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


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
            return _TESTS[op](record.get(field), value)


def _ordered(compare: Callable[[Object, Object], bool]) -> Callable[[Object, Object], bool]:
    return lambda have, want: have is not None and compare(have, want)


_TESTS: dict[str, Callable[[Object, Object], bool]] = {
    "eq": lambda have, want: bool(have == want),
    "in": lambda have, want: have in want,
    "gt": _ordered(lambda have, want: bool(have > want)),
    "gte": _ordered(lambda have, want: bool(have >= want)),
    "lt": _ordered(lambda have, want: bool(have < want)),
    "lte": _ordered(lambda have, want: bool(have <= want)),
    "startswith": lambda have, want: have is not None and have.startswith(want),
    "endswith": lambda have, want: have is not None and have.endswith(want),
}
