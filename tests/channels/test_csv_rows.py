"""CSV: what is written is read again, and no spreadsheet runs it."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexus.errors import Malformed
from nexus_channels.rest.csv_rows import header, lines, rows

TEXTS = st.text(alphabet=st.sampled_from("ab,\"'=+-@\t\r\n é"), max_size=6)
RECORDS = st.lists(st.fixed_dictionaries({"a": st.none() | TEXTS, "b": st.none() | TEXTS}), max_size=4)


def _written(records: list[dict[str, Any]]) -> str:
    return (header(("a", "b")) + lines(records, ("a", "b"))).decode()


@given(RECORDS)
@example([{"a": "", "b": None}, {"a": "'=x", "b": "'"}])
def test_texts_come_back(records: list[dict[str, Any]]) -> None:
    names, found = rows(_written(records))
    assert names == ["a", "b"]
    back = [{"a": None, "b": None} | row for row in found]
    assert back == records


@given(RECORDS)
def test_another_reader_sees_the_same_cells_and_no_formula(records: list[dict[str, Any]]) -> None:
    read = list(csv.reader(io.StringIO(_written(records), newline="")))[1:]
    assert len(read) == len(records)
    for cells, record in zip(read, records, strict=True):
        for cell, value in zip(cells, (record["a"], record["b"]), strict=True):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert cell in (value or "", f"'{value}")


def test_only_texts_are_guarded() -> None:
    assert lines([{"a": -5, "b": -0.5}], ("a", "b")) == b"-5,-0.5\r\n"
    assert lines([{"a": "-5", "b": True}], ("a", "b")) == b"'-5,true\r\n"
    assert lines([{"a": [1, "x"], "b": {"k": None}}], ("a", "b")) == b'"[1,""x""]","{""k"":null}"\r\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "first line"),
        ("a,a\n1,2\n", "first line"),
        ("a,\n1,2\n", "first line"),
        ("a,b\n1\n", "record 2 has 1 cells"),
        ("a,b\n1,2\n1,2,3\n", "record 3 has 3 cells"),
        ('a,b\n"1,2\n', "record 2"),
        ('a,b\n1"x,2\n', "record 2"),
    ],
)
def test_what_is_no_csv_is_refused_with_its_place(text: str, named: str) -> None:
    with pytest.raises(Malformed, match=named):
        list(rows(text)[1])


def test_lines_end_as_they_like() -> None:
    for end in ("\n", "\r\n", "\r"):
        names, found = rows(f"\ufeffa,b{end}1,2{end}{end}3,4")
        assert (names, list(found)) == (["a", "b"], [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}])
