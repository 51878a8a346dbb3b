"""What the values of a field can be compared with."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec

from dataflow.fields import INT_MAX, INT_MIN, Field, Kind
from nexus.errors import InvalidArguments, InvalidFilter
from nexus.filters import Across, Fields

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def filter_fields(
    owner: str, fields: Mapping[str, Field], relations: Callable[[], Mapping[str, Across]] = dict
) -> Fields:
    """What a filter over these fields may say. `owner` is how errors call them."""
    return Fields(
        owner=owner,
        names=frozenset(fields),
        convert=lambda name, value: comparable(owner, fields[name], value),
        texts=frozenset(name for name, field in fields.items() if field.annotation is str),
        json=frozenset(name for name, field in fields.items() if field.kind is Kind.JSON),
        relations=relations,
    )


def comparable(owner: str, field: Field, value: object) -> object:
    """A value from a filter, as what the field's values can be compared with. Raises InvalidFilter."""
    if value is None:
        return None
    kind = field.kind
    if field.annotation is str and type(value) is str and value.isascii() and "\0" not in value:
        return value
    if field.annotation is int and type(value) is int and INT_MIN <= value <= INT_MAX:
        return value
    if kind is Kind.DATETIME:
        value = _moment(value)
    wanted: Any = int | float if field.counts and kind is not Kind.DECIMAL else field.annotation
    try:
        converted = msgspec.convert(value, wanted)
        if kind is Kind.INTEGER and isinstance(converted, int):
            msgspec.convert(converted, field.given_type)
        if isinstance(converted, str):
            converted.encode()
        converted = field.check(owner, converted)
    except (msgspec.ValidationError, InvalidArguments, UnicodeEncodeError) as failure:
        shown = repr(value)[:60]
        raise InvalidFilter(f"{owner}: '{field.name}' cannot be compared with {shown}.") from failure
    return converted.value if isinstance(converted, Enum) else converted


def _moment(value: object) -> object:
    """A day is its first moment."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        return f"{value}T00:00:00Z"
    if type(value) is datetime.date:
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    return value
