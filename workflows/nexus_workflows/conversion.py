"""Values of another type than the one wanted, converted where nothing is lost."""

from __future__ import annotations

import datetime
import decimal
import functools
import uuid
from collections.abc import Callable
from typing import Any

from msgspec import inspect

from nexus.arguments import kinds_of

_NO = object()

_TAKES: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.StrType: (str,),
    inspect.IntType: (int,),
    inspect.FloatType: (float, int),
    inspect.BoolType: (bool,),
    inspect.DecimalType: (decimal.Decimal, int),
    inspect.DateTimeType: (datetime.datetime, str),
    inspect.DateType: (datetime.date, str),
    inspect.TimeType: (datetime.time, str),
    inspect.UUIDType: (uuid.UUID, str),
    inspect.NoneType: (type(None),),
}
_NUMBERS = (int, float, decimal.Decimal)


@functools.lru_cache(maxsize=4096)
def converter(wanted: Any) -> Callable[[Any], Any] | None:
    """What makes a value be of the type `wanted`, and gives back as it is what cannot be converted without
    loss; None where every value may be meant."""
    kinds = [type(kind) for kind in kinds_of(wanted)]
    if any(kind not in _TAKES for kind in kinds):
        return None
    taken = frozenset(python for kind in kinds for python in _TAKES[kind])
    ways = [_WAYS[kind] for kind in _WAYS if kind in kinds]

    def convert(value: Any) -> Any:
        if type(value) in taken or value is None:
            return value
        for way in ways:
            made = way(value)
            if made is not _NO:
                return made
        return value

    return convert


def converts(given: Any, wanted: Any) -> bool:
    """Whether some value of the type `given` may stand where `wanted` is; True where that is not known."""
    wanted_kinds = {type(kind) for kind in kinds_of(wanted)}
    given_kinds = {type(kind) for kind in kinds_of(given)} - {inspect.NoneType}
    if not given_kinds or not (wanted_kinds | given_kinds) <= _TAKES.keys() | _WHOLES:
        return True
    return any(_fits(one, other) for one in given_kinds for other in wanted_kinds)


def _fits(given: type[inspect.Type], wanted: type[inspect.Type]) -> bool:
    if given is wanted or {given, wanted} <= _OBJECTS:
        return True
    if given in _WHOLES or wanted in _WHOLES:
        return False
    if wanted is inspect.StrType:
        return given is not inspect.BoolType
    if given is inspect.StrType:
        return wanted not in (inspect.BoolType, inspect.NoneType)
    numbers = (inspect.IntType, inspect.FloatType, inspect.DecimalType)
    return given in numbers and wanted in numbers


_OBJECTS = frozenset({inspect.DictType, inspect.StructType})
_WHOLES = _OBJECTS | {inspect.ListType}


def _integer(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, decimal.Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    if (
        isinstance(value, str)
        and value.lstrip("-").isdecimal()
        and len(value) < 20
        and str(int(value)) == value
    ):
        return int(value)
    return _NO


def _float(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return _NO
        made = float(value)
        return made if decimal.Decimal(repr(made)) == value else _NO
    return _number(value, float)


def _decimal(value: Any) -> Any:
    return decimal.Decimal(repr(value)) if isinstance(value, float) else _number(value, decimal.Decimal)


def _number(value: Any, kind: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        try:
            return kind(value)
        except (ValueError, decimal.InvalidOperation):
            return _NO
    return _NO


def _text(value: Any) -> Any:
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, uuid.UUID) or (isinstance(value, _NUMBERS) and not isinstance(value, bool)):
        return str(value)
    return _NO


def _date(value: Any) -> Any:
    whole = isinstance(value, datetime.datetime) and value.time() == datetime.time()
    return value.date() if whole else _NO


_WAYS: dict[type[inspect.Type], Callable[[Any], Any]] = {
    inspect.IntType: _integer,
    inspect.FloatType: _float,
    inspect.DecimalType: _decimal,
    inspect.DateType: _date,
    inspect.StrType: _text,
}
