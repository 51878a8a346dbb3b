"""In which form an answer is wanted and a body has come: JSON always, NDJSON and CSV where there are rows."""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

from starlette.types import Scope

from nexus.arguments import is_json_text
from nexus.errors import NotAcceptable
from nexus.operation import Effect, Operation
from nexus_channels.asgi import headers_of

Form: TypeAlias = Literal["json", "ndjson", "csv"]

NDJSON = "application/x-ndjson"
CSV = "text/csv"
_ROWS: dict[str, Form] = {
    NDJSON: "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    CSV: "csv",
}
_JSON: dict[str, Form] = {"application/json": "json"}
_USUAL = frozenset({b"*/*", b"application/json"})


def streams(operation: Operation) -> bool:
    """Whether all of its records can be sent, page by page."""
    return operation.in_pages


def takes_rows(operation: Operation) -> bool:
    """Whether its records can come as lines."""
    field = operation.arguments.fields.get("data")
    return field is not None and operation.effect is not Effect.READ and is_json_text(field.type)


def form_wanted(scope: Scope, *, rows: bool = False) -> tuple[Form, str]:
    """The form of the answer and its media type; `rows`: there are rows to be sent. Raises NotAcceptable."""
    if headers_of(scope).get(b"accept", b"*/*") in _USUAL:
        return "json", "application/json"
    found = [value for name, value in scope["headers"] if name == b"accept"]
    return _negotiated(b",".join(found), rows)


def rows_form(scope: Scope) -> Form | None:
    """The form in which rows have come; None for a body of any other kind."""
    return _ROWS.get(media_of(scope))


def media_of(scope: Scope) -> str:
    """The media type of a body; empty where none is declared."""
    value = headers_of(scope).get(b"content-type", b"")
    return value.partition(b";")[0].strip().lower().decode("latin-1")


@functools.lru_cache(maxsize=256)
def _negotiated(accept: bytes, rows: bool) -> tuple[Form, str]:
    """Of what is liked as well, JSON (RFC 9110, 12.5.1)."""
    offered = {**_JSON, **_ROWS} if rows else _JSON
    wanted = _qualities(accept.decode("latin-1"))
    best, liked = "", 0.0
    for media in offered:
        quality = _quality(media, wanted)
        if quality > liked:
            best, liked = media, quality
    if not best:
        raise NotAcceptable(
            f"There is no answer in the form '{accept.decode('latin-1')[:80]}'.",
            remedy=f"Accept {' or '.join(dict.fromkeys(offered))}.",
        )
    return offered[best], best


def _qualities(accept: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if media:
            found[media] = quality if 0.0 <= quality <= 1.0 else 0.0
    return found or {"*/*": 1.0}


def _quality(media: str, wanted: dict[str, float]) -> float:
    """Of the range that names it most exactly."""
    for named in (media, media.partition("/")[0] + "/*", "*/*"):
        if named in wanted:
            return wanted[named]
    return 0.0
