"""Rows as a bulk operation is given them: by which fields a record is known, and what a row holds."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, overload

import msgspec
from msgspec import UNSET, UnsetType

from dataflow.columns import Columns
from dataflow.model import Model
from dataflow.nodes.described import keys_of
from dataflow.nodes.items import Item
from dataflow.nodes.parts import arguments_of, created_fields, key_type, optional_fields
from nexus.arguments import Arguments, pointer
from nexus.errors import InvalidArguments, Problem, did_you_mean


def match_fields(
    model: Model, given: Sequence[str] | UnsetType, verb: str, argument: str = "match_fields"
) -> tuple[str, ...]:
    """Raises InvalidArguments for a field by which no record can be known."""
    if given is UNSET:
        return ("id",)
    known = keys_of(model)
    for name in given:
        if name not in known:
            kind = "by which it can be matched" if name in model.fields else "of that name"
            detail = f"{model.route} has no field '{name[:80]}' {kind}. {did_you_mean(name, known)}".rstrip()
            raise _refused(model, verb, InvalidArguments.UNKNOWN, pointer(argument), detail)
    if not given or len(set(given)) < len(given):
        detail = f"'{argument}' takes one or more fields, each once"
        raise _refused(model, verb, InvalidArguments.TYPE, pointer(argument), detail)
    return tuple(given)


class Rows:
    """Reads the rows in `argument`; what is wrong with one is said with its place."""

    def __init__(self, model: Model, verb: str, argument: str, struct: type[msgspec.Struct]) -> None:
        self._model = model
        self._verb = verb
        self._argument = argument
        self._accept = Arguments(f"{model.route}.{verb}", struct, model.managed).accept

    def objects(self, given: list[Any]) -> list[dict[str, Any]]:
        """All rows. Raises InvalidArguments where one is no object."""
        rows: list[dict[str, Any]] = getattr(self._objects.accept({self._argument: given}), self._argument)
        return rows

    @functools.cached_property
    def _objects(self) -> Arguments:
        struct = arguments_of(self._model, "Objects", [(self._argument, list[dict[str, Any]])])
        return Arguments(f"{self._model.route}.{self._verb}", struct)

    def one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The same for an argument that is a row itself."""
        return self.values(None, row)

    def values(self, index: int | None, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that the row gives, or that have a default, of their types. Raises InvalidArguments."""
        fields, route = self._model.fields, self._model.route
        values: dict[str, Any] = {}
        try:
            accepted = self._accept(row)
            for name in accepted.__struct_fields__:
                if (value := getattr(accepted, name)) is not UNSET:
                    values[name] = fields[name].check(route, value)
        except InvalidArguments as failure:
            raise self._placed(index, failure) from None
        return values

    def one_key(self, row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
        return self.key(None, row, names)

    def key(self, index: int | None, row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
        """What the record is known by. Raises InvalidArguments where the row does not say it."""
        for name in names:
            if row.get(name) is None:
                detail = f"{self._called(index)} needs '{name}', by which it is matched"
                at = self._at(index) + pointer(name)
                raise _refused(self._model, self._verb, InvalidArguments.MISSING, at, detail)
        values = self.values(index, {name: row[name] for name in names})
        return tuple(values[name] for name in names)

    def _at(self, index: int | None) -> str:
        return pointer(self._argument) if index is None else pointer(self._argument, index)

    def _called(self, index: int | None) -> str:
        return f"'{self._argument}'" if index is None else f"the record {index}"

    def _placed(self, index: int | None, failure: InvalidArguments) -> InvalidArguments:
        at, called = self._at(index), self._called(index)
        problems = [
            Problem(problem.code, at + problem.pointer, f"{called}: {problem.detail}")
            for problem in failure.problems
        ]
        return InvalidArguments(f"{self._model.route}.{self._verb}", problems)


class Many(Sequence[Item[dict[str, Any]]]):
    """Rows that were read as columns, the first of which has this place among all."""

    def __init__(self, columns: Columns, first: int = 0) -> None:
        self.columns = columns
        self.places = range(first, first + columns.count)

    def __len__(self) -> int:
        return self.columns.count

    @overload
    def __getitem__(self, at: int) -> Item[dict[str, Any]]: ...

    @overload
    def __getitem__(self, at: slice) -> Many: ...

    def __getitem__(self, at: int | slice) -> Item[dict[str, Any]] | Many:
        if isinstance(at, slice):
            places = self.places[at]
            first = self.places.start
            return Many(self.columns.part(places.start - first, places.stop - first), places.start)
        return self.places[at], self.columns.one(at)


def row_reader(model: Model, verb: str, argument: str) -> Rows:
    """For rows that need not hold every field."""
    fields = [("id", key_type(model) | UnsetType, UNSET), *optional_fields(model)]
    return Rows(model, verb, argument, arguments_of(model, "Row", fields))


def new_row_reader(model: Model, verb: str, argument: str) -> Rows:
    """For rows that make a record each."""
    return Rows(model, verb, argument, arguments_of(model, "NewRow", created_fields(model)))


def _refused(model: Model, verb: str, code: str, at: str, detail: str) -> InvalidArguments:
    return InvalidArguments(f"{model.route}.{verb}", [Problem(code, at, detail)])
