"""Which version of a workflow ran: a digest of how it is declared."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def version_of(*declared: object) -> str:
    """The same for what is declared alike, in every process; another as soon as anything differs."""
    text = json.dumps([_plain(part) for part in declared], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@functools.cache
def _members(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; there are thousands of nodes, and few kinds of them."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return [[str(key), _plain(value[key])] for key in value]
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    kind: Any = type(value)
    if names := _members(kind):
        return [kind.__name__, [[name, _plain(getattr(value, name))] for name in names]]
    if hasattr(value, "__qualname__"):  # a class or a function: its address differs in each process
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
