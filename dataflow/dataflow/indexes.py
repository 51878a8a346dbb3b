"""What `__indexes__` declares."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dataflow.fields import Field, Kind
from nexus.errors import RegistrationError, did_you_mean

KEY_LENGTH = 255
"""The longest text that can be a key or in an index. Servers limit the bytes of an index's entry: with one
limit everywhere, what one database accepts is accepted by all."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_LONGEST = 63
_MOST_TEXTS = 3
_PARTS = frozenset({"name", "fields", "unique"})
_UNINDEXED = (Kind.JSON, Kind.BYTES)


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    fields: tuple[str, ...]
    unique: bool = False


def declared_indexes(
    owner: str, table: str, given: Any, fields: Mapping[str, Field], within: tuple[str, ...] = ()
) -> tuple[Index, ...]:
    """From `[{"name": "…", "fields": ["a", "b"], "unique": True}]`, of which only the fields are needed. Each
    index begins with the fields `within`: what is unique is so for each of their values. Raises
    RegistrationError."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise RegistrationError(
            f"{owner}: __indexes__ must be a list.", remedy='As in [{"fields": ["email"], "unique": True}].'
        )
    found = [_index(owner, table, entry, fields, within) for entry in given]
    names = [index.name.casefold() for index in found]
    for index in found:
        if names.count(index.name.casefold()) > 1:
            raise RegistrationError(f"{owner}: two indexes are named '{index.name}'.")
    return tuple(found)


def index_on(table: str, fields: tuple[str, ...], *, unique: bool = False) -> Index:
    """An index whose name says what it is about."""
    name = "_".join(("uq" if unique else "ix", table, *fields))
    if len(name) > _LONGEST:
        digest = hashlib.blake2s(name.encode(), digest_size=4).hexdigest()
        name = f"{name[: _LONGEST - 9]}_{digest}"
    return Index(name, fields, unique)


def _index(owner: str, table: str, given: Any, fields: Mapping[str, Field], within: tuple[str, ...]) -> Index:
    if not isinstance(given, Mapping):
        given = {"fields": given}
    for part in given:
        if part not in _PARTS:
            raise RegistrationError(
                f"{owner}: an index has no part '{str(part)[:80]}'.", remedy=did_you_mean(str(part), _PARTS)
            )
    wanted = given.get("fields", ())
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    unique = given.get("unique", False)
    if not isinstance(unique, bool):
        raise RegistrationError(f"{owner}: 'unique' of an index is True or False.")
    arrays = [name for name in names if name in fields and fields[name].elements]
    if arrays and (unique or len(names) > 1):
        raise RegistrationError(
            f"{owner}: an index on the array '{arrays[0]}' is on nothing else, and not unique.",
            remedy="It finds the records by the elements of their arrays.",
        )
    if names and not arrays:
        names = (*(name for name in within if name not in names), *names)
    _check_fields(owner, names, fields)
    named = given.get("name")
    if named is None:
        return index_on(table, names, unique=unique)
    if not isinstance(named, str) or not _NAME.fullmatch(named):
        raise RegistrationError(
            f"{owner}: {named!r} cannot be the name of an index.",
            remedy="Use at most 63 letters, digits and '_', beginning with a letter.",
        )
    return Index(named, names, unique)


def _check_fields(owner: str, names: tuple[Any, ...], fields: Mapping[str, Field]) -> None:
    if not names:
        raise RegistrationError(f"{owner}: an index needs at least one field.")
    for name in names:
        if name not in fields:
            raise RegistrationError(
                f"{owner}: there is no field '{str(name)[:80]}' for an index.",
                remedy=did_you_mean(str(name), fields),
            )
        if fields[name].kind in _UNINDEXED and not fields[name].elements:
            raise RegistrationError(
                f"{owner}: the {fields[name].kind.value} field '{name}' cannot be in an index."
            )
    if len(set(names)) < len(names):
        raise RegistrationError(f"{owner}: an index names each field once.")
    if sum(fields[name].kind is Kind.TEXT for name in names) > _MOST_TEXTS:
        raise RegistrationError(
            f"{owner}: an index holds at most {_MOST_TEXTS} text fields: servers limit its size."
        )
