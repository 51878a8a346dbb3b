"""Statements that are built and compiled once for each shape."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from dataflow.dialects import Dialect
from dataflow.query import Shape, Statement, compiled

_KEPT = 1000


class Shapes:
    """Keeps the most recent shapes: filters come from outside, in any number of forms."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._statements: dict[Shape, Statement] = {}

    def statement(self, shape: Shape, build: Callable[[], sa.ClauseElement]) -> Statement:
        found = self._statements.get(shape)
        if found is None:
            if len(self._statements) >= _KEPT:
                self._statements.pop(next(iter(self._statements)))
            found = self._statements[shape] = compiled(build(), self._dialect)
        return found
