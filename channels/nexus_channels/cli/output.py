"""Results on stdout: JSON for programs, tables for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from nexus_channels.cli.program import State

if TYPE_CHECKING:
    from rich.console import Console

BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended
_CELL = 60
_NARROWEST = 10
_GAP = 2


def show(result: object, state: State) -> None:
    """Write a result in the form that was asked for: by default a table on a terminal, JSON elsewhere."""
    form = state.output or ("table" if sys.stdout.isatty() else "json")
    encoded = msgspec.json.encode(result)
    if form == "table":
        write(_table(msgspec.json.decode(encoded)).encode(errors="replace"))
    else:
        write((msgspec.json.format(encoded, indent=2) if sys.stdout.isatty() else encoded) + b"\n")


def write(data: bytes) -> None:
    """To stdout, at once. When nobody reads it any more the program ends, and says nothing."""
    stream = sys.stdout.buffer
    try:
        rest = memoryview(data)
        while rest:  # unbuffered, as PYTHONUNBUFFERED makes it, stdout may take a part only
            rest = rest[stream.write(rest) :]
        stream.flush()
    except BrokenPipeError:
        # What is left in the buffer would be written, and fail again, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(BROKEN_PIPE) from None


def _table(result: Any) -> str:
    """`result` as JSON values have it: lists as rows, one object as a row for each field."""
    if isinstance(result, Mapping) and isinstance(result.get("records"), list):
        rest = {key: value for key, value in result.items() if key != "records"}
        return _rows(result["records"], rest)
    if isinstance(result, list):
        return _rows(result, {})
    if isinstance(result, Mapping):
        return _draw(["field", "value"], [[str(key), _cell(value)] for key, value in result.items()])
    return _cell(result) + "\n"


def _rows(records: list[Any], rest: Mapping[str, Any]) -> str:
    if not all(isinstance(record, Mapping) for record in records):
        return "".join(_cell(record) + "\n" for record in records)
    columns = list(dict.fromkeys(key for record in records for key in record))
    drawn = _draw(columns, [[_cell(record.get(key)) for key in columns] for record in records])
    said = ", ".join(f"{key}: {_cell(value)}" for key, value in rest.items() if value is not None)
    return drawn + (said + "\n" if said else "")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    # A record may hold anything, and must not be able to drive the terminal.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _draw(columns: list[str], rows: list[list[str]]) -> str:
    if not columns:
        return ""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = _widths(columns, rows, console)
    bold = "" if console.no_color else "bold"
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style=bold)
    for name, width in zip(columns, widths, strict=False):
        table.add_column(Text(_cell(name)), max_width=width, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row[: len(widths)]))
    console.width = max(console.width, sum(widths) + _GAP * len(widths))
    with console.capture() as captured:
        console.print(table)
    hidden = columns[len(widths) :]
    said = f"(not shown: {', '.join(hidden)}; -o json shows everything)\n" if hidden else ""
    drawn = "".join(line.rstrip() + "\n" for line in captured.get().splitlines())
    return drawn + said


def _widths(columns: list[str], rows: Iterable[list[str]], console: Console) -> list[int]:
    """How wide the columns are, of as many as fit."""
    from rich.cells import cell_len

    table = [columns, *rows]
    wanted = [min(_CELL, max(cell_len(row[i]) for row in table)) for i in range(len(columns))]
    if not console.is_terminal:
        return wanted
    room = console.width
    shown: list[int] = []
    for width in wanted:
        needed = min(width, _NARROWEST) + _GAP
        if shown and needed > room:
            break
        room -= needed
        shown.append(min(width, _NARROWEST))
    # What is left over goes to those that are cut, from the left.
    for i, width in enumerate(wanted[: len(shown)]):
        more = min(width - shown[i], max(room, 0))
        shown[i] += more
        room -= more
    return shown
