"""Many records in few statements: rows of parameters, in which what all have alike is one parameter.

A statement of its own for each record costs three times as much, most of it in binding and beginning anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow.columns import Columns

_MOST_ROWS = 250
_MOST_PARAMETERS = 2000  # with more it is not quicker, and what is kept prepared is larger


@dataclass(frozen=True, slots=True)
class Rows:
    """A statement about rows, which stand between `head` and `tail`; `whole` ones have what all have alike,
    too, whose parameters are numbered first."""

    head: str
    tail: str
    whole: bool

    @property
    def about(self) -> str:
        return f"{self.head}…{self.tail}"

    def statements(self, columns: Columns) -> Iterator[tuple[str, Sequence[Any]]]:
        """With as many rows each as can be, and few texts for any number of them, since texts stay
        prepared."""
        width = len(columns.each)
        flat: list[Any] = [None] * (columns.count * width)
        for place, values in enumerate(columns.each.values()):
            flat[place::width] = values
        same = list(columns.same.values())
        most = max(1, min(_MOST_ROWS, _MOST_PARAMETERS // width))
        done = 0
        for count in (most, max(1, most // 16), 1):
            while columns.count - done >= count:
                rows = _rows(width, len(same), count, whole=self.whole)
                parameters = same + flat[done * width : (done + count) * width]
                yield f"{self.head}{rows}{self.tail}", parameters
                done += count


def inserts(table: str, names: Sequence[str], tail: str = "") -> Rows:
    """`table` and the `names` of the columns are quoted."""
    return Rows(f"INSERT INTO {table} ({', '.join(names)}) VALUES ", tail, whole=True)


def updates(table: str, each: Sequence[str], same: Sequence[str], key: str, counters: Sequence[str]) -> Rows:
    given = {name: f"given.column{place}" for place, name in enumerate(each, 1)}
    changed = [f"{name} = {name} + 1" for name in counters]
    changed += [f"{name} = {value}" for name, value in given.items() if name != key]
    changed += [f"{name} = ?{place}" for place, name in enumerate(same, 1)]
    head = f"UPDATE {table} SET {', '.join(changed)} FROM (VALUES "
    return Rows(head, f") AS given WHERE {table}.{key} = {given[key]}", whole=False)


@functools.lru_cache(maxsize=512)
def _rows(width: int, same: int, count: int, *, whole: bool) -> str:
    """As `(?3, ?4, ?1, ?2), (?5, ?6, ?1, ?2)`."""
    alike = [f"?{place}" for place in range(1, same + 1)] if whole else []
    rows = (
        [f"?{place}" for place in range(same + row * width + 1, same + (row + 1) * width + 1)]
        for row in range(count)
    )
    return ", ".join(f"({', '.join(row + alike)})" for row in rows)
