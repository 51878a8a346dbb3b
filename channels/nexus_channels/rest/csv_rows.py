"""CSV (RFC 4180): rows of records as lines, and lines as rows.

A text that a spreadsheet would run as a formula gets an apostrophe in front, which is taken away again when
it is read. An empty cell is null, `""` an empty text. Lists and objects are JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from nexus.errors import Malformed

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_SPECIAL = re.compile(r'[",\r\n]')
_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\r|\n|\Z)')

Record = Any


def header(names: Iterable[str]) -> bytes:
    return _line(_quoted(name) for name in names)


def lines(records: Iterable[Record], names: Sequence[str]) -> bytes:
    """A line for each record, an object or a mapping."""
    return b"".join(_line(_cell(_member(record, name)) for name in names) for record in records)


def _line(cells: Iterable[str]) -> bytes:
    return (",".join(cells) + "\r\n").encode()


def _member(record: Record, name: str) -> object:
    return record.get(name) if isinstance(record, dict) else getattr(record, name)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _quoted(f"'{value}" if _FORMULA.match(value) else value)
    plain = msgspec.to_builtins(value)
    return _quoted(plain if isinstance(plain, str) else msgspec.json.encode(plain).decode())


def _quoted(text: str) -> str:
    if text and not _SPECIAL.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def rows(text: str) -> tuple[list[str], Iterator[dict[str, str]]]:
    """The names in the first line, and by them the cells of each line after it that are not empty. Raises
    Malformed, then or later, with the number of the record in which something is wrong."""
    found = _records(text.removeprefix("\ufeff"))
    names = [cell or "" for cell in next(found, [])]
    if not names or "" in names or len(set(names)) < len(names):
        raise Malformed("The first line of a CSV body names the fields, each once.")
    return names, _named(found, names)


def _named(found: Iterator[list[str | None]], names: list[str]) -> Iterator[dict[str, str]]:
    for number, cells in enumerate(found, 2):
        if cells == [None]:
            continue  # an empty line
        if len(cells) != len(names):
            raise Malformed(f"CSV record {number} has {len(cells)} cells, and the first line {len(names)}.")
        yield {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}


def _records(text: str) -> Iterator[list[str | None]]:
    place, cells = 0, list[str | None]()
    number = 1
    while place < len(text) or cells:
        match = _CELL.match(text, place)
        if match is None:
            raise Malformed(
                f"CSV record {number}: a quotation mark is not closed, or stands inside of a cell."
            )
        quoted, plain, end = match.groups()
        cells.append(
            _unguarded(quoted.replace('""', '"')) if quoted is not None else _unguarded(plain) or None
        )
        place = match.end()
        if end != ",":
            yield cells
            cells, number = [], number + 1


def _unguarded(text: str) -> str:
    return text[1:] if _GUARDED.match(text) else text
