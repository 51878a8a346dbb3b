"""What a pattern may cost a matcher that tries one way after the other, and patterns made cheaper.

Refused is what takes such a matcher more than about the square of the text's length: some databases have no
other, and a pattern must not be good on one and give up on the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nexus.errors import InvalidFilter
from nexus.patterns.chars import ANYTHING, NO_NEWLINE, Ranges, united
from nexus.patterns.syntax import Alt, Anchor, Cat, Chars, Node, Repeat

_MOST_POWER = 2
_MOST_WAYS = 64
_SHORT = 8  # repetitions that vary by less count as alternatives


def overlap(one: Ranges, other: Ranges) -> bool:
    i = j = 0
    while i < len(one) and j < len(other):
        if one[i][1] < other[j][0]:
            i += 1
        elif other[j][1] < one[i][0]:
            j += 1
        else:
            return True
    return False


def nullable(node: Node) -> bool:
    match node:
        case Chars():
            return False
        case Cat(parts):
            return all(map(nullable, parts))
        case Alt(parts):
            return any(map(nullable, parts))
        case Repeat(part, low, _):
            return low == 0 or nullable(part)
        case _:
            return True


def first(node: Node) -> Ranges:
    """The characters that a match of the node can begin with."""
    match node:
        case Chars(ranges):
            return ranges
        case Alt(parts):
            return united([each for part in parts for each in first(part)])
        case Repeat(part, _, high):
            return () if high == 0 else first(part)
        case Cat(parts):
            found: list[tuple[int, int]] = []
            for part in parts:
                found += first(part)
                if not nullable(part):
                    break
            return united(found)
        case _:
            return ()


def simplified(node: Node) -> Node:
    """Matches in the same texts: repetitions at either end that can as well be as short as possible are."""
    parts = list(_flat(node))
    if isinstance(node, Alt):
        return node
    while parts and isinstance(parts[-1], Repeat) and parts[-1].high != parts[-1].low:
        parts[-1:] = _flat(_exactly(parts[-1]))
    if len(parts) > 1 and _everything(parts[-2]) and parts[-1] in (Anchor("last"), Anchor("end")):
        return simplified(Cat(tuple(parts[:-2])))
    if len(parts) > 1 and parts[0] == Anchor("start") and _everything(parts[1]):
        return simplified(Cat(tuple(parts[2:])))
    while parts and isinstance(parts[0], Repeat) and parts[0].high is None:
        parts[:1] = _flat(_exactly(parts[0]))
    return Cat(tuple(_split(parts)))


def _everything(node: Node) -> bool:
    return node == Repeat(Chars(ANYTHING), 0, None)


def _exactly(node: Repeat) -> Node:
    if node.low == 0:
        return Cat(())
    return node.part if node.low == 1 else Repeat(node.part, node.low, node.low)


def _flat(node: Node) -> tuple[Node, ...]:
    if not isinstance(node, Cat):
        return (node,)
    return tuple(each for part in node.parts for each in _flat(part))


def _split(parts: list[Node]) -> list[Node]:
    """`.+` as `..*`: the open part then stands alone."""
    done: list[Node] = []
    for part in parts:
        if isinstance(part, Repeat) and part.high is None and part.low and isinstance(part.part, Chars):
            done += [*_flat(_exactly(part)), Repeat(part.part, 0, None)]
        else:
            done.append(part)
    return done


def committed(parts: tuple[Node, ...], at: int) -> int:
    """Where the repetition at `at` may keep the first place at which what follows it fits: the index after
    that, which is again such a repetition. 0 where it may not."""
    gap = parts[at]
    if not isinstance(gap, Repeat) or gap.low or gap.high is not None:
        return 0
    if gap.part not in (Chars(ANYTHING), Chars(NO_NEWLINE)):
        return 0
    for index in range(at + 1, len(parts)):
        if parts[index] == gap:
            return index
        fixed = parts[index]
        inner = fixed.part if isinstance(fixed, Repeat) and fixed.low == fixed.high else fixed
        if not isinstance(inner, Chars):
            return 0
        if gap.part == Chars(NO_NEWLINE) and overlap(inner.ranges, ((10, 10),)):
            return 0
    return 0


@dataclass
class _Cost:
    loops: list[bool] = field(default_factory=list)  # in order; whether where it ends is in doubt
    ways: int = 1

    def add(self, node: Node, after: Ranges, around: Ranges | None) -> None:
        """`after`: what can follow the node. `around`: within a repetition, what can follow within it."""
        match node:
            case Cat(parts):
                self._add_all(parts, after, around)
            case Alt(parts):
                self._choose(parts, after, around)
                for part in parts:
                    self.add(part, after, around)
            case Repeat(part, low, high):
                self._repeat(part, low, high, after, around)

    def _add_all(self, parts: tuple[Node, ...], after: Ranges, around: Ranges | None) -> None:
        kept = 0  # up to here a repetition keeps the place that it found first
        for index, part in enumerate(parts):
            rest = Cat(parts[index + 1 :])
            next_ = first(rest) if not nullable(rest) else united((*first(rest), *after))
            if around is None:
                kept = committed(parts, index) or kept
                if committed(parts, index):
                    self.loops.append(False)
                    continue
                self.add(part, next_, None)
            else:
                inside = first(rest) if not nullable(rest) else united((*first(rest), *around))
                self.add(part, next_, inside)

    def _choose(self, parts: tuple[Node, ...], after: Ranges, around: Ranges | None) -> None:
        seen: Ranges = ()
        doubt = False
        for part in parts:
            begin = first(part)
            if nullable(part):
                begin = united((*begin, *(after if around is None else around)))
            doubt = doubt or overlap(seen, begin)
            seen = united((*seen, *begin))
        if doubt and around is not None:
            raise _explodes("alternatives that begin alike are repeated")
        if doubt:
            self.ways *= len(parts)

    def _repeat(self, part: Node, low: int, high: int | None, after: Ranges, around: Ranges | None) -> None:
        begin = first(part)
        if high is None or high > low:
            if around is not None and overlap(begin, around):
                raise _explodes("a repetition is repeated, and where the inner one ends is in doubt")
            doubt = overlap(begin, after)
            if high is None or high - low >= _SHORT:
                self.loops.append(doubt)
            elif doubt:
                self.ways *= high - low + 1
        if isinstance(part, Chars):
            return
        if high is None or high > 1:
            if nullable(part):
                raise _explodes("what is repeated can be empty")
            self.add(part, united((*begin, *after)), united((*begin, *(around or ()))))
        else:
            self.add(part, after, around)


def _explodes(reason: str) -> InvalidFilter:
    return InvalidFilter(
        f"The pattern could take a very long time: {reason}.",
        remedy="Let each repetition end where something else begins, as in (\\d+,)*\\d+.",
    )


def power(node: Node) -> int:
    """The power of a text's length that matching can take; raises InvalidFilter beyond the square."""
    cost = _Cost()
    cost.add(node, (), None)
    parts = _flat(node)
    anchored = bool(parts) and parts[0] == Anchor("start")
    found = sum(cost.loops[:-1]) + bool(cost.loops) + (bool(cost.loops) and not anchored)
    if found > _MOST_POWER:
        raise _explodes("several repetitions can share out the same text in many ways")
    if cost.ways > _MOST_WAYS:
        raise _explodes(f"its alternatives and optional parts allow more than {_MOST_WAYS} ways")
    return found
