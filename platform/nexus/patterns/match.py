"""Patterns at work: made once for each source, and matched in time that the length of the text bounds."""

from __future__ import annotations

import functools
import re

import msgspec

from nexus.errors import InvalidFilter
from nexus.patterns.chars import Ranges
from nexus.patterns.cost import power, simplified
from nexus.patterns.spelling import ARE, PCRE, RE, spelt
from nexus.patterns.syntax import Alt, Anchor, Cat, Chars, Node, Repeat, parse_pattern

_BACKTRACKED_AT_MOST = 1000  # characters; beyond, a text is walked instead
_KEPT_STATES = 500
_KEPT_CHARACTERS = 100
_UNKNOWN: frozenset[int] = frozenset((-1,))


class Pattern(msgspec.Struct, frozen=True):
    """A pattern as it was given. `made` raises InvalidFilter when it is none of the subset."""

    source: str
    options: str = ""

    @property
    def made(self) -> Made:
        return _made(self.source, self.options)

    def check(self) -> None:
        """Raises InvalidFilter."""
        _made(self.source, self.options)

    def found_in(self, text: str) -> bool:
        return _made(self.source, self.options).found_in(text)


def like(text: str, options: str) -> Pattern:
    """A pattern for LIKE's: `%` any characters, `_` one, `\\` before either and before itself."""
    source, chars = "", iter(text)
    for char in chars:
        if char == "%":
            source += "" if source.endswith(".*") else ".*"
        elif char == "_":
            source += "."
        else:
            if char == "\\":
                char = next(chars, "")
                if char not in ("%", "_", "\\"):
                    raise InvalidFilter(
                        "In a pattern of '$like', '\\' stands before '%', '_' or '\\' only.",
                        remedy="Write \\\\ for the character.",
                    )
            source += char if char.isalnum() or not char.isascii() else f"\\{char}"
    return Pattern(f"\\A{source}\\z", "s" + options)


class Made:
    """A pattern in every spelling. The text of `re` matches by itself where that is quick for sure."""

    def __init__(self, source: str, options: str) -> None:
        self.node = simplified(parse_pattern(source, options))
        self._power = power(self.node)
        self.pcre = spelt(self.node, PCRE)
        self.are = spelt(self.node, ARE)
        self.re = spelt(self.node, RE)
        self._search = re.compile(self.re).search

    def found_in(self, text: str) -> bool:
        if self._power < 2 or len(text) <= _BACKTRACKED_AT_MOST:
            return self._search(text) is not None
        return self._walk.found_in(text)

    @functools.cached_property
    def _walk(self) -> Walk:
        return Walk(self.node)


_made = functools.lru_cache(256)(Made)

_START, _BROKEN, _END, _BEFORE_BREAK, _BEFORE_LAST_BREAK = 1, 2, 4, 8, 16
_HOLDS = {
    "start": _START,
    "end": _END,
    "last": _END | _BEFORE_LAST_BREAK,
    "line_start": _START | _BROKEN,
    "line_end": _END | _BEFORE_BREAK,
}


class Walk:
    """All ways at once: a text is read once, and a step costs the same however many ways there are as soon as
    the same set of ways has been met before."""

    def __init__(self, node: Node) -> None:
        self._moves: list[tuple[Ranges, int]] = []  # by state: which characters lead to which state
        self._free: list[list[tuple[int, int]]] = []  # by state: where it leads without one, and under which
        self._accept = self._state()
        self._first = self._build(node, self._accept)
        self._steps: dict[tuple[frozenset[int], int], dict[str, frozenset[int] | None]] = {}

    def found_in(self, text: str) -> bool:
        states, last, broken = frozenset((self._first,)), len(text) - 1, _START
        for index, char in enumerate(text):
            around = broken
            if char == "\n":
                around |= _BEFORE_BREAK | (_BEFORE_LAST_BREAK if index == last else 0)
            after = self._step(states, around, char)
            if after is None:
                return True
            states, broken = after, (_BROKEN if char == "\n" else 0)
        return self._accept in self._reached(states, broken | _END)

    def _step(self, states: frozenset[int], around: int, char: str) -> frozenset[int] | None:
        """The states after a character; None when the pattern has been found before it."""
        if len(self._steps) > _KEPT_STATES:
            self._steps.clear()
        known = self._steps.setdefault((states, around), {})
        after = known.get(char, _UNKNOWN)
        if after is _UNKNOWN:  # what is kept may be cleared by another thread at any moment
            if len(known) > _KEPT_CHARACTERS:
                known.clear()
            after = known[char] = self._stepped(states, around, ord(char))
        return after

    def _stepped(self, states: frozenset[int], around: int, code: int) -> frozenset[int] | None:
        reached = self._reached(states, around)
        if self._accept in reached:
            return None
        after = {self._first}  # it may begin anywhere
        for state in reached:
            ranges, target = self._moves[state]
            if any(low <= code <= high for low, high in ranges):
                after.add(target)
        return frozenset(after)

    def _reached(self, states: frozenset[int], around: int) -> set[int]:
        reached, open_ = set(states), list(states)
        while open_:
            for target, needed in self._free[open_.pop()]:
                if target not in reached and (not needed or needed & around):
                    reached.add(target)
                    open_.append(target)
        return reached

    def _state(self, ranges: Ranges = (), target: int = 0) -> int:
        self._moves.append((ranges, target))
        self._free.append([])
        return len(self._moves) - 1

    def _build(self, node: Node, target: int) -> int:
        """The state from which the node leads to `target`."""
        match node:
            case Chars(ranges):
                return self._state(ranges, target)
            case Cat(parts):
                for part in reversed(parts):
                    target = self._build(part, target)
                return target
            case Alt(parts):
                state = self._state()
                self._free[state] = [(self._build(part, target), 0) for part in parts]
                return state
            case Anchor(kind):
                state = self._state()
                self._free[state] = [(target, _HOLDS[kind])]
                return state
            case Repeat(part, low, high):
                return self._repeat(part, low, high, target)

    def _repeat(self, part: Node, low: int, high: int | None, target: int) -> int:
        if high is None:
            again = self._state()
            self._free[again] = [(self._build(part, again), 0), (target, 0)]
            target = again
        else:
            end = target
            for _ in range(high - low):
                optional = self._state()
                self._free[optional] = [(self._build(part, target), 0), (end, 0)]
                target = optional
        for _ in range(low):
            target = self._build(part, target)
        return target
