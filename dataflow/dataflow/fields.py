"""The fields of a model: what they hold, what they convert."""

from __future__ import annotations

import copy
import datetime
import decimal
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import msgspec

from dataflow.numbers import exact
from nexus.arguments import pointer
from nexus.errors import InvalidArguments, NexusError, Problem

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
JSON_LEVELS = 30  # the change log holds them one level deeper, and one of the databases reads no more than 31
MISSING: Any = msgspec.NODEFAULT

_BOUNDED = Annotated[int, msgspec.Meta(ge=INT_MIN, le=INT_MAX)]
_IN_UTC = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
_MOMENT = Annotated[datetime.datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]
_WITHOUT_ZONE = Annotated[datetime.time, msgspec.Meta(tz=False)]


class Kind(Enum):
    """What a column holds, whichever database it is in."""

    TEXT = "text"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    DATE = "date"
    TIME = "time"
    DECIMAL = "decimal"
    UUID = "uuid"
    BYTES = "bytes"
    JSON = "json"

    # There is one of each: the hash of an object is a fifth of the cost of that of an Enum's member.
    __hash__ = object.__hash__

    @property
    def numeric(self) -> bool:
        return self in (Kind.INTEGER, Kind.FLOAT, Kind.DECIMAL)


NO_KEYS = (Kind.JSON, Kind.FLOAT, Kind.BYTES)
"""By what these hold no record can be known."""


@dataclass(frozen=True, slots=True)
class Field:
    """`annotation` is without its None; `nullable` says that there was one. `automatic` fields are filled by
    the platform and never by a caller. `choices` are the values of an Enum or a Literal: those, and not the
    members, are what is stored and what comes back, the same in Python as on every channel. A `factory` makes
    the default of each record; `length` is the most characters of a text. `elements` says that a list is kept
    as an array of the database's own, and of what."""

    name: str
    kind: Kind
    annotation: Any
    nullable: bool = False
    default: Any = MISSING
    automatic: bool = False
    choices: tuple[str, ...] | tuple[int, ...] = ()
    factory: Callable[[], object] | None = None
    length: int | None = None
    elements: Kind | None = None

    @property
    def required(self) -> bool:
        return self.default is MISSING and self.factory is None and not self.automatic

    @property
    def counts(self) -> bool:
        """Whether there is arithmetic on it."""
        return self.kind.numeric and not self.choices

    @property
    def stored_type(self) -> Any:
        """What reading the field gives."""
        known = _IN_UTC if self.kind is Kind.DATETIME else self.annotation
        return known | None if self.nullable else known

    @property
    def given_type(self) -> Any:
        """What writing the field takes: an integer that every database can hold, a time without zone."""
        bounded = self.annotation
        if self.kind is Kind.INTEGER and not self.choices:
            bounded = _BOUNDED
        elif self.length is not None and not self.choices:
            bounded = Annotated[str, msgspec.Meta(max_length=self.length)]
        elif self.kind is Kind.DATETIME:
            bounded = _MOMENT
        elif self.kind is Kind.TIME:
            bounded = _WITHOUT_ZONE
        return bounded | None if self.nullable else bounded

    @property
    def given_default(self) -> Any:
        """The default as a msgspec Struct takes it: what is made for each record is made afresh."""
        if self.factory is not None:
            return msgspec.field(default_factory=self.made_default)
        if isinstance(self.default, (dict, list)):
            if not self.default:
                return msgspec.field(default_factory=type(self.default))
            return msgspec.field(default_factory=functools.partial(copy.deepcopy, self.default))
        return self.default

    def made_default(self) -> Any:
        """The default of one record, `MISSING` where there is none. Raises NexusError for a factory that
        fails or that gives what the field cannot hold."""
        if self.factory is None:
            return copy.deepcopy(self.default)
        try:
            return msgspec.convert(self.factory(), self.given_type)
        except Exception as failure:  # the factory is a program of its own
            reason = str(failure) if isinstance(failure, msgspec.ValidationError) else type(failure).__name__
            raise NexusError(f"The default of '{self.name}' cannot be made: {reason}.") from failure

    def check(self, owner: str, value: object) -> Any:
        """The value as it is to be stored, for what the type alone does not say. Raises InvalidArguments."""
        try:
            return self._stored(value)
        except ValueError as failure:
            raise self._refused(owner, str(failure)) from None

    def check_column(self, values: list[Any]) -> list[Any]:
        """The values of many records as they are to be stored; for most kinds it is enough to look at all of
        them together. Raises ValueError where `check` would refuse one."""
        together = _TOGETHER.get(self.kind)
        if together is not None and not self.choices and together(values):
            return values
        return [self._stored(value) for value in values]

    def _stored(self, value: object) -> Any:
        if value is None:
            return None
        if isinstance(value, Enum):
            value = value.value
        rule = _RULES.get(self.kind)
        return value if rule is None else rule(value)

    def _refused(self, owner: str, reason: str) -> InvalidArguments:
        detail = f"'{self.name}': {reason}"
        return InvalidArguments(owner, [Problem(InvalidArguments.TYPE, pointer(self.name), detail)])


def in_utc(value: datetime.datetime) -> datetime.datetime:
    """The same moment in UTC; a time without zone is taken to be in UTC. Raises ValueError for a moment
    that in UTC is before the year 1 or after 9999."""
    if value.tzinfo is None:
        return value.replace(tzinfo=datetime.UTC)
    try:
        return value.astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("in UTC, a datetime must be between the years 1 and 9999") from None


def _text(value: Any) -> Any:
    if "\0" in value:
        raise ValueError("a text cannot contain the character NUL")
    _encodable(value)
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number must be finite")
    return value


def _time(value: Any) -> Any:
    if value.tzinfo is not None:
        raise ValueError("a time has no zone")
    return value


def _decimal(value: Any) -> Any:
    return exact(value if isinstance(value, decimal.Decimal) else decimal.Decimal(str(value)))


def _json(value: Any) -> Any:
    """What every database keeps as it is: no NUL, no NaN, no integer beyond 64 bits, no more levels than they
    all read. A JSON null has no difference from an absent value at the top and is stored as such."""
    _check_json(value, 0)
    return value


def _check_json(value: object, depth: int) -> None:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, float):
        _finite(value)
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise ValueError("an integer must fit into 64 bits")
    elif isinstance(value, Mapping):
        _check_depth(depth)
        for key, inner in value.items():
            _check_json(key, depth)
            _check_json(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        _check_depth(depth)
        for inner in value:
            _check_json(inner, depth + 1)


def _check_depth(depth: int) -> None:
    if depth >= JSON_LEVELS:
        raise ValueError(f"lists and objects are nested more than {JSON_LEVELS} levels deep")


def _encodable(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("a text contains characters that are not valid Unicode") from None


_RULES: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _finite,
    Kind.FLOAT: _finite,
    Kind.DATETIME: in_utc,
    Kind.TIME: _time,
    Kind.DECIMAL: _decimal,
    Kind.JSON: _json,
}


def _are_texts(values: list[Any]) -> bool:
    joined = "".join(filter(None, values))
    if joined.isascii():
        return "\0" not in joined
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in joined


def _are_finite(values: list[Any]) -> bool:
    return math.isfinite(sum(filter(None, values)))  # which one that is not makes so, too


def _are_right(values: list[Any]) -> bool:
    return True  # the type says it all


_TOGETHER: dict[Kind, Callable[[list[Any]], bool]] = {
    Kind.TEXT: _are_texts,
    Kind.INTEGER: _are_right,
    Kind.FLOAT: _are_finite,
    Kind.BOOLEAN: _are_right,
    Kind.DATE: _are_right,
    Kind.UUID: _are_right,
    Kind.BYTES: _are_right,
}
"""Whether no value of a column, whose type is right, is refused or changed by its rule. False where it has
to be looked at one by one: a sum may overflow."""
