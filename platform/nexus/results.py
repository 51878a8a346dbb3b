"""Results as plain values: what a program, a template or a workflow's next node sees of them."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

_KEPT = (datetime.datetime, datetime.date, datetime.time, decimal.Decimal, uuid.UUID, bytes)
_WHOLE = ("data", "result")


class Result(dict[str, Any]):
    """A dictionary that also answers `data` and `result`, where it has no such key: a list's records, else
    the whole; None for the record that says that there is none. They are `in` it, not among its keys."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        if key in _WHOLE:
            return whole(self)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in _WHOLE or dict.__contains__(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default


def plain(result: object) -> Any:
    """A result in dictionaries, lists and simple values; dates, decimals, UUIDs and bytes are simple."""
    made = msgspec.to_builtins(result, builtin_types=_KEPT)
    return Result(made) if isinstance(made, dict) else made


def whole(value: Mapping[str, Any]) -> Any:
    """What `data` and `result` mean where there is no such key."""
    if "records" in value:
        return value["records"]
    if "id" in value and all(item is None for item in value.values()):
        return None
    return value


def step_into(value: Any, step: str) -> Any:
    """What is at `step` in a plain value: a key, an item's number, `data` or `result`. Raises KeyError."""
    if isinstance(value, Mapping):
        if step in value:
            return value[step]
        if step in _WHOLE:
            return whole(value)
    elif isinstance(value, (list, tuple)) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    raise KeyError(step)
