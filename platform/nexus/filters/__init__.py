"""Filters: parsed once into a small tree, which runs here as a predicate over records and in `dataflow` as
SQL. The grammar and its meaning are MongoDB's, where a NULL is an absent field; docs/filters.md describes it.
"""

from nexus.filters.grammar import Fields, parse
from nexus.filters.match import matches
from nexus.filters.relations import Across
from nexus.filters.tree import (
    EVERYTHING,
    NOTHING,
    All,
    Any,
    Filter,
    Inside,
    Not,
    Related,
    Test,
    relations_in,
)
from nexus.patterns.match import Pattern

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Across",
    "All",
    "Any",
    "Fields",
    "Filter",
    "Inside",
    "Not",
    "Pattern",
    "Related",
    "Test",
    "matches",
    "parse",
    "relations_in",
]
