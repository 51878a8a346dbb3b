"""Patterns written for those who match them: `re` (Python's), `pcre`, and `are` (advanced POSIX)."""

from __future__ import annotations

from dataclasses import dataclass

from nexus.patterns.chars import ANYTHING, LAST, NO_NEWLINE, Ranges, complement
from nexus.patterns.cost import committed
from nexus.patterns.syntax import Alt, Anchor, Cat, Chars, Node, Repeat

_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ") - {"_"}


@dataclass(frozen=True, slots=True)
class Spelling:
    anything: str
    no_newline: str
    anchors: dict[str, str]
    commits: bool  # whether it tries one way after the other, and can be told not to go back


RE = Spelling(
    "(?s:.)",
    r"[^\n]",
    {
        "start": r"\A",
        "end": r"\Z",
        "last": r"(?=\n?\Z)",
        "line_start": r"(?:\A|(?<=\n))",
        "line_end": r"(?=\n|\Z)",
    },
    commits=True,
)
PCRE = Spelling(
    "(?s:.)",
    r"[^\n]",
    {
        "start": r"\A",
        "end": r"\z",
        "last": r"(?=\n?\z)",
        "line_start": r"(?:\A|(?<=\n))",
        "line_end": r"(?=\n|\z)",
    },
    commits=True,
)
ARE = Spelling(
    ".",
    r"[^\n]",
    {
        "start": r"\A",
        "end": r"\Z",
        "last": r"(?=\n?\Z)",
        "line_start": r"(?:\A|(?<=\n))",
        "line_end": r"(?=\n|\Z)",
    },
    commits=False,
)


def spelt(node: Node, spelling: Spelling) -> str:
    return f"(?:{_spelt(node, spelling)})"  # nobody may take its beginning for an option


def _spelt(node: Node, spelling: Spelling) -> str:
    match node:
        case Chars(ranges):
            return _chars(ranges, spelling)
        case Alt(parts):
            return "(?:" + "|".join(_spelt(part, spelling) for part in parts) + ")"
        case Repeat(Chars() as part, low, high):
            return _spelt(part, spelling) + _bounds(low, high)
        case Repeat(part, low, high):
            return f"(?:{_spelt(part, spelling)}){_bounds(low, high)}"
        case Cat(parts):
            return _sequence(parts, spelling)
        case Anchor(kind):
            return spelling.anchors[kind]


def _sequence(parts: tuple[Node, ...], spelling: Spelling) -> str:
    done, at = "", 0
    while at < len(parts):
        until = committed(parts, at) if spelling.commits else 0
        if until:
            fixed = "".join(_spelt(part, spelling) for part in parts[at + 1 : until])
            done += f"(?>{_spelt(parts[at], spelling)}?{fixed})"
        else:
            done += _spelt(parts[at], spelling)
        at = until or at + 1
    return done


def _bounds(low: int, high: int | None) -> str:
    if high is None:
        return "*" if low == 0 else f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


def _chars(ranges: Ranges, spelling: Spelling) -> str:
    if ranges == ANYTHING:
        return spelling.anything
    if ranges == NO_NEWLINE:
        return spelling.no_newline
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _char(ranges[0][0])
    if ranges[-1][1] == LAST:
        return f"[^{_class(complement(ranges))}]"
    return f"[{_class(ranges)}]"


def _class(ranges: Ranges) -> str:
    return "".join(
        _char(low) if low == high else f"{_char(max(low, 1))}-{_char(high)}" for low, high in ranges
    )


def _char(code: int) -> str:
    char = chr(code)
    if char == "\n":
        return r"\n"
    return f"\\{char}" if char in _PUNCTUATION else char
