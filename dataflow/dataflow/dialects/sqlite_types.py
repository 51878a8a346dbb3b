"""What SQLite keeps each kind of value as.

It has no decimal type, and its numbers would be floats. A decimal is a text of fixed width here, which sorts
as the number does: 26 digits, the point, 12 digits, with a `-` and each digit's complement to nine for a
negative one. Sums and products are reckoned exactly, by functions of our own connections.
"""

from __future__ import annotations

import datetime
import math
import re
import sqlite3
import uuid
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import sqlalchemy as sa

from dataflow.dialects.base import Codec
from dataflow.dialects.values import json_reader, json_text, time_text
from dataflow.fields import Field, Kind
from dataflow.numbers import SCALE, WHOLE, exact, multiplied, rounded

PLUS, TIMES, FINITE = "nexus_decimal_plus", "nexus_decimal_times", "nexus_finite"
SUM, AVERAGE = "nexus_decimal_sum", "nexus_decimal_avg"

_WIDE = Context(prec=200, rounding=ROUND_HALF_UP)
_NINES = str.maketrans("0123456789", "9876543210")
_FORM = re.compile(rf"(-?)(\d{{{WHOLE}}}\.\d{{{SCALE}}})")
_COLUMNS: dict[Kind, Any] = {
    Kind.TEXT: sa.TEXT,
    Kind.INTEGER: sa.INTEGER,
    Kind.FLOAT: sa.REAL,
    Kind.BOOLEAN: sa.INTEGER,
    Kind.DATETIME: sa.TEXT,
    Kind.DATE: sa.TEXT,
    Kind.TIME: sa.TEXT,
    Kind.DECIMAL: sa.TEXT,
    Kind.UUID: sa.TEXT,
    Kind.BYTES: sa.BLOB,
    Kind.JSON: sa.TEXT,
}


def column_type(field: Field) -> sa.types.TypeEngine[Any]:
    column: sa.types.TypeEngine[Any] = _COLUMNS[field.kind]()
    return column


def codec(field: Field) -> Codec:
    if field.kind is Kind.JSON:
        read = json_reader(field)
        return Codec(json_text, read, read)
    return _CODECS[field.kind]


def decimal_text(value: Decimal) -> str:
    scaled = int(value.scaleb(SCALE, context=_WIDE))
    digits = f"{abs(scaled):0{WHOLE + SCALE}d}"
    text = f"{digits[:WHOLE]}.{digits[WHOLE:]}"
    return "-" + text.translate(_NINES) if scaled < 0 else text


def decimal_from_text(text: str) -> Decimal:
    """Also a plain number, such as another program may have written."""
    found = _FORM.fullmatch(text)
    if found is None:
        return exact(Decimal(text))
    if found[1]:
        return exact(Decimal(found[2].translate(_NINES)).copy_negate())
    return exact(Decimal(found[2]))


def add_functions(connection: sqlite3.Connection) -> None:
    """Exact arithmetic, and bounded, on this connection: nothing that lasts refers to it."""
    connection.create_function(FINITE, 1, _finite, deterministic=True)
    connection.create_function(PLUS, 2, _plus, deterministic=True)
    connection.create_function(TIMES, 2, _times, deterministic=True)
    connection.create_aggregate(SUM, 1, _Sum)  # type: ignore[arg-type]
    connection.create_aggregate(AVERAGE, 1, _Average)  # type: ignore[arg-type]


def _datetime_text(value: datetime.datetime) -> str:
    return value.isoformat(timespec="microseconds")[:-6] + "Z"  # always UTC: of one width, so it sorts


def _plus(one: str | None, other: str) -> str:
    return decimal_text(rounded(_WIDE.add(decimal_from_text(one or "0"), decimal_from_text(other))))


def _times(one: str | None, other: str) -> str:
    return decimal_text(multiplied(decimal_from_text(one or "0"), decimal_from_text(other)))


def _finite(value: float | None) -> float | None:
    if value is not None and math.isinf(value):
        raise ValueError("a number became too large")  # an OverflowError would count as a text too long
    return value


class _Sum:
    def __init__(self) -> None:
        self.total = Decimal(0)
        self.count = 0

    def step(self, text: str | None) -> None:
        if text is not None:
            self.total = _WIDE.add(self.total, decimal_from_text(text))
            self.count += 1

    def finalize(self) -> str | None:
        return decimal_text(rounded(self.total)) if self.count else None


class _Average(_Sum):
    def finalize(self) -> str | None:
        if not self.count:
            return None
        return decimal_text(rounded(_WIDE.divide(self.total, Decimal(self.count))))


_CODECS = {
    Kind.TEXT: Codec(),
    Kind.INTEGER: Codec(),
    Kind.FLOAT: Codec(decode=float, from_log=float),  # RETURNING gives 3 for 3.0, as it is kept on disk
    Kind.BOOLEAN: Codec(encode=int, decode=bool, from_log=bool),
    Kind.DATETIME: Codec(_datetime_text, datetime.datetime.fromisoformat, datetime.datetime.fromisoformat),
    Kind.DATE: Codec(datetime.date.isoformat, datetime.date.fromisoformat, datetime.date.fromisoformat),
    Kind.TIME: Codec(time_text, datetime.time.fromisoformat, datetime.time.fromisoformat),
    Kind.DECIMAL: Codec(decimal_text, decimal_from_text, decimal_from_text),
    Kind.UUID: Codec(str, uuid.UUID, uuid.UUID),
    Kind.BYTES: Codec(from_log=bytes.fromhex),
}
