"""What filters need of a database beyond comparing columns: patterns, and looking into JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import sqlalchemy as sa

from dataflow.fields import Kind
from nexus.filters import All, Filter, Inside, Not, Pattern
from nexus.filters import Any as AnyOf

Bind: TypeAlias = Callable[[Any], str]


class FilterSql(Protocol):
    """The database's own half of filters. Values, patterns and the keys of JSON objects are parameters."""

    def pattern(self, pattern: Pattern) -> str:
        """How a pattern travels."""

    def regex(self, column: sa.ColumnElement[Any], pattern: Any) -> sa.ColumnElement[bool]: ...

    def substring(self, column: sa.ColumnElement[Any], value: Any) -> sa.ColumnElement[bool]: ...

    def inside(self, column: str, test: Inside, bind: Bind, elements: Kind | None) -> str:
        """A condition on a column of JSON, or on an array of these `elements`, in which `bind` names each
        parameter; two that differ in parameters only give the same text. Where nothing is found it is not
        true."""

    def settled(self, condition: sa.TextClause) -> sa.ColumnElement[bool]:
        """Such a condition, as it can be a part of others."""


def true_or_false(condition: sa.TextClause) -> sa.ColumnElement[bool]:
    return sa.case((condition, sa.true()), else_=sa.false()).is_(sa.true())


class JsonConditions(ABC):
    """Conditions as text, put together alike wherever SQL looks into JSON itself. `_names` numbers the tables
    that a condition makes up."""

    def __init__(self, bind: Bind) -> None:
        self._bind = bind
        self._names = 0

    @abstractmethod
    def inside(self, value: str, test: Inside) -> str:
        """The condition on an expression that is a JSON value."""

    def _name(self) -> str:
        self._names += 1
        return f"nexus_{self._names}"

    def _filter(self, tree: Filter, element: str) -> str:
        """The condition of a filter over an element."""
        match tree:
            case All(parts):
                return "(" + " AND ".join(["1 = 1", *(self._filter(part, element) for part in parts)]) + ")"
            case AnyOf(parts):
                return "(" + " OR ".join(["1 = 0", *(self._filter(part, element) for part in parts)]) + ")"
            case Not(part):
                return f"({self._filter(part, element)} IS NOT TRUE)"
            case Inside():
                return self.inside(element, tree)
        raise AssertionError(tree)  # elements have no columns
