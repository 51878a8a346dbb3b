"""What is done to groups after the database has made them: and so alike on each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nexus.errors import InvalidFilter, did_you_mean
from nexus.filters import Fields, Filter, matches, parse

Row = dict[str, Any]
Compare = Callable[[object], object]


class Groups(Protocol):
    """A step from groups to groups."""

    def __call__(self, rows: list[Row]) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class Match:
    where: Filter

    def __call__(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if matches(self.where, row)]


@dataclass(frozen=True, slots=True)
class Sort:
    """Groups that are equal in it stay in their order."""

    order: tuple[tuple[str, bool], ...]

    def __call__(self, rows: list[Row]) -> list[Row]:
        for path, descending in reversed(self.order):
            rows = sorted(rows, key=lambda row: _rank(at(row, path)), reverse=descending)
        return rows


@dataclass(frozen=True, slots=True)
class Skip:
    count: int

    def __call__(self, rows: list[Row]) -> list[Row]:
        return rows[self.count :]


@dataclass(frozen=True, slots=True)
class Limit:
    count: int

    def __call__(self, rows: list[Row]) -> list[Row]:
        return rows[: self.count]


@dataclass(frozen=True, slots=True)
class Project:
    """(name, path) of what is kept."""

    kept: tuple[tuple[str, str], ...]

    def __call__(self, rows: list[Row]) -> list[Row]:
        return [{name: at(row, path) for name, path in self.kept} for row in rows]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The names that a group has, and how a value is made comparable with each. `parts` are those inside of
    an `_id` that is an object."""

    owner: str
    compare: Mapping[str, Compare]
    parts: Mapping[str, Compare]

    def match(self, given: object) -> Match:
        if not isinstance(given, Mapping):
            raise InvalidFilter(f"{self.owner}: what groups must match is an object.")
        names = frozenset(self.compare) - ({"_id"} if self.parts else frozenset())
        return Match(parse(given, Fields(self.owner, names, lambda name, value: self.compare[name](value))))

    def sort(self, given: object) -> Sort:
        order = directions(self.owner, given)
        for path, _ in order:
            self._check(path)
        return Sort(tuple(order))

    def project(self, given: object) -> Project:
        """`{"name": 1, "sold": "$total", "_id": 0}`; or only what to leave out."""
        if not isinstance(given, Mapping) or not given:
            raise InvalidFilter(f"{self.owner}: '$project' takes an object.")
        left_out = [name for name, how in given.items() if how in (0, False) and not isinstance(how, str)]
        kept = {name: how for name, how in given.items() if name not in left_out}
        for name in left_out:
            self._check(name)
        if not kept:
            return Project(tuple((name, name) for name in self.compare if name not in left_out))
        if left_out not in ([], ["_id"]):
            raise InvalidFilter(f"{self.owner}: '$project' either keeps or leaves out.")
        pairs = [("_id", "_id")] if "_id" in self.compare and "_id" not in given else []
        for name, how in kept.items():
            if not isinstance(how, str) and how not in (1, True):
                raise InvalidFilter(f"'{name}': expressions in '$project' are not available yet.")
            if not name or name.startswith("$") or "." in name:
                raise InvalidFilter(f"{self.owner}: '{name[:80]}' cannot be the name of a result.")
            path = how.removeprefix("$") if isinstance(how, str) else name
            self._check(path)
            pairs.append((name, path))
        return Project(tuple(pairs))

    def after(self, project: Project) -> Outputs:
        compare = {name: self._compare(path) for name, path in project.kept}
        whole = ("_id", "_id") in project.kept
        return Outputs(self.owner, compare, self.parts if whole else {})

    def _compare(self, path: str) -> Compare:
        return self.compare[path] if path in self.compare else self.parts[path.removeprefix("_id.")]

    def _check(self, path: str) -> None:
        if path not in self.compare and path.removeprefix("_id.") not in self.parts:
            raise InvalidFilter(
                f"{self.owner}: the groups have no '{str(path)[:80]}'.",
                remedy=did_you_mean(str(path), self.compare),
            )


def directions(owner: str, given: object) -> list[tuple[str, bool]]:
    """(name, descending) for `{"sold": -1}`, a list of these, `["-sold"]` or `"-sold,name"`."""
    items: Sequence[object] = given.split(",") if isinstance(given, str) else [given]
    items = given if isinstance(given, list | tuple) else items
    order: list[tuple[str, bool]] = []
    for item in items:
        if isinstance(item, str):
            order.append((item.strip().removeprefix("-"), item.strip().startswith("-")))
            continue
        pairs = item.items() if isinstance(item, Mapping) else [("", 0)]
        for name, direction in pairs:
            if direction not in (1, -1) or isinstance(direction, bool):
                raise InvalidFilter(f'{owner}: a sort order is an object such as {{"sold": -1}}.')
            order.append((str(name), direction == -1))
    return order


def at(row: Row, path: str) -> Any:
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    return row[head][rest]


def _rank(value: Any) -> tuple[Any, ...]:
    """NULL comes before every value; an object is ordered by its values."""
    if isinstance(value, dict):
        return (1, tuple(_rank(part) for part in value.values()))
    return (0,) if value is None else (1, value)
