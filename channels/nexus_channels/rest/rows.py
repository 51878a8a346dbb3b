"""Bodies of lines: NDJSON and CSV, as the argument `data` of an operation on many records."""

from __future__ import annotations

import msgspec
from starlette.types import Receive, Scope

from nexus.arguments import UNREADABLE, malformed, pointer
from nexus.errors import InvalidArguments, InvalidInput, Malformed, Problem
from nexus.operation import Operation
from nexus_channels.asgi import query_pairs, read_body
from nexus_channels.rest.csv_rows import rows
from nexus_channels.rest.forms import Form
from nexus_channels.rest.query import arguments_from

_DATA = "data"
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def arguments_of_rows(
    scope: Scope, receive: Receive, limit: int, operation: Operation, row: Operation, form: Form
) -> bytes:
    """The arguments as JSON: the rows of the body, the others from the query. `row` is the operation whose
    arguments are the fields of a row. Raises InvalidArguments or Malformed with the number of the row."""
    others = arguments_from(operation, query_pairs(scope["query_string"]), {})
    if _DATA in others:
        raise InvalidInput("'data' is the body, and cannot stand in the query, too.")
    body = await read_body(scope, receive, limit, rows=True)
    found = _of_csv(body, row) if form == "csv" else _of_lines(body)
    return msgspec.json.encode({**others, _DATA: found})


def _of_lines(body: bytes) -> list[msgspec.Raw]:
    found = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            _object(line)
        except msgspec.ValidationError:
            raise Malformed(f"Line {number} is no JSON object.") from None
        except UNREADABLE as failure:
            raise malformed(failure, of=f"Line {number}") from None
        found.append(msgspec.Raw(line))
    return found


def _of_csv(body: bytes, row: Operation) -> list[dict[str, object]]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8.") from None
    names, found = rows(text)
    row.arguments.check_names(name for name in names if name not in row.managed)
    return [_typed(index, cells, row) for index, cells in enumerate(found)]


def _typed(index: int, cells: dict[str, str], row: Operation) -> dict[str, object]:
    """The cells as values; fields that the platform fills may stand there, and are left out."""
    made: dict[str, object] = {}
    for name, text in cells.items():
        if name in row.managed:
            continue
        try:
            made[name] = row.arguments.from_text(name, text)
        except InvalidArguments as failure:
            problems = [
                Problem(one.code, pointer(_DATA, index) + one.pointer, f"the record {index}: {one.detail}")
                for one in failure.problems
            ]
            raise InvalidArguments(row.name, problems) from None
    return made
