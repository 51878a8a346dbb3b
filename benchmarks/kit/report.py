"""Rows as a table for people, as JSON, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.kit.rounds import Row, Spread


def brief(rows: Iterable[Row]) -> Iterator[str]:
    """Who answered rightly; nothing of how quickly."""
    failed: dict[tuple[str, str], int] = {}
    for row in rows:
        yield f"{row.database:<11} {row.name:<42} {row.unit:<11} {', '.join(row.taken)}"
        for each in row.failed.items():
            failed[each] = failed.get(each, 0) + 1
    for (name, reason), count in failed.items():
        yield f"no {name} in {count} rows: {reason}"


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """For a terminal: a row, then how fast ours is for each of the others."""
    for row in rows:
        figures = "  ".join(f"{name} {_number(row.figure(name).median)}" for name in row.taken)
        yield f"{row.database:<11} {row.name:<38} {row.unit:<11} {figures}"
        for other in row.taken:
            if other != "ours" and (ratio := row.ratio(other)) is not None:
                yield f"{'':<11} {'':<38} ours for each of {other}: {said(ratio)}{_promised(row, other)}"
        if own := _promised(row, None):
            yield f"{'':<50} {own.strip()}"
        for name, reason in row.failed.items():
            yield f"{'':<11} {'':<38} {name}: no figure: {reason}"


def said(ratio: Spread) -> str:
    if ratio.scattered:
        return f"no ratio: the rounds scatter from {ratio.low:.2f} to {ratio.high:.2f}"
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _promised(row: Row, against: str | None) -> str:
    for target in row.targets:
        if target.against != against:
            continue
        found = row.ratio(against) if against else row.figure("ours") if "ours" in row.taken else None
        if found is None or (against and found.scattered):
            return f"  target {target}: not measured"
        return f"  target {target}: {'reached' if target.reached(found.median) else 'NOT reached'}"
    return ""


def as_json(area: str, row: Row) -> dict[str, Any]:
    ratios = {other: row.ratio(other) for other in row.taken if other != "ours"}
    return {
        "area": area,
        "database": row.database,
        "name": row.name,
        "unit": row.unit,
        "figures": {name: _spread(row.figure(name)) for name in row.taken},
        "ratios": {other: None if r is None or r.scattered else _spread(r) for other, r in ratios.items()},
        "failed": row.failed,
        "targets": [
            {"against": t.against, "at_least": t.at_least, "at_most": t.at_most} for t in row.targets
        ],
    }


def markdown(rows: list[Row]) -> Iterator[str]:
    """A table: what, each candidate's figure, and ours for each of the others, with its target."""
    names = list(dict.fromkeys(name for row in rows for name in (*row.taken, *row.failed)))
    others = [name for name in names if name != "ours"]
    ratios = [f"ours ÷ {name}" for name in others]
    yield "| " + " | ".join(["database", "what", "unit", *names, *ratios]) + " |"
    yield "|" + " --- |" * (3 + len(names) + len(ratios))
    for row in rows:
        figures = [_number(row.figure(name).median) if name in row.taken else "-" for name in names]
        if own := _promised(row, None):
            figures[names.index("ours")] += f" ({own.strip()})"
        compared = [_cell(row, other) for other in others]
        yield "| " + " | ".join([row.database or "-", row.name, row.unit, *figures, *compared]) + " |"
    for name, reason in {(n, r) for row in rows for n, r in row.failed.items()}:
        yield f"\n{name} gave no figures in some rows: {reason.splitlines()[0]}"


def _cell(row: Row, other: str) -> str:
    ratio = row.ratio(other)
    if ratio is None:
        return "-"
    if ratio.scattered:
        return f"scattered ({ratio.low:.2f}…{ratio.high:.2f})"
    return f"{ratio.median:.2f} ({ratio.low:.2f}…{ratio.high:.2f}){_promised(row, other).replace('  ', '; ')}"


def _spread(value: Spread) -> dict[str, float]:
    return {"median": value.median, "low": value.low, "high": value.high}


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
