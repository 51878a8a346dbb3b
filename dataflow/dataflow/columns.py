"""Many records as columns: checked, encoded and handed to drivers a column at a time, which is mostly C."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dataflow.fields import MISSING, Field
from dataflow.model import Model
from nexus.errors import InvalidArguments

_NOT_QUITE = (KeyError, ValueError, ArithmeticError, RecursionError, msgspec.ValidationError)


@dataclass(frozen=True, slots=True)
class Columns:
    """The values of `count` records: in `each` those of one field, in the order of the records; in `same`
    what all of them have alike."""

    count: int
    each: Mapping[str, list[Any]]
    same: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.each, *self.same)

    def part(self, start: int, end: int) -> Columns:
        """The records from one place up to another."""
        count = len(range(self.count)[start:end])
        if count == self.count:
            return self
        return Columns(count, {name: values[start:end] for name, values in self.each.items()}, self.same)

    def parts(self, size: int) -> Iterator[Columns]:
        return (self.part(start, start + size) for start in range(0, self.count, size))

    def at(self, places: Sequence[int]) -> Columns:
        """The records at these places, in their order."""
        each = {name: [values[place] for place in places] for name, values in self.each.items()}
        return Columns(len(places), each, self.same)

    def only(self, names: Collection[str]) -> Columns:
        each = {name: values for name, values in self.each.items() if name in names}
        same = {name: value for name, value in self.same.items() if name in names}
        return Columns(self.count, each, same)

    def with_same(self, more: Mapping[str, Any]) -> Columns:
        return Columns(self.count, self.each, {**self.same, **more})

    def rows(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The records as tuples of these fields."""
        columns = [
            self.each[name] if name in self.each else itertools.repeat(self.same[name], self.count)
            for name in names
        ]
        return list(zip(*columns, strict=True))

    def one(self, place: int) -> dict[str, Any]:
        return {**{name: values[place] for name, values in self.each.items()}, **self.same}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Records that all have the same fields."""
    return Columns(len(rows), {name: [row[name] for row in rows] for name in rows[0]}, {})


class ColumnReader:
    """Reads rows that all name the same fields, and in which nothing is to be put right or refused: what is
    to be said of any others, only a look at each of them tells."""

    def __init__(self, model: Model) -> None:
        self._route = model.route
        self._writable = {field.name: field for field in model.writable()} | {"id": model.fields["id"]}
        self._types = {name: _list_of(field.given_type) for name, field in self._writable.items()}
        self._generated = frozenset({"id"} if model.generates_id else ())

    def read(self, rows: Sequence[Mapping[str, Any]]) -> Columns | None:
        """The fields that the rows give, of their types. None where they are not such rows."""
        if set(map(type, rows)) != {dict}:
            return None
        names = rows[0].keys()
        # As many as in the first, and all of those: the same.
        if not names or not self._writable.keys() >= names or set(map(len, rows)) != {len(names)}:
            return None
        try:
            each = {name: self._column(name, list(map(operator.itemgetter(name), rows))) for name in names}
        except _NOT_QUITE:
            return None
        return Columns(len(rows), each, {})

    def completed(self, given: Columns) -> Columns | None:
        """The same as new records, with their defaults. None where one of the fields must be given, or has a
        default that the field cannot hold."""
        same: dict[str, Any] = {}
        made: list[Field] = []
        for name, field in self._writable.items():
            if name in given.each or name in self._generated:
                continue
            if field.factory is not None:
                made.append(field)
            elif field.default is MISSING:
                return None
            else:
                try:
                    same[name] = field.check(self._route, field.default)
                except InvalidArguments:
                    return None
        each = dict(given.each)
        for field in made:
            try:
                each[field.name] = field.check_column([field.made_default() for _ in range(given.count)])
            except ValueError:
                return None
        return Columns(given.count, each, same)

    def _column(self, name: str, values: list[Any]) -> list[Any]:
        return self._writable[name].check_column(msgspec.convert(values, self._types[name]))


def _list_of(kind: Any) -> Any:
    return list[kind]
