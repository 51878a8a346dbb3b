"""What a name in a filter means that leads to other records: a relation, or a field beyond one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus.errors import InvalidFilter
from nexus.filters.targets import Target
from nexus.filters.tree import EVERYTHING, Any, Filter, Not, Related
from nexus.patterns.match import Pattern

if TYPE_CHECKING:
    from nexus.filters.grammar import Fields

MOST_RELATIONS = 5


@dataclass(frozen=True, slots=True)
class Across:
    """The records that these relations lead to, one after the other; `many` says that there may be several.
    `fields` are theirs."""

    relations: tuple[str, ...]
    fields: Fields
    many: bool

    @property
    def shown(self) -> str:
        return ".".join(self.relations)

    def some(self, part: Filter = EVERYTHING) -> Filter:
        """There is such a record, and it passes."""
        for relation in reversed(self.relations):
            part = Related(relation, part)
        return part


@dataclass(frozen=True, slots=True)
class Beyond:
    """A field of related records, `customer.email`: as one that is looked up in the record itself. Where
    there is no related record, it is absent."""

    across: Across
    field: Target

    @property
    def shown(self) -> str:
        return f"{self.across.shown}.{self.field.shown}"

    def null(self) -> Filter:
        return Not(self.across.some(Not(self.field.null())))

    def equal(self, value: object) -> Filter:
        return self.across.some(self.field.equal(value))

    def one_of(self, values: list[object]) -> Filter:
        known = [value for value in values if value is not None]
        found = self.across.some(self.field.one_of(known))
        return found if len(known) == len(values) else Any((self.null(), found))

    def ordered(self, op: str, value: object) -> Filter:
        return self.across.some(self.field.ordered(op, value))

    def text(self, op: str, value: str) -> Filter:
        return self.across.some(self.field.text(op, value))

    def pattern(self, op: str, pattern: Pattern) -> Filter:
        return self.across.some(self.field.pattern(op, pattern))

    def contains(self, value: object) -> Filter:
        return self.across.some(self.field.contains(value))

    def size(self, size: int) -> Filter:
        return self.across.some(self.field.size(size))

    def element(self, op: str, inner: Filter) -> Filter:
        return self.across.some(self.field.element(op, inner))


def joined(first: Across, then: Target | Across) -> Target | Across:
    """What a path means whose first step is the relation `first`. Raises InvalidFilter for one that goes on
    for too long."""
    match then:
        case Across(relations, fields, many):
            return _bounded(Across((*first.relations, *relations), fields, first.many or many))
        case Beyond(Across(relations, fields, many), field):
            across = Across((*first.relations, *relations), fields, first.many or many)
            return Beyond(_bounded(across), field)
    return Beyond(first, then)


def _bounded(across: Across) -> Across:
    if len(across.relations) > MOST_RELATIONS:
        raise InvalidFilter(f"A filter looks through at most {MOST_RELATIONS} relations in a row.")
    return across
