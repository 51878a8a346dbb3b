"""In which order records come, and how a page goes on where the one before it ended.

A page's cursor holds the values that its last record is sorted by. The next page is a filter, "after these",
so that it costs the same however far one has read, and records that come or go meanwhile neither repeat nor
hide others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from dataflow.comparison import comparable
from dataflow.fields import Field, Kind
from nexus.cursor import digest
from nexus.errors import InvalidCursor, InvalidFilter, did_you_mean
from nexus.filters import NOTHING, All, Filter, Not, Test
from nexus.filters import Any as AnyOf

Order: TypeAlias = tuple[tuple[str, bool], ...]

BY_ID: Order = (("id", False),)

_LONGEST = 10_000
_MOST_FIELDS = 32
_DIRECTIONS: dict[object, bool] = {1: False, -1: True, "asc": False, "desc": True}


def parse_order(
    owner: str, fields: Mapping[str, Field], order_by: object = None, sort: object = None
) -> Order:
    """(field, descending) for `["-price", "name"]` or `"-price,name"`; `sort` takes these as well, and
    `[{"price": -1}]`. It ends with the id, so that no two records stand at the same place. Raises
    InvalidFilter."""
    order_by, sort = _plain_value(order_by), _plain_value(sort)
    if order_by and sort:
        raise InvalidFilter("'order_by' and 'sort' say the same in two ways.", remedy="Leave one out.")
    pairs = _from_sort(sort) if sort else _from_names(order_by)
    if len(pairs) > _MOST_FIELDS:
        raise InvalidFilter(f"{owner} can be sorted by at most {_MOST_FIELDS} fields.")
    order: dict[str, bool] = {}
    for name, descending in pairs:
        if name not in fields:
            raise InvalidFilter(
                f"{owner} has no field '{name[:80]}' to sort by.", remedy=did_you_mean(name[:80], fields)
            )
        if fields[name].kind is Kind.JSON:
            raise InvalidFilter(f"{owner} cannot be sorted by the JSON field '{name}'.")
        if name in order:
            raise InvalidFilter(f"{owner} cannot be sorted by '{name}' twice.")
        order[name] = descending
    order.setdefault("id", False)
    return tuple(order.items())


def _from_names(given: object) -> list[tuple[str, bool]]:
    names = given.split(",") if isinstance(given, str) else given or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InvalidFilter("'order_by' takes names of fields.", remedy='As in ["-price", "name"].')
    return [(name.strip().removeprefix("-"), name.strip().startswith("-")) for name in names]


def _plain_value(given: object) -> object:
    """What a text that is JSON means: as typed in a shell or an address, no other form could be given."""
    if not isinstance(given, str) or not given.lstrip().startswith(("[", "{")):
        return given
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidFilter(f"An order is neither names nor JSON: '{given[:80]}'.") from None


def _from_sort(given: object) -> list[tuple[str, bool]]:
    if isinstance(given, str) or (isinstance(given, list) and all(isinstance(one, str) for one in given)):
        return _from_names(given)
    parts = [given] if isinstance(given, Mapping) else given
    if isinstance(parts, (list, tuple)) and all(isinstance(part, Mapping) for part in parts):
        pairs = [pair for part in parts for pair in part.items()]
        if all(
            isinstance(name, str) and type(way) in (int, str) and way in _DIRECTIONS for name, way in pairs
        ):
            return [(name, _DIRECTIONS[way]) for name, way in pairs]
    raise InvalidFilter(
        "'sort' takes fields with 1 (ascending) or -1 (descending).", remedy='As in [{"created_at": -1}].'
    )


def cursor_after(record: object, order: Order, where: Filter) -> str:
    """The cursor of a page that ends with this record."""
    values = [_plain(getattr(record, name)) for name, _ in order]
    payload = msgspec.json.encode([digest(order, where), values])
    return base64.urlsafe_b64encode(payload).decode().rstrip("=")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def after_cursor(token: str, owner: str, fields: Mapping[str, Field], order: Order, where: Filter) -> Filter:
    """What follows the page that the cursor ends. Raises InvalidCursor for what is no cursor, or that of
    another list."""
    try:
        if len(token) > _LONGEST:
            raise ValueError("too long")
        payload = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        asked, given = msgspec.json.decode(payload, type=tuple[str, list[Any]])
        if len(given) != len(order):
            raise ValueError("of another order")
        values = [comparable(owner, fields[name], v) for (name, _), v in zip(order, given, strict=True)]
    except (ValueError, binascii.Error, msgspec.DecodeError, InvalidFilter) as failure:
        raise InvalidCursor("This is no cursor of a list.", remedy="Begin with an empty one.") from failure
    if asked != digest(order, where):
        raise InvalidCursor(
            "This cursor belongs to a list with another filter or order.", remedy="Begin with an empty one."
        )
    return _after(order, values)


def _after(order: Order, values: Sequence[Any]) -> Filter:
    """Equal in the first fields and beyond in the next one, for any number of first ones."""
    ways: list[Filter] = []
    for index, ((name, descending), value) in enumerate(zip(order, values, strict=True)):
        same = [Test(before, "eq", v) for (before, _), v in zip(order[:index], values[:index], strict=True)]
        ways.append(All((*same, _beyond(name, value, descending=descending))))
    return AnyOf(tuple(ways))


def _beyond(name: str, value: Any, *, descending: bool) -> Filter:
    """NULL comes before every value."""
    absent = Test(name, "eq", None)
    if value is None:
        return NOTHING if descending else Not(absent)
    return AnyOf((Test(name, "lt", value), absent)) if descending else Test(name, "gt", value)
