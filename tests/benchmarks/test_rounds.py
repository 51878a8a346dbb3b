"""What the benchmarks say of rounds, and above all what they refuse to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kit import document, report
from benchmarks.kit.rounds import Figures, Row, Target, in_turns


def row(ours: list[float], floor: list[float], unit: str = "µs", *targets: Target) -> Row:
    return Row("-", "something", unit, {"floor": floor, "ours": ours}, targets=targets)


def test_a_ratio_says_how_fast_ours_is() -> None:
    took_twice_as_long = row([20.0, 22.0, 18.0], [10.0, 11.0, 9.0])
    assert took_twice_as_long.ratio("floor").median == 0.5  # type: ignore[union-attr]
    did_half_as_many = row([10.0, 11.0, 9.0], [20.0, 22.0, 18.0], "requests/s")
    assert did_half_as_many.ratio("floor").median == 0.5  # type: ignore[union-attr]


def test_drift_of_the_machine_is_no_scatter() -> None:
    drifting = row([20.0, 40.0, 80.0], [10.0, 20.0, 40.0])
    assert not drifting.ratio("floor").scattered  # type: ignore[union-attr]


def test_rounds_that_scatter_give_no_ratio_and_reach_no_target() -> None:
    scattered = row([10.0, 40.0, 10.0, 40.0], [10.0, 10.0, 10.0, 10.0], "µs", Target("floor", 0.2))
    text = "\n".join(report.lines([scattered]))
    assert "no ratio: the rounds scatter from 0.25 to 1.00" in text
    assert "not measured" in text
    assert "reached" not in text
    assert report.as_json("area", scattered)["ratios"] == {"floor": None}
    assert "scattered" in "\n".join(report.markdown([scattered]))


@pytest.mark.parametrize(("at_least", "verdict"), [(0.4, "reached"), (0.6, "NOT reached")])
def test_targets(at_least: float, verdict: str) -> None:
    half = row([20.0, 20.0], [10.0, 10.0], "µs", Target("floor", at_least))
    assert f"target ≥ {at_least}: {verdict}" in "\n".join(report.lines([half]))


async def test_candidates_take_turns_and_a_failing_one_ends_nothing() -> None:
    order: list[str] = []

    def candidate(name: str) -> Figures:
        order.append(name)
        if name == "broken" and order.count(name) == 2:
            raise ValueError("no more")
        return {"µs": float(len(order))}

    names = ("a", "b", "broken")
    (found,) = await in_turns("-", "x", {n: lambda n=n: candidate(n) for n in names}, rounds=3)
    assert order == ["broken", "b", "a", "a", "b", "broken", "b", "a", "a", "b"]
    assert {name: len(values) for name, values in found.taken.items()} == {"a": 3, "b": 3}
    assert found.failed["broken"].startswith("ValueError: no more")


def test_tables_are_put_between_their_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "performance.md"
    place.write_text("before\n<!-- http -->\nold\n<!-- /http -->\nafter\n")
    monkeypatch.setattr(document, "PLACE", place)
    document.write("http", [row([20.0, 20.0], [10.0, 10.0])])
    text = place.read_text()
    assert text.startswith("before\n<!-- http -->\n")
    assert text.endswith("<!-- /http -->\nafter\n")
    assert "| - | something | µs | 10.0 | 20.0 | 0.50 (0.50…0.50) |" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="no place"):
        document.write("other", [])
