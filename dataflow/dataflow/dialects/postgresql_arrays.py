"""Lists as PostgreSQL's own arrays. They mean what lists in JSON mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from dataflow.dialects.filter_sql import Bind
from dataflow.dialects.json_lists import filled
from dataflow.fields import Field, Kind
from dataflow.model import Model
from nexus.errors import SchemaMismatch
from nexus.filters import Inside

_TYPES = {Kind.TEXT: "text", Kind.INTEGER: "bigint", Kind.FLOAT: "double precision", Kind.BOOLEAN: "boolean"}

_CHANGES = {
    "push": "coalesce({list}, '{}') || {elements}",
    "add": (
        "coalesce({list}, '{}') || ARRAY(SELECT g.e FROM unnest({elements}) WITH ORDINALITY AS g(e, n)"
        " WHERE g.e <> ALL (coalesce({list}, '{}')) ORDER BY g.n)"
    ),
    "pull": (
        "CASE WHEN {list} IS NOT NULL THEN ARRAY(SELECT k.e FROM unnest({list}) WITH ORDINALITY AS k(e, n)"
        " WHERE NOT EXISTS (SELECT 1 FROM unnest({elements}) AS g(e) WHERE g.e = k.e) ORDER BY k.n) END"
    ),
}


class ChangedArray(sa.ColumnElement[Any]):
    """An array after an operator."""

    inherit_cache = False

    def __init__(self, change: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]) -> None:
        self.change = change
        self.column = column
        self.elements = elements
        self.type = column.type


@compiles(ChangedArray)
def _changed(element: ChangedArray, compiler: SQLCompiler, **kwargs: Any) -> str:
    return filled(_CHANGES[element.change], element.column, element.elements, compiler, kwargs)


def element_of(field: Field) -> Field:
    """An element of an array, as if it were a field."""
    assert field.elements is not None
    return Field(field.name, field.elements, object)


def array_from_json(value: str, kind: str) -> str:
    """An array from a list in JSON, in its order."""
    elements = f"json_array_elements_text({value}) WITH ORDINALITY AS e(v, n)"
    return f"CASE WHEN {value} IS NOT NULL THEN ARRAY(SELECT e.v::{kind} FROM {elements} ORDER BY e.n) END"


def check_arrays(model: Model, found: Mapping[str, str]) -> None:
    """Raises SchemaMismatch where a column that is there is an array, and the field is not, or the other way
    round. `found` are the types of the columns."""
    for name, kind in found.items():
        field = model.fields.get(name)
        if field is None or field.kind is not Kind.JSON or (kind == "ARRAY") is bool(field.elements):
            continue
        wanted = "an array" if field.elements else "JSON"
        raise SchemaMismatch(
            f"The column '{name}' of the table '{model.table_name}' is {kind.lower()}, and the model"
            f" '{model.name}' keeps the field as {wanted}.",
            remedy="Convert the column, or change 'use_native_arrays'.",
        )


def indexed(column: str, elements: Kind, test: Inside, bind: Bind) -> str | None:
    """A condition that an index on the array answers and that holds wherever `test` does; None where there
    is none. What it finds too much, the test itself takes away."""
    values = _sought(test, elements)
    if not values:
        return None
    return f"{column} && CAST({bind(values)} AS {_TYPES[elements]}[])"


def _sought(test: Inside, elements: Kind) -> list[Any] | None:
    """The elements of which a matching array has at least one."""
    if test.path:
        return None
    if test.op == "element":
        inner = test.inner
        plain = isinstance(inner, Inside) and not inner.path and not inner.spread
        return _sought(inner, elements) if plain and inner.op in ("eq", "in") else None  # type: ignore[arg-type,union-attr]
    if test.op not in ("eq", "in"):
        return None
    wanted = [test.value] if test.op == "eq" else list(test.value)
    if any(isinstance(value, (list, dict)) for value in wanted):
        return None  # it could be the array itself
    return [fit for value in wanted if (fit := _fitting(value, elements)) is not None]


def _fitting(value: object, elements: Kind) -> object:
    """The value as an element of the array; None for what no element equals."""
    if elements is Kind.TEXT:
        return value if isinstance(value, str) else None
    if elements is Kind.BOOLEAN or isinstance(value, bool):
        return value if elements is Kind.BOOLEAN and isinstance(value, bool) else None
    if not isinstance(value, (int, float)):
        return None
    if elements is Kind.FLOAT:
        return float(value)
    whole = int(value)
    return whole if whole == value and -(2**63) <= whole < 2**63 else None
