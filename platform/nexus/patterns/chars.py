"""Sets of characters, which patterns are made of."""

from __future__ import annotations

import functools
from typing import TypeAlias

from nexus.errors import InvalidFilter

Ranges: TypeAlias = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
_FOLDED_AT_MOST = 3000
_LAST_WITH_CASE = 0x1E944

ANYTHING: Ranges = ((0, LAST),)
NO_NEWLINE: Ranges = ((0, 9), (11, LAST))
_DIGITS: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 13), (32, 32))


def united(ranges: list[tuple[int, int]] | Ranges) -> Ranges:
    """The same characters, in order and without overlaps."""
    done: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if done and low <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(high, done[-1][1]))
        else:
            done.append((low, high))
    return tuple(done)


def complement(ranges: Ranges) -> Ranges:
    done, next_ = [], 0
    for low, high in united(ranges):
        if low > next_:
            done.append((next_, low - 1))
        next_ = high + 1
    if next_ <= LAST:
        done.append((next_, LAST))
    return tuple(done)


CLASSES: dict[str, Ranges] = {
    "d": _DIGITS,
    "D": complement(_DIGITS),
    "w": _WORD,
    "W": complement(_WORD),
    "s": _SPACE,
    "S": complement(_SPACE),
}
CONTROLS = {"t": 9, "n": 10, "r": 13, "f": 12, "v": 11}
HEXADECIMAL = {"x": 2, "u": 4}


@functools.cache
def _cases() -> dict[str, frozenset[int]]:
    """Characters that differ in case only, by what they fold to; those that fold to one character."""
    found: dict[str, set[int]] = {}
    for code in range(0x80, _LAST_WITH_CASE):
        char = chr(code)
        folded = _fold(char)
        if folded != char:
            found.setdefault(folded, {ord(folded)}).add(code)
    for code in range(0x41, 0x5B):
        found.setdefault(chr(code + 32), {code + 32}).add(code)
    return {folded: frozenset(codes) for folded, codes in found.items()}


def _same_letter(code: int) -> frozenset[int]:
    """The characters that are this one in another case."""
    return _cases().get(_fold(chr(code)), frozenset()) | {code}


def _fold(char: str) -> str:
    """Of one character, one: "ß" stays what it is."""
    return next((folded for folded in (char.casefold(), char.lower()) if len(folded) == 1), char)


def folded(ranges: Ranges) -> Ranges:
    """These characters in any case. Raises InvalidFilter for too many."""
    if sum(high - low + 1 for low, high in ranges) > _FOLDED_AT_MOST:
        raise InvalidFilter(
            "The pattern ignores case in a class of too many characters.",
            remedy=f"Name at most {_FOLDED_AT_MOST} characters, or leave out the option 'i'.",
        )
    codes = {same for low, high in ranges for code in range(low, high + 1) for same in _same_letter(code)}
    return united([(code, code) for code in codes])
