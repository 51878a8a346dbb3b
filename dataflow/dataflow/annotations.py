"""From what a class says of a field, `name: annotation = default`, to the field."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import keyword
import re
import types
import typing
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

import msgspec

from dataflow.fields import INT_MAX, INT_MIN, MISSING, Field, Kind
from nexus.errors import InvalidArguments, RegistrationError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_KINDS: dict[Any, Kind] = {
    str: Kind.TEXT,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    bool: Kind.BOOLEAN,
    datetime.datetime: Kind.DATETIME,
    datetime.date: Kind.DATE,
    datetime.time: Kind.TIME,
    decimal.Decimal: Kind.DECIMAL,
    uuid.UUID: Kind.UUID,
    bytes: Kind.BYTES,
    dict: Kind.JSON,
    list: Kind.JSON,
}
_SUPPORTED = (
    "str, int, float, bool, datetime, date, time, Decimal, UUID, bytes, Enum, Literal, dict, list,"
    " and Optional of these"
)
_CHOICE_KINDS = {str: Kind.TEXT, int: Kind.INTEGER}

Choices = tuple[str, ...] | tuple[int, ...]


def field_from(owner: str, name: str, annotation: Any, given: Any = MISSING) -> Field:
    """Raises RegistrationError for a name, an annotation or a default that no column can have."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise RegistrationError(
            f"{owner}: '{name[:80]}' cannot be the name of a field.",
            remedy="Use at most 63 letters, digits and '_', beginning with a letter; no word of Python's.",
        )
    inner, nullable = _without_none(annotation)
    kind, choices = _kind(owner, name, inner)
    default, factory = _default(owner, name, given)
    if default is None or (nullable and default is MISSING and factory is None):
        nullable, default = True, None
    made = Field(
        name=name,
        kind=kind,
        annotation=inner,
        nullable=nullable,
        default=default,
        choices=choices,
        factory=factory,
    )
    if default is MISSING or default is None:
        return made
    try:
        converted = msgspec.convert(default, made.given_type)
        checked = made.check(owner, converted)
    except (msgspec.ValidationError, InvalidArguments) as failure:
        reason = failure.problems[0].detail if isinstance(failure, InvalidArguments) else str(failure)
        raise RegistrationError(f"{owner}: the default of '{name}': {reason}.") from failure
    return dataclasses.replace(made, default=checked)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The annotation without None and Annotated, and whether None was among its alternatives."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation)
    if origin is Literal and None in typing.get_args(annotation):
        rest = tuple(value for value in typing.get_args(annotation) if value is not None)
        return Literal[rest], True
    if origin not in (typing.Union, types.UnionType):
        return annotation, False
    parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
    nullable = len(parts) < len(typing.get_args(annotation))
    if len(parts) != 1:
        return annotation, nullable
    inner, also = _without_none(parts[0])
    return inner, nullable or also


def _kind(owner: str, name: str, annotation: Any) -> tuple[Kind, Choices]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        values = tuple(member.value for member in annotation)
        return _choices(owner, name, annotation, values)
    if typing.get_origin(annotation) is Literal:
        return _choices(owner, name, annotation, typing.get_args(annotation))
    kind = _KINDS.get(typing.get_origin(annotation) or annotation)
    if kind is None:
        raise _unavailable(owner, name, annotation)
    if kind is Kind.JSON:
        _check_inside(owner, name, annotation)
    return kind, ()


def _choices(owner: str, name: str, annotation: Any, values: tuple[Any, ...]) -> tuple[Kind, Choices]:
    kinds = {type(value) for value in values}
    kind = _CHOICE_KINDS.get(kinds.pop()) if len(kinds) == 1 else None
    if kind is None:
        raise RegistrationError(
            f"{owner}: the values of the field '{name}' must all be texts, or all integers.",
            remedy="Give each member of the Enum or Literal a value of one of these types.",
        )
    for value in values:
        fits = INT_MIN <= value <= INT_MAX if kind is Kind.INTEGER else "\0" not in value
        if not fits:
            raise RegistrationError(f"{owner}: the value {value!r} of the field '{name}' cannot be stored.")
    return kind, values


def _check_inside(owner: str, name: str, annotation: Any) -> None:
    """That what is inside a list or a dict is something that JSON can carry and that is validated."""
    try:
        msgspec.json.Decoder(annotation)
        msgspec.json.schema_components([annotation])
    except TypeError as failure:
        raise _unavailable(owner, name, annotation) from failure


def _default(owner: str, name: str, given: Any) -> tuple[Any, Callable[[], object] | None]:
    """A value, or what makes one for each record: any callable, or `field(default_factory=…)`."""
    if isinstance(given, (dataclasses.Field, type(msgspec.field()))):
        absent = (dataclasses.MISSING, MISSING)
        if given.default_factory not in absent:
            return MISSING, given.default_factory
        return (MISSING if given.default in absent else copy.deepcopy(given.default)), None
    if isinstance(given, (property, staticmethod, classmethod, types.MemberDescriptorType)):
        raise RegistrationError(f"{owner}: the default of '{name}' is no value.")
    if callable(given) and given is not MISSING:
        return MISSING, given
    return copy.deepcopy(given), None


def _unavailable(owner: str, name: str, annotation: Any) -> RegistrationError:
    shown = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return RegistrationError(
        f"[VAL-005] {owner}: the type '{shown}' of the field '{name}' is not available.",
        remedy=f"Available: {_SUPPORTED}.",
    )
