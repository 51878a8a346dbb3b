"""How values travel where several databases do it alike."""

from __future__ import annotations

import datetime
import typing
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import sqlalchemy as sa

from dataflow.fields import Field
from dataflow.numbers import exact
from nexus.errors import InvalidInput

_PLAIN = (str, int, float, bool, type(None), Any)


def json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def json_reader(field: Field) -> Callable[[Any], Any]:
    """From JSON text to what the field is declared to hold: dates in a list of dates. What another program
    stored in another shape is read as the JSON that it is."""
    if _is_plain(field.annotation):
        return msgspec.json.decode
    decode = msgspec.json.Decoder(field.annotation).decode

    def read(text: Any) -> Any:
        try:
            return decode(text)
        except msgspec.ValidationError:
            return msgspec.json.decode(text)

    return read


def _is_plain(annotation: Any) -> bool:
    """Whether JSON's own types are all there are inside."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict:
        return arguments[0] in (str, Any) and _is_plain(arguments[1])
    if typing.get_origin(annotation) is list:
        return _is_plain(arguments[0])
    if arguments and typing.get_origin(annotation) is not typing.Literal:
        return all(_is_plain(argument) for argument in arguments)
    is_enum = isinstance(annotation, type) and issubclass(annotation, Enum)
    return annotation in (*_PLAIN, dict, list) or (bool(arguments) and not is_enum)


def named(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows by the names of their columns."""
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"Two columns of the statement are named '{name}'.", remedy="Name one with AS."
            )
    return [dict(zip(names, row, strict=True)) for row in rows]


def decimal_from(value: object) -> Decimal:
    """In the form without trailing zeros, whatever the server adds."""
    return exact(value if isinstance(value, Decimal) else Decimal(str(value)))


def time_text(value: datetime.time) -> str:
    return value.isoformat(timespec="microseconds")  # of one width, so it sorts


def combined(op: str, column: sa.ColumnElement[Any], given: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """`$inc` or `$mul` on what is stored; what is absent counts as 0."""
    stored = sa.func.coalesce(column, 0)
    return stored + given if op == "inc" else stored * given
