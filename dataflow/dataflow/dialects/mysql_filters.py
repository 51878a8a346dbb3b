"""Filters in MariaDB and MySQL."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from dataflow.dialects.filter_sql import Bind, JsonConditions, true_or_false
from dataflow.fields import Kind
from nexus.filters import Inside, Pattern
from nexus.filters.match import is_index

_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class MysqlFilters:
    """`collation` compares by code point; `mariadb` says whether the server is one, for JSON that is text."""

    def __init__(self, collation: str, *, mariadb: bool) -> None:
        self._collation = collation
        self._mariadb = mariadb

    def pattern(self, pattern: Pattern) -> str:
        return pattern.made.pcre

    def regex(self, column: sa.ColumnElement[Any], pattern: Any) -> sa.ColumnElement[bool]:
        return column.bool_op("REGEXP")(pattern)

    def substring(self, column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]:
        return sa.func.locate(value, column) > 0

    def inside(self, column: str, test: Inside, bind: Bind, elements: Kind | None) -> str:
        return _Conditions(bind, self._collation, self._mariadb).inside(column, test)

    def settled(self, condition: sa.TextClause) -> sa.ColumnElement[bool]:
        return true_or_false(condition)


class _Conditions(JsonConditions):
    def __init__(self, bind: Bind, collation: str, mariadb: bool) -> None:
        super().__init__(bind)
        self._collation = collation
        self._mariadb = mariadb

    def inside(self, value: str, test: Inside) -> str:
        tables = []
        for step in test.path:
            name = self._name()
            tables.append(_rows(self._stepped(value, step), name))
            value = f"{name}.v"
        passes = self._passes(value, test)
        if test.spread:
            name = self._name()
            elements = _rows(_list(value), name)
            passes = (
                f"({passes} OR EXISTS (SELECT 1 FROM {elements} WHERE {self._passes(f'{name}.v', test)}))"
            )
        return f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {passes})" if tables else passes

    def _stepped(self, value: str, step: str) -> str:
        """A list of what the step leads to: that is what two paths give, wherever they lead."""
        quoted = msgspec.json.encode(step).decode()
        member, members = self._bind(f"$.{quoted}"), self._bind(f"$[*].{quoted}")
        found = f"JSON_EXTRACT({value}, {member}, {members})"
        if not is_index(step):
            return found
        # Anything that is no list would be taken for a list of itself.
        element = f"JSON_EXTRACT({value}, {self._bind(f'$[{step}]')}, {self._bind(f'$[*].{quoted}')})"
        return f"IF(JSON_TYPE({value}) = 'ARRAY', {element}, {found})"

    def _passes(self, value: str, test: Inside) -> str:
        op, wanted = test.op, test.value
        if op == "present":
            return f"JSON_TYPE({value}) <> 'NULL'"
        if op == "eq":
            return self._equal(value, wanted)
        if op == "in":
            return self._one_of(value, wanted)
        if op in _ORDERS and not isinstance(wanted, str):
            return self._ordered(value, _ORDERS[op], wanted)
        if op == "size":
            return f"(JSON_TYPE({value}) = 'ARRAY' AND JSON_LENGTH({value}) = {self._bind(wanted)})"
        if op == "element":
            name = self._name()
            assert test.inner is not None
            inner = self._filter(test.inner, f"{name}.v")
            return f"EXISTS (SELECT 1 FROM {_rows(_list(value), name)} WHERE {inner})"
        return f"(JSON_TYPE({value}) = 'STRING' AND {self._on_text(value, test)})"

    def _equal(self, value: str, wanted: object) -> str:
        if isinstance(wanted, str):  # a text may be written in several ways
            return f"(JSON_TYPE({value}) = 'STRING' AND {self._text(value)} = {self._bind(wanted)})"
        return self._same(value, self._bind(msgspec.json.encode(wanted).decode()))

    def _one_of(self, value: str, wanted: list[object]) -> str:
        texts = [each for each in wanted if isinstance(each, str)]
        others = [each for each in wanted if not isinstance(each, str)]
        name = self._name()
        rows = _rows(self._bind(msgspec.json.encode(others).decode()), name)
        return (
            f"(JSON_TYPE({value}) = 'STRING' AND {self._text(value)} IN {self._bind(texts or [None])}"
            f" OR EXISTS (SELECT 1 FROM {rows} WHERE {self._same(value, f'{name}.v')}))"
        )

    def _same(self, value: str, other: str) -> str:
        if self._mariadb:
            return f"JSON_EQUALS({value}, {other}) = 1"  # alone, it is true for NULL in a WHERE
        return f"CAST({value} AS JSON) = CAST({other} AS JSON)"

    def _ordered(self, value: str, sign: str, wanted: object) -> str:
        """By the nearest binary numbers; where these are equal and large, by the decimal ones."""
        number = msgspec.json.encode(wanted).decode()
        have, want = f"CAST({value} AS DOUBLE)", f"CAST({self._bind(number)} AS DOUBLE)"
        exact = f"CAST({value} AS DECIMAL(65, 30)) {sign} CAST({self._bind(number)} AS DECIMAL(65, 30))"
        large = f"{have} = {want} AND ABS({have}) BETWEEN 1e15 AND 1e30"
        ordered = f"CASE WHEN {large} THEN {exact} ELSE {have} {sign} {want} END"
        return f"(CASE WHEN JSON_TYPE({value}) IN ('INTEGER', 'DOUBLE', 'DECIMAL') THEN {ordered} END)"

    def _on_text(self, value: str, test: Inside) -> str:
        text = self._text(value)
        if test.pattern is not None:
            return f"{text} REGEXP {self._bind(test.pattern.made.pcre)}"
        given = self._bind(test.value)
        if test.op == "startswith":
            return f"LEFT({text}, CHAR_LENGTH({given})) = {given}"
        if test.op == "endswith":
            return f"RIGHT({text}, CHAR_LENGTH({given})) = {given}"
        if test.op == "substring":
            return f"LOCATE({given}, {text}) > 0"
        return f"{text} {_ORDERS[test.op]} {given}"

    def _text(self, value: str) -> str:
        return f"(JSON_UNQUOTE({value}) COLLATE {self._collation})"


def _rows(value: str, name: str) -> str:
    """The elements of a list as a table; what is no list at all gives nothing."""
    return f"JSON_TABLE({value}, '$[*]' COLUMNS (v JSON PATH '$')) AS {name}"


def _list(value: str) -> str:
    return f"IF(JSON_TYPE({value}) = 'ARRAY', {value}, '[]')"
