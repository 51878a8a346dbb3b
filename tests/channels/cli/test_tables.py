"""Results as tables."""

from __future__ import annotations

from typing import Any

import pytest

from nexus_channels.cli.output import show
from nexus_channels.cli.program import State

TABLE = State(output="table")


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ({"a": 1, "b": None, "c": {"d": [1, 2]}}, 'field  value\na      1\nb\nc      {"d":[1,2]}\n'),
        ({"records": [{"a": 1}, {"b": 2}], "count": 2, "next": None}, "a  b\n1\n   2\ncount: 2\n"),
        ({"records": [], "count": 0}, "count: 0\n"),
        ([{"a": True}], "a\ntrue\n"),
        ([1, "two", None], "1\ntwo\n\n"),
        ([], ""),
        ("text", "text\n"),
        (3.5, "3.5\n"),
        (None, "\n"),
        ({"a": "[red]x[/red] :smile:"}, "field  value\na      [red]x[/red] :smile:\n"),
        ({"a": "one\ntwo\x1b[2J"}, "field  value\na      one\\ntwo\\x1b[2J\n"),
        ({"a": "日本"}, "field  value\na      日本\n"),
        ([{"a": "日本", "b": 1}, {"a": "x", "b": 2}], "a     b\n日本  1\nx     2\n"),
    ],
)
def test_tables(capsysbinary: pytest.CaptureFixture[bytes], result: Any, shown: str) -> None:
    show(result, TABLE)
    assert capsysbinary.readouterr().out.decode() == shown


def test_wide_cells_are_cut_and_say_so(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    show([{"text": "x" * 500, "n": 1}], TABLE)
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert lines[1] == "x" * 59 + "…  1"


def test_away_from_a_terminal_no_column_is_left_out(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    show([{f"column_{n}": "x" * 40 for n in range(30)}], TABLE)
    header = capsysbinary.readouterr().out.decode().splitlines()[0]
    assert header.split() == [f"column_{n}" for n in range(30)]


def test_json_is_utf_8_whatever_the_terminal(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    show({"a": "日本"}, State(output="json"))
    assert capsysbinary.readouterr().out == '{"a":"日本"}\n'.encode()
