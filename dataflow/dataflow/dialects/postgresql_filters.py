"""Filters in PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from dataflow.dialects.filter_sql import Bind, JsonConditions
from dataflow.dialects.postgresql_arrays import indexed
from dataflow.fields import Kind
from nexus.filters import Inside, Pattern
from nexus.filters.match import is_index

_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class PostgresqlFilters:
    def pattern(self, pattern: Pattern) -> str:
        return pattern.made.are

    def regex(self, column: sa.ColumnElement[Any], pattern: Any) -> sa.ColumnElement[bool]:
        return column.bool_op("~")(pattern)

    def substring(self, column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]:
        return sa.func.strpos(column, value) > 0

    def inside(self, column: str, test: Inside, bind: Bind, elements: Kind | None) -> str:
        if elements is not None and test.op == "substring" and not (test.path or test.spread):
            return "FALSE"  # an array is no text; said so, it is in no index's way
        found = indexed(column, elements, test, bind) if elements is not None else None
        condition = _Conditions(bind).inside(f"to_jsonb({column})", test)
        return condition if found is None else f"{found} AND {condition}"

    def settled(self, condition: sa.TextClause) -> sa.ColumnElement[bool]:
        return _Settled(condition)


class _Settled(sa.ColumnElement[bool]):
    """A condition in parentheses: no more, so that an index on the column can answer it."""

    inherit_cache = False

    def __init__(self, condition: sa.TextClause) -> None:
        self.condition = condition
        self.type = sa.Boolean()


@compiles(_Settled)
def _in_parentheses(element: _Settled, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"({compiler.process(element.condition, **kwargs)})"


class _Conditions(JsonConditions):
    def inside(self, value: str, test: Inside) -> str:
        if not test.path and not test.spread:
            return self._passes(value, test)
        tables = []
        for step in test.path:
            name = self._name()
            tables.append(f"LATERAL ({self._stepped(value, step)}) AS {name}(v)")
            value = f"{name}.v"
        if test.spread:
            name = self._name()
            both = f"SELECT {value} UNION ALL SELECT e.v FROM {_elements(value)} AS e(v)"
            tables.append(f"LATERAL ({both}) AS {name}(v)")
            value = f"{name}.v"
        return f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {self._passes(value, test)})"

    def _stepped(self, value: str, step: str) -> str:
        key = self._text(step)
        found = (
            f"SELECT {value} -> {key} WHERE jsonb_typeof({value}) = 'object' UNION ALL"
            f" SELECT e.v -> {key} FROM {_elements(value)} AS e(v) WHERE jsonb_typeof(e.v) = 'object'"
        )
        if is_index(step):
            index = f"CAST({self._bind(int(step))} AS integer)"
            found += f" UNION ALL SELECT {value} -> {index} WHERE jsonb_typeof({value}) = 'array'"
        return found

    def _passes(self, value: str, test: Inside) -> str:
        op, wanted = test.op, test.value
        if op == "present":
            return f"{value} <> CAST('null' AS jsonb)"
        if op == "eq":
            return f"{value} = {self._json(wanted)}"
        if op == "in":
            return f"{value} IN (SELECT jsonb_array_elements({self._json(wanted)}))"
        if op in _ORDERS and not isinstance(wanted, str):
            return f"(jsonb_typeof({value}) = 'number' AND {value} {_ORDERS[op]} {self._json(wanted)})"
        if op == "size":
            length = f"jsonb_array_length({value})"
            size = f"CAST({self._bind(wanted)} AS integer)"
            return f"(CASE WHEN jsonb_typeof({value}) = 'array' THEN {length} = {size} END)"
        if op == "element":
            name = self._name()
            assert test.inner is not None
            inner = self._filter(test.inner, f"{name}.v")
            return f"EXISTS (SELECT 1 FROM {_elements(value)} AS {name}(v) WHERE {inner})"
        return f"(jsonb_typeof({value}) = 'string' AND {self._on_text(value, test)})"

    def _on_text(self, value: str, test: Inside) -> str:
        text = f"(({value} #>> '{{}}') COLLATE \"C\")"
        if test.pattern is not None:
            return f"{text} ~ {self._text(test.pattern.made.are)}"
        given = self._text(test.value)
        if test.op == "startswith":
            return f"starts_with({text}, {given})"
        if test.op == "endswith":
            return f"right({text}, length({given})) = {given}"
        if test.op == "substring":
            return f"strpos({text}, {given}) > 0"
        return f"{text} {_ORDERS[test.op]} {given}"

    def _text(self, value: str) -> str:
        return f"CAST({self._bind(value)} AS text)"

    def _json(self, value: object) -> str:
        return f"CAST({self._text(msgspec.json.encode(value).decode())} AS jsonb)"


def _elements(value: str) -> str:
    """The elements of a list, and of anything else none."""
    return f"jsonb_array_elements(CASE WHEN jsonb_typeof({value}) = 'array' THEN {value} ELSE '[]' END)"
