"""What a filter means, in few words: every operator of the grammar is expressed by these.

Filter
├── All(parts)               every part; All(()) matches everything
├── Any(parts)               at least one part
├── Not(part)                where the part is not true
├── Test(field, op, value)   on the value of a field
├── Inside(field, path, …)   on what is found in a JSON value
└── Related(relation, part)  on the records that a relation leads to

The values are plain, so that a tree, or a part of one, can travel as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any as Object
from typing import TypeAlias, Union

import msgspec

from nexus.patterns.match import Pattern


class All(msgspec.Struct, frozen=True, tag=True):
    parts: tuple[Filter, ...]


class Any(msgspec.Struct, frozen=True, tag=True):
    parts: tuple[Filter, ...]


class Not(msgspec.Struct, frozen=True, tag=True):
    part: Filter


class Test(msgspec.Struct, frozen=True, tag=True):
    """`op` is one of eq, gt, gte, lt, lte, in, and on texts startswith, endswith, substring, and regex, whose
    value is a Pattern. Of these only `eq` and `in` may hold None, which means: absent or null."""

    field: str
    op: str
    value: Object


class Inside(msgspec.Struct, frozen=True, tag=True):
    """True when a value that `path` leads to passes the test, and is not null. A step leads from an object to
    the member of that name; from a list to its element of that number, and to that member of its elements.
    With `spread`, a list that the path ends at stands for its elements too.

    `op` is one of
    - eq, in: equal to `value`, or to one of those in it
    - gt, gte, lt, lte: a number compared with a number, a text with a text
    - startswith, endswith, substring, regex: on a text; `pattern` is that of regex
    - size: a list of that many elements
    - element: a list with an element that `inner` is true for; there, the field "" is the element
    - present: anything
    """

    field: str
    path: tuple[str, ...]
    spread: bool
    op: str
    value: Object = None
    pattern: Pattern | None = None
    inner: Filter | None = None


class Related(msgspec.Struct, frozen=True, tag=True):
    """True when one of the records that `relation` leads to passes `part`. A predicate finds them in the
    record, under the name of the relation: one, or a list."""

    relation: str
    part: Filter


Filter: TypeAlias = Union[All, Any, Not, Test, Inside, Related]  # noqa: UP007  (msgspec resolves it by name)

EVERYTHING = All(())
NOTHING = Not(EVERYTHING)


def relations_in(tree: Filter) -> Iterator[Related]:
    """The relations that a filter looks through, the outermost ones."""
    match tree:
        case All(parts) | Any(parts):
            for part in parts:
                yield from relations_in(part)
        case Not(part):
            yield from relations_in(part)
        case Related():
            yield tree
