"""Candidates that take turns within one run, and what may be said of them afterwards."""

from __future__ import annotations

import inspect
import statistics
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Figures: TypeAlias = Mapping[str, float]
"""What one round gives: a value for each unit, as in {"requests/s": 5210.0, "µs CPU": 188.0}."""
Measure: TypeAlias = Callable[[], Figures | Awaitable[Figures]]

MORE_IS_BETTER = frozenset({"requests/s", "runs/s", "records/s"})
"""Units of which more is better; of all others less."""
WIDEST = 0.3
"""A ratio whose middle half of rounds spreads wider than this share of its median is not shown."""


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised of a figure, or of how fast ours is for each of `against`: at least or most this."""

    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and between which values the middle half of the rounds lies."""

    median: float
    low: float
    high: float

    @property
    def scattered(self) -> bool:
        return self.median == 0 or (self.high - self.low) / abs(self.median) > WIDEST


@dataclass(slots=True)
class Row:
    """One thing compared, in one unit. `taken` holds each candidate's rounds, `failed` the reasons of those
    that gave none."""

    database: str
    name: str
    unit: str
    taken: dict[str, list[float]]
    failed: dict[str, str] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()

    def figure(self, candidate: str) -> Spread:
        return spread(self.taken[candidate])

    def ratio(self, other: str, ours: str = "ours") -> Spread | None:
        """How fast ours is for each of the other's: pair by pair, since the machine's own speed drifts. None
        where one of the two is missing."""
        if other not in self.taken or ours not in self.taken:
            return None
        pairs = zip(self.taken[ours], self.taken[other], strict=False)
        if self.unit in MORE_IS_BETTER:
            return spread([a / b for a, b in pairs if b])
        return spread([b / a for a, b in pairs if a])


def spread(values: Sequence[float]) -> Spread:
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


async def in_turns(
    database: str,
    name: str,
    candidates: Mapping[str, Measure],
    rounds: int,
    targets: Mapping[str, Sequence[Target]] | None = None,
    failed: Mapping[str, str] | None = None,
) -> list[Row]:
    """A row for each unit. Each candidate has a turn in each round, in the order of the last one reversed,
    after one round that warms up and is not counted, where there is more than one. One that fails has no
    figures, and a reason; the others go on."""
    taken: dict[str, dict[str, list[float]]] = {}
    reasons = dict(failed or {})
    order = list(candidates)
    for number in range(0 if rounds > 1 else 1, rounds + 1):
        for candidate in order if number % 2 else reversed(order):
            if candidate in reasons:
                continue
            try:
                found = candidates[candidate]()
                figures: Any = await found if inspect.isawaitable(found) else found
            except Exception as failure:
                reasons[candidate] = reason_of(failure)
                continue
            if number:
                for unit, value in figures.items():
                    taken.setdefault(unit, {}).setdefault(candidate, []).append(value)
    whole = {unit: {c: values for c, values in by.items() if c not in reasons} for unit, by in taken.items()}
    promised = targets or {}
    return [
        Row(
            database, name, unit, {c: by[c] for c in order if c in by}, reasons, tuple(promised.get(unit, ()))
        )
        for unit, by in whole.items()
    ] or [Row(database, name, "", {}, reasons)]


def reason_of(failure: BaseException) -> str:
    """A line that says what went wrong, and where."""
    last = traceback.extract_tb(failure.__traceback__)[-1:]
    place = f" ({last[0].filename.rpartition('/')[2]}:{last[0].lineno})" if last else ""
    return f"{type(failure).__name__}: {str(failure)[:300]}{place}"
