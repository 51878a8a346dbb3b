"""Filters and orders as SQL. A statement is built and compiled once for each shape; only values differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import sqlalchemy as sa

from dataflow.dialects.base import Dialect
from dataflow.model import Model
from dataflow.relations import Relation
from dataflow.table import ModelTable
from nexus.errors import InvalidFilter
from nexus.filters import All, Filter, Inside, Not, Related, Test
from nexus.filters import Any as AnyOf

Shape: TypeAlias = tuple[Any, ...]

_MOST_PARAMETERS = 1000
_NONE: Mapping[Model, ModelTable] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text, and the names of its parameters in the order in which the driver wants their values.
    `constants` are those that the statement itself brings."""

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]

    def bind(self, values: Mapping[str, Any]) -> list[Any]:
        if self.constants:
            values = {**self.constants, **values}
        return [values[name] for name in self.names]


def compiled(statement: sa.ClauseElement, dialect: Dialect) -> Statement:
    done = statement.compile(dialect=dialect.compiler)
    constants = {name: value for name, value in done.params.items() if value is not None}
    return Statement(str(done), tuple(getattr(done, "positiontup", None) or ()), constants)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a part of a condition is about: the rows of the statement's own table, or of a related one, which
    is called `alias` there."""

    table: ModelTable
    source: sa.FromClause
    alias: str = ""

    def reference(self, field: str) -> str:
        return self.table.reference(field, self.alias)


class Where:
    """A filter over one table: its `shape`, which is hashable and holds no values, and its `values`, by the
    names that the parameters have in `clause`. `tables` are those of the models that it looks at through
    relations, which is what `crosses` says."""

    def __init__(
        self, tree: Filter, table: ModelTable, dialect: Dialect, tables: Mapping[Model, ModelTable] = _NONE
    ) -> None:
        self._tree = tree
        self._rows = _Rows(table, table.table)
        self._dialect = dialect
        self._tables = tables
        self.values: dict[str, Any] = {}
        self._taken = 0
        self._aliases = 0
        self._conditions: list[tuple[str, int]] = []  # their text, and how many parameters there are after it
        self.shape = self._shape(tree, self._rows)
        self.crosses = self._aliases > 0

    def clause(self) -> sa.ColumnElement[bool]:
        """The condition. Never true for what the filter does not mean; NULL counts as false."""
        self._taken = self._aliases = 0
        self._written = iter(self._conditions)
        return self._clause(self._tree, self._rows)

    def _next(self) -> str:
        self._taken += 1
        return f"w{self._taken}"

    def _related(self, rows: _Rows, name: str) -> tuple[Relation, _Rows]:
        relation = rows.table.model.relations[name]
        table = self._tables[relation.target]
        self._aliases += 1
        alias = f"r{self._aliases}"
        return relation, _Rows(table, table.table.alias(alias), alias)

    def _shape(self, tree: Filter, rows: _Rows) -> Shape:
        match tree:
            case All(parts):
                return ("all", *[self._shape(part, rows) for part in parts])
            case AnyOf(parts):
                return ("any", *[self._shape(part, rows) for part in parts])
            case Not(part):
                return ("not", self._shape(part, rows))
            case Test(field, "in", value):
                return self._shape_in(rows, field, value)
            case Test(field, op, None):
                return (op, field, None)
            case Test(field, "regex", value):
                self.values[self._next()] = self._dialect.filters.pattern(value)
                return ("regex", field)
            case Test(field, op, value):
                self.values[self._next()] = rows.table.encode(field, value)
                return (op, field, isinstance(value, float))
            case Inside():
                return ("inside", self._shape_inside(tree, rows))
            case Related(name, part):
                relation, others = self._related(rows, name)
                via = (relation.field, relation.target, relation.key)
                return ("related", *via, self._shape(part, others))

    def _shape_inside(self, test: Inside, rows: _Rows) -> str:
        elements = rows.table.model.fields[test.field].elements
        text = self._dialect.filters.inside(rows.reference(test.field), test, self._bound, elements)
        self._conditions.append((text, self._taken))
        return text

    def _bound(self, value: object) -> str:
        name = self._next()
        self.values[name] = value
        return f":{name}"

    def _shape_in(self, rows: _Rows, field: str, given: tuple[Any, ...]) -> Shape:
        values = [rows.table.encode(field, value) for value in given if value is not None]
        name, null = self._next(), len(values) < len(given)
        if not any(isinstance(value, float) for value in values):
            self.values[name] = self._dialect.list_parameter(values)
            return ("in", field, None, null)
        if len(values) > _MOST_PARAMETERS:
            raise InvalidFilter(f"'{field}': '$in' takes at most {_MOST_PARAMETERS} numbers with a fraction.")
        self.values |= {f"{name}_{index}": value for index, value in enumerate(values)}
        return ("in", field, len(values), null)

    def _clause(self, tree: Filter, rows: _Rows) -> sa.ColumnElement[bool]:
        match tree:
            case All(parts):
                return sa.and_(sa.true(), *[self._clause(part, rows) for part in parts])
            case AnyOf(parts):
                return sa.or_(sa.false(), *[self._clause(part, rows) for part in parts])
            case Not(part):
                return self._clause(part, rows).is_not(sa.true())
            case Test(field, "in", value):
                return self._clause_in(rows, field, value)
            case Inside():
                text, self._taken = next(self._written)
                return self._dialect.filters.settled(sa.text(text))
            case Related(name, part):
                relation, others = self._related(rows, name)
                joined = others.source.c[relation.key] == rows.source.c[relation.field]
                found: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(others.source)
                found = found.where(joined, self._clause(part, others))
                return sa.exists(found.correlate(rows.source))
            case Test(field, op, value):
                column = rows.source.c[field]
                if value is None:
                    return column.is_(None)
                if op in ("regex", "substring"):
                    test = getattr(self._dialect.filters, op)
                    return sa.and_(test(column, sa.bindparam(self._next(), type_=column.type)))
                kind = sa.Double() if isinstance(value, float) else column.type
                return _TESTS[op](column, sa.bindparam(self._next(), type_=kind))

    def _clause_in(self, rows: _Rows, field: str, given: tuple[Any, ...]) -> sa.ColumnElement[bool]:
        column, name = rows.source.c[field], self._next()
        if name in self.values:
            inside = self._dialect.in_list(column, name)
        else:
            names = [key for key in self.values if key.startswith(f"{name}_")]
            inside = column.in_([sa.bindparam(key, type_=sa.Double()) for key in names])
        return sa.or_(inside, column.is_(None)) if None in given else inside


def order_by(
    table: ModelTable, order: tuple[tuple[str, bool], ...], dialect: Dialect
) -> list[sa.ColumnElement[Any]]:
    """NULL comes before every value, as in MongoDB."""
    columns: list[sa.ColumnElement[Any]] = []
    for name, descending in order:
        column = table.table.c[name]
        if dialect.nulls_first or not table.model.fields[name].nullable:
            columns.append(column.desc() if descending else column.asc())
        else:
            columns.append(column.desc().nulls_last() if descending else column.asc().nulls_first())
    return columns


def _ends(column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]:
    long_enough = sa.func.char_length(column) >= sa.func.char_length(value)
    tail = sa.func.substr(column, sa.func.char_length(column) - sa.func.char_length(value) + 1)
    return sa.and_(long_enough, tail == value)


_TESTS: dict[str, Callable[[sa.ColumnElement[Any], Any], sa.ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "startswith": lambda column, value: sa.func.substr(column, 1, sa.func.char_length(value)) == value,
    "endswith": _ends,
}
