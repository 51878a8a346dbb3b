"""The fields of a model: which annotations there are, what they hold, what they convert."""

from __future__ import annotations

import datetime
import math
import re
import types
import typing
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import msgspec

from nexus.arguments import pointer
from nexus.errors import InvalidArguments, Problem, RegistrationError

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
MISSING: Any = msgspec.NODEFAULT

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


class Kind(Enum):
    """What a column holds, whichever database it is in."""

    TEXT = "text"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    DATE = "date"
    JSON = "json"

    @property
    def numeric(self) -> bool:
        return self in (Kind.INTEGER, Kind.FLOAT)


_KINDS: dict[Any, Kind] = {
    str: Kind.TEXT,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    bool: Kind.BOOLEAN,
    datetime.datetime: Kind.DATETIME,
    datetime.date: Kind.DATE,
    dict: Kind.JSON,
    list: Kind.JSON,
}
_SUPPORTED = "str, int, float, bool, datetime, date, dict, list"


@dataclass(frozen=True, slots=True)
class Field:
    """`annotation` is without its None; `nullable` says that there was one. `automatic` fields are filled by
    the platform and never by a caller."""

    name: str
    kind: Kind
    annotation: Any
    nullable: bool = False
    default: Any = MISSING
    automatic: bool = False

    @property
    def required(self) -> bool:
        return self.default is MISSING and not self.automatic

    @property
    def stored_type(self) -> Any:
        """What reading the field gives."""
        return self.annotation | None if self.nullable else self.annotation

    @property
    def given_type(self) -> Any:
        """What writing the field takes: an integer that every database can hold."""
        bounded = self.annotation
        if self.kind is Kind.INTEGER:
            bounded = Annotated[self.annotation, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
        return bounded | None if self.nullable else bounded

    def check(self, owner: str, value: object) -> object:
        """The value as it is to be stored, for what the type alone does not say. Raises InvalidArguments."""
        if isinstance(value, str):
            if "\0" in value:
                raise self._refused(owner, "a text cannot contain the character NUL")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise self._refused(owner, "a number must be finite")
        elif isinstance(value, datetime.datetime):
            return in_utc(value)
        return value

    def _refused(self, owner: str, reason: str) -> InvalidArguments:
        detail = f"'{self.name}': {reason}"
        return InvalidArguments(owner, [Problem(InvalidArguments.TYPE, pointer(self.name), detail)])


def in_utc(value: datetime.datetime) -> datetime.datetime:
    """The same moment in UTC; a time without zone is taken to be in UTC."""
    if value.tzinfo is None:
        return value.replace(tzinfo=datetime.UTC)
    return value.astimezone(datetime.UTC)


def field_from(owner: str, name: str, annotation: Any, default: Any) -> Field:
    """Raises RegistrationError for a name or an annotation that no column can have."""
    if not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{owner}: '{name[:80]}' cannot be the name of a field.",
            remedy="Use at most 63 letters, digits and '_', beginning with a letter.",
        )
    inner, nullable = _without_none(annotation)
    kind = _KINDS.get(typing.get_origin(inner) or inner)
    if kind is None:
        shown = getattr(inner, "__name__", str(inner))
        raise RegistrationError(
            f"{owner}: the type '{shown}' of the field '{name}' is not available.",
            remedy=f"Available: {_SUPPORTED}, and Optional of these.",
        )
    if default is None or (nullable and default is MISSING):
        nullable, default = True, None
    made = Field(name=name, kind=kind, annotation=inner, nullable=nullable, default=default)
    if default is not MISSING and default is not None:
        try:
            msgspec.convert(default, made.given_type)
        except msgspec.ValidationError as failure:
            raise RegistrationError(f"{owner}: the default of '{name}': {failure}.") from failure
    return made


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
    nullable = len(parts) < len(typing.get_args(annotation))
    return (parts[0] if len(parts) == 1 else annotation), nullable
