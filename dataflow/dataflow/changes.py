"""What an update assigns, as SQL over the record as it is at that moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from dataflow.assignments import Assignment
from dataflow.dialects.base import Dialect
from dataflow.lists import add
from dataflow.table import ModelTable

PREFIX = "v_"


def change_values(table: ModelTable, changes: Iterable[Assignment]) -> dict[str, Any]:
    """What the parameters of `assigned` are bound to."""
    return {
        PREFIX + change.field: table.encode(
            change.field, add((), change.value) if change.op == "add" else change.value
        )
        for change in changes
    }


def assigned(table: ModelTable, change: Assignment, dialect: Dialect) -> sa.ColumnElement[Any]:
    """The new value of a field."""
    column = table.table.c[change.field]
    given = sa.bindparam(PREFIX + change.field, type_=column.type)
    match change.op:
        case "set":
            return given
        case "inc" | "mul":
            return dialect.combined(table.model.fields[change.field], change.op, column, given)
        case "min":
            return sa.case((sa.or_(column.is_(None), column > given), given), else_=column)
        case "max":
            return sa.case((sa.or_(column.is_(None), column < given), given), else_=column)
        case _:
            return dialect.changed_list(change.op, column, given)
