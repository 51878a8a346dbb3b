"""What an update does to a record: plain values, and operators in either of their two shapes."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dataflow.fields import Field, Kind
from dataflow.model import Model
from nexus.arguments import pointer
from nexus.errors import InvalidArguments, Problem, did_you_mean
from nexus.warnings import warn_managed

_OPERATORS = {
    "$set": "set",
    "$inc": "inc",
    "$mul": "mul",
    "$multiply": "mul",
    "$min": "min",
    "$max": "max",
    "$unset": "set",
    "$push": "push",
    "$pull": "pull",
    "$addToSet": "add",
    "$merge": "merge",
}
_LATER = frozenset({"$rename", "$setOnInsert", "$currentDate", "$pop", "$pullAll", "$bit"})
_LISTS = frozenset({"push", "pull", "add"})


@dataclass(frozen=True, slots=True)
class Assignment:
    """What becomes of one field; NULL counts as absent.

    `op` is set; inc or mul (absent is 0); min or max (absent takes the value); push, add or pull, whose
    `value` is the list of the elements (absent is an empty list for the first two and stays absent for pull);
    or merge, of an object into the one that is stored (`dataflow.merging`).
    """

    field: str
    op: str
    value: Any


def parse_assignments(
    model: Model, given: Mapping[str, object], at: str = "", *, in_process: bool = False
) -> tuple[Assignment, ...]:
    """From `{"price": 3, "stock": {"$inc": 5}}` or `{"$inc": {"stock": 5}}`. Raises InvalidArguments naming
    each field or operator that is wrong; a field may be assigned once. Fields that the platform manages are
    dropped; a caller in process is warned of it."""
    made: dict[str, Assignment] = {}
    problems: list[Problem] = []
    dropped: set[str] = set()
    for name, op, value, where in _pairs(model, given, at):
        if name in model.managed and op in ("$set", "$merge"):
            dropped.add(name)
            continue
        try:
            if name in made:
                raise _problem(InvalidArguments.TYPE, where, f"'{name}' is assigned twice")
            made[name] = _assignment(model, name, op, value, where)
        except _Refused as refused:
            problems.append(refused.problem)
    if problems:
        raise InvalidArguments(f"{model.route}.update", problems)
    if dropped and in_process:
        warn_managed(f"{model.route}.update", dropped)
    return tuple(made.values())


def _pairs(model: Model, given: Mapping[str, object], at: str) -> Iterator[tuple[str, str, object, str]]:
    for key, value in given.items():
        where = at + pointer(key)
        if key.startswith("$"):
            inner = value if isinstance(value, Mapping) else {"": value}
            for name, operand in inner.items():
                yield name, key, operand, where + pointer(name)
        elif isinstance(value, Mapping) and len(value) == 1 and str(next(iter(value))).startswith("$"):
            ((op, operand),) = value.items()
            yield key, op, operand, where + pointer(op)
        else:
            yield key, "$set", value, where


def _assignment(model: Model, name: str, op: str, value: object, where: str) -> Assignment:
    if op not in _OPERATORS:
        detail = f"'{op}' is not available yet" if op in _LATER else f"there is no operator '{op[:80]}'"
        hint = "" if op in _LATER else f". {did_you_mean(op, _OPERATORS)}"
        raise _problem(InvalidArguments.UNKNOWN, where, detail + hint)
    field = model.fields.get(name)
    if field is None or field.automatic or name == "id":
        names = [field.name for field in model.writable() if field.name != "id"]
        detail = f"{model.route} has no field '{name[:80]}' to write. {did_you_mean(name, names)}"
        raise _problem(InvalidArguments.UNKNOWN, where, detail.rstrip())
    kind = _OPERATORS[op]
    if op == "$unset":
        if not field.nullable:
            raise _problem(InvalidArguments.TYPE, where, f"'$unset': '{name}' cannot be null")
        return Assignment(name, kind, None)
    if kind == "merge":
        if field.kind is Kind.JSON and isinstance(value, Mapping):
            return Assignment(name, kind, _checked(model, field, value, where))
        kind = "set"
    if kind in _LISTS:
        return Assignment(name, kind, _elements(model, field, op, value, where))
    if kind in ("inc", "mul") and (not field.counts or value is None):
        raise _problem(InvalidArguments.TYPE, where, f"'{op}' takes a number, on a number field")
    if kind in ("min", "max") and (field.kind is Kind.JSON or value is None):
        raise _problem(InvalidArguments.TYPE, where, f"'{op}' takes a value to compare with '{name}'")
    return Assignment(name, kind, _converted(model, field, value, where))


def _elements(model: Model, field: Field, op: str, value: object, where: str) -> object:
    """The elements that an operator on a list is about, of the type of the list."""
    if list not in (field.annotation, typing.get_origin(field.annotation)):
        raise _problem(InvalidArguments.TYPE, where, f"'{op}': '{field.name}' is not a list")
    if op == "$pull":
        if isinstance(value, Mapping) and any(str(key).startswith("$") for key in value):
            detail = "'$pull' with a condition is not available yet; it takes the element to remove"
            raise _problem(InvalidArguments.UNKNOWN, where, detail)
        return _converted(model, field, [value], where)
    if isinstance(value, Mapping) and "$each" in value:
        if len(value) > 1 or not isinstance(value["$each"], (list, tuple)):
            raise _problem(InvalidArguments.UNKNOWN, where, f"'{op}' takes '$each' with a list, and no more")
        return _converted(model, field, list(value["$each"]), where + pointer("$each"))
    return _converted(model, field, [value], where)


def _checked(model: Model, field: Field, value: object, where: str) -> object:
    try:
        return field.check(model.route, value)
    except InvalidArguments as failure:
        raise _problem(InvalidArguments.TYPE, where, failure.problems[0].detail) from None


def _converted(model: Model, field: Field, value: object, where: str) -> object:
    if field.kind is Kind.INTEGER and isinstance(value, float) and value.is_integer():
        value = int(value)  # to JSON Schema 3.0 is an integer
    try:
        converted = msgspec.convert(value, field.given_type)
    except msgspec.ValidationError as failure:
        message = str(failure).replace("`", "")
        detail = f"'{field.name}': {message[0].lower()}{message[1:]}"
        raise _problem(InvalidArguments.TYPE, where, detail) from None
    return _checked(model, field, converted, where)


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def _problem(code: str, where: str, detail: str) -> _Refused:
    return _Refused(Problem(code, where, detail))
