"""Update operators on JSON lists, in the SQL of the databases that have them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

_POSTGRESQL = {
    "push": "coalesce({list}, '[]'::jsonb) || {elements}",
    "add": (
        "coalesce({list}, '[]'::jsonb) || (SELECT coalesce(jsonb_agg(g.e ORDER BY g.n), '[]'::jsonb)"
        " FROM jsonb_array_elements({elements}) WITH ORDINALITY AS g(e, n) WHERE NOT EXISTS"
        " (SELECT 1 FROM jsonb_array_elements(coalesce({list}, '[]'::jsonb)) AS k(e) WHERE k.e = g.e))"
    ),
    "pull": (
        "CASE WHEN {list} IS NOT NULL THEN (SELECT coalesce(jsonb_agg(k.e ORDER BY k.n), '[]'::jsonb)"
        " FROM jsonb_array_elements({list}) WITH ORDINALITY AS k(e, n) WHERE NOT EXISTS"
        " (SELECT 1 FROM jsonb_array_elements({elements}) AS g(e) WHERE g.e = k.e)) END"
    ),
}

# An element is taken by its place: JSON_TABLE itself would turn the text "1" and the number 1 into the same.
_KNOWN = "JSON_EXTRACT({list}, CONCAT('$[', k.n - 1, ']'))"
_GIVEN = "JSON_EXTRACT(CAST({elements} AS CHAR), CONCAT('$[', g.n - 1, ']'))"
_MYSQL = {
    "push": "JSON_MERGE_PRESERVE(COALESCE({list}, '[]'), {elements})",
    "add": (
        "JSON_MERGE_PRESERVE(COALESCE({list}, '[]'), "
        "(SELECT COALESCE(JSON_ARRAYAGG({given} ORDER BY g.n), '[]')"
        " FROM JSON_TABLE({elements}, '$[*]' COLUMNS (n FOR ORDINALITY)) AS g WHERE NOT EXISTS"
        " (SELECT 1 FROM JSON_TABLE(COALESCE({list}, '[]'), '$[*]' COLUMNS (n FOR ORDINALITY)) AS k"
        " WHERE JSON_EQUALS({known}, {given}))))"
    ),
    "pull": (
        "CASE WHEN {list} IS NOT NULL THEN (SELECT COALESCE(JSON_ARRAYAGG({known} ORDER BY k.n), '[]')"
        " FROM JSON_TABLE({list}, '$[*]' COLUMNS (n FOR ORDINALITY)) AS k WHERE NOT EXISTS"
        " (SELECT 1 FROM JSON_TABLE({elements}, '$[*]' COLUMNS (n FOR ORDINALITY)) AS g"
        " WHERE JSON_EQUALS({known}, {given}))) END"
    ),
}


class ChangedList(sa.ColumnElement[Any]):
    """A JSON list after an operator."""

    inherit_cache = False

    def __init__(self, change: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]) -> None:
        self.change = change
        self.column = column
        self.elements = elements
        self.type = column.type


@compiles(ChangedList, "postgresql")
def _in_postgresql(element: ChangedList, compiler: SQLCompiler, **kwargs: Any) -> str:
    return filled(_POSTGRESQL[element.change], element.column, element.elements, compiler, kwargs)


@compiles(ChangedList, "mysql")
@compiles(ChangedList, "mariadb")
def _in_mysql(element: ChangedList, compiler: SQLCompiler, **kwargs: Any) -> str:
    template = _MYSQL[element.change].replace("{known}", _KNOWN).replace("{given}", _GIVEN)
    return filled(template, element.column, element.elements, compiler, kwargs)


def filled(
    template: str,
    listed: sa.ColumnElement[Any],
    elements: sa.ColumnElement[Any],
    compiler: SQLCompiler,
    kwargs: dict[str, Any],
) -> str:
    """A template with `{list}` and `{elements}` in it. Each place is compiled by itself, so that a parameter
    used twice is bound twice. An empty array, `'{}'`, stands as it is."""
    parts = {"list": listed, "elements": elements}
    text = ""
    while "{" in template:
        before, _, rest = template.partition("{")
        name, _, template = rest.partition("}")
        text += before + (compiler.process(parts[name], **kwargs) if name else "{}")
    return "(" + text + template + ")"
