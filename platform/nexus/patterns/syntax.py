"""A subset of regular expressions that means the same to every matcher it is handed to.

A pattern is parsed here, never by a database: what leaves is written anew, from sets of characters,
sequences, alternatives, repetitions and anchors only, in the spelling of the one who is to match. Options are
worked into the sets, so that nobody's own idea of case, of lines or of `\\w` has a say.

The tree of a pattern
├── Chars(ranges)            one character
├── Cat(parts)               one after the other
├── Alt(parts)               one of them
├── Repeat(part, low, high)  high is None where there is no end
└── Anchor(kind)             start, end, last (end, or before a final newline), line_start, line_end
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from nexus.errors import InvalidFilter
from nexus.patterns.chars import (
    ANYTHING,
    CLASSES,
    CONTROLS,
    HEXADECIMAL,
    LAST,
    NO_NEWLINE,
    Ranges,
    complement,
    folded,
    united,
)

MOST_CHARACTERS = 1000
MOST_REPETITIONS = 255
_MOST_WEIGHT = 600
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Chars:
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Cat:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    kind: str


Node: TypeAlias = Chars | Cat | Alt | Repeat | Anchor


def parse_pattern(source: str, options: str) -> Node:
    """The tree; raises InvalidFilter for what is no pattern, or none of the subset."""
    if len(source) > MOST_CHARACTERS:
        raise InvalidFilter(f"A pattern has at most {MOST_CHARACTERS} characters, not {len(source)}.")
    if "\0" in source or any(0xD800 <= ord(char) <= 0xDFFF for char in source):
        raise InvalidFilter("A pattern cannot contain the character NUL, nor half of a surrogate pair.")
    parsed = _Parser(source, options).parse()
    if weight(parsed) > _MOST_WEIGHT:
        raise InvalidFilter(
            f"The pattern has more than {_MOST_WEIGHT} characters and classes when its repetitions are"
            " written out.",
            remedy="Use smaller bounds, or '*' and '+'.",
        )
    return parsed


def weight(node: Node) -> int:
    match node:
        case Cat(parts) | Alt(parts):
            return sum(map(weight, parts))
        case Repeat(part, low, high):
            return weight(part) * max(1, low if high is None else high)
        case _:
            return 1


class _Parser:
    def __init__(self, source: str, options: str) -> None:
        self._source = source
        self._at = 0
        self._depth = 0
        self._options = frozenset(options)
        unknown = sorted(self._options - set("imsx"))
        if unknown:
            raise InvalidFilter(
                f"'$options' has no '{unknown[0]}'.",
                remedy="i ignores case, m takes ^ and $ for lines, s lets . be a newline, x skips blanks.",
            )

    def parse(self) -> Node:
        if self._source.startswith("(?"):  # options may also be written in front, as in (?i)lamp
            given, closed, _ = self._source[2:].partition(")")
            if closed and given and set(given) <= set("imsx"):
                self._options |= set(given)
                self._at = len(given) + 3
        node = self._alternatives()
        if self._at < len(self._source):
            raise self._refused("there is a ')' that nothing opens", "Write \\) for the character.")
        return node

    def _refused(self, reason: str, remedy: str = "") -> InvalidFilter:
        shown = self._source if len(self._source) <= 60 else self._source[:60] + "…"
        return InvalidFilter(f"The pattern '{shown}' cannot be used: {reason}.", remedy=remedy)

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._source[at] if at < len(self._source) else ""

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise self._refused("it ends in the middle")
        self._at += 1
        return char

    def _alternatives(self) -> Node:
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._skip() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Cat(tuple(parts))

    def _skip(self) -> str:
        """The next character that counts."""
        while "x" in self._options and self._peek() in tuple(" \t\n\r\f\v#"):
            if self._take() == "#":
                while self._peek() not in ("", "\n"):
                    self._at += 1
        return self._peek()

    def _atom(self) -> Node:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return self._chars(self._class())
        if char == ".":
            return Chars(ANYTHING if "s" in self._options else NO_NEWLINE)
        if char == "^":
            return Anchor("line_start" if "m" in self._options else "start")
        if char == "$":
            return Anchor("line_end" if "m" in self._options else "last")
        if char in "*+?{":
            raise self._refused(f"'{char}' repeats nothing", f"Write \\{char} for the character.")
        if char != "\\":
            return self._chars(((ord(char), ord(char)),))
        if self._peek() in ("A", "z"):
            return Anchor("start" if self._take() == "A" else "end")
        return self._chars(self._escape())

    def _chars(self, ranges: Ranges) -> Chars:
        return Chars(folded(ranges) if "i" in self._options and ranges[-1][1] < LAST else ranges)

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._refused(f"it has more than {_DEEPEST} groups within each other")
        if self._peek() == "?":
            if self._peek(1) != ":":
                raise self._refused(
                    f"'(?{self._peek(1)}' is not of the subset: no lookaround, named or atomic groups,"
                    " comments, nor options inside",
                    "Use (…) or (?:…); options go to '$options'.",
                )
            self._at += 2
        elif self._peek() == "*":
            raise self._refused("verbs such as (*…) are not of the subset")
        inner = self._alternatives()
        if not self._peek():
            raise self._refused("a group is not closed")
        self._at += 1
        self._depth -= 1
        return inner

    def _repeated(self, node: Node) -> Node:
        char = self._skip()
        if char not in ("*", "+", "?", "{"):
            return node
        if isinstance(node, Anchor):
            raise self._refused("an anchor cannot be repeated")
        self._at += 1
        if char == "{":
            low, high = self._bounds()
        else:
            low, high = int(char == "+"), (1 if char == "?" else None)
        if self._peek() == "?":  # as few as possible: whether it matches is the same
            self._at += 1
        if self._peek() and self._peek() in "*+?{":
            raise self._refused("a repetition cannot be repeated, nor be possessive", "Use a group.")
        return Repeat(node, low, high)

    def _bounds(self) -> tuple[int, int | None]:
        text, closed, _ = self._source[self._at :].partition("}")
        low, comma, high = text.partition(",")
        numbers = [part for part in (low, high) if part]
        if not closed or not low or not all(n.isascii() and n.isdigit() and len(n) <= 4 for n in numbers):
            raise self._refused(
                "'{' begins no repetition", "As in {2}, {2,} or {2,5}; \\{ for the character."
            )
        self._at += len(text) + 1
        least = int(low)
        most = (int(high) if high else None) if comma else least
        if max(least, most or 0) > MOST_REPETITIONS or (most is not None and most < least):
            raise self._refused(f"repetitions are at most {MOST_REPETITIONS}, the lower bound first")
        return least, most

    def _escape(self) -> Ranges:
        char = self._take()
        if char in CLASSES:
            return CLASSES[char]
        code = CONTROLS.get(char, -1)
        if char in HEXADECIMAL:
            digits = self._source[self._at : self._at + HEXADECIMAL[char]]
            if len(digits) < HEXADECIMAL[char] or not set(digits) <= set("0123456789abcdefABCDEF"):
                raise self._refused(f"'\\{char}' needs {HEXADECIMAL[char]} hexadecimal digits")
            self._at += len(digits)
            code = int(digits, 16)
            if code == 0 or 0xD800 <= code <= 0xDFFF:
                raise self._refused(f"'\\{char}{digits}' is no character of a text")
        elif not (char.isascii() and char.isalnum()) and code < 0:
            code = ord(char)
        if code < 0:
            raise self._refused(
                f"'\\{char}' is not of the subset",
                "There are \\d \\w \\s \\D \\W \\S \\t \\n \\r \\f \\v \\xhh \\uhhhh \\A \\z"
                " and \\ before punctuation.",
            )
        return ((code, code),)

    def _class(self) -> Ranges:
        negated = self._peek() == "^"
        self._at += negated
        found: list[tuple[int, int]] = []
        while (char := self._peek()) != "]" or not found:
            if char == "]":
                raise self._refused("a class is empty", "Write \\] for the character.")
            if char == "[" and self._peek(1) in (":", ".", "="):
                raise self._refused("classes with names are not of the subset", "As in [A-Za-z].")
            found += self._class_part()
        self._at += 1
        ranges = united(found)
        if not negated:
            return ranges
        rest = complement(folded(ranges) if "i" in self._options and ranges[-1][1] < LAST else ranges)
        if not rest:
            raise self._refused("a class is empty")
        return rest

    def _class_part(self) -> Ranges:
        first = self._class_char()
        if self._peek() != "-" or self._peek(1) in ("]", ""):
            return first
        self._at += 1
        last = self._class_char()
        if any(len(part) > 1 or part[0][0] != part[0][1] for part in (first, last)):
            raise self._refused(
                "a range goes from a character to a character", "Write \\- for the character."
            )
        if last[0][0] < first[0][0]:
            raise self._refused("a range ends before it begins")
        return ((first[0][0], last[0][0]),)

    def _class_char(self) -> Ranges:
        char = self._take()
        return self._escape() if char == "\\" else ((ord(char), ord(char)),)
