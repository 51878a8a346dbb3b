"""What a request asks beside its arguments, in its headers.

Idempotency-Key: …         the same run for the same key and the same body
Prefer: respond-async      do not wait for the run (RFC 7240)
"""

from __future__ import annotations

from starlette.types import Scope

from nexus.demands import Demands
from nexus.errors import InvalidInput
from nexus.operation import Operation

ASYNC = "respond-async"

_ASKING = frozenset({b"idempotency-key", b"prefer"})


def demands_of(scope: Scope, operation: Operation, *, recording: bool) -> Demands | None:
    """Raises InvalidInput for more than one key. A preference that cannot be honoured, as runs of this
    operation are not recorded, is left aside, which its RFC allows."""
    asked = _asked(scope)
    if not asked:
        return None
    keys = asked.get(b"idempotency-key", [])
    if len(keys) > 1:
        raise InvalidInput("There is more than one Idempotency-Key.")
    background = ASYNC in _preferences(asked) and operation.recorded and recording
    if not keys and not background:
        return None
    return Demands(key=_unquoted(keys[0]) if keys else None, background=background)


def _asked(scope: Scope) -> dict[bytes, list[str]]:
    """The lines of the headers that ask for something, in one pass over all of them."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _ASKING:
            found.setdefault(name, []).append(value.decode("latin-1").strip())
    return found


def _preferences(asked: dict[bytes, list[str]]) -> set[str]:
    lines = ",".join(asked.get(b"prefer", ()))
    return {part.partition(";")[0].strip().lower() for part in lines.split(",")}


def _unquoted(key: str) -> str:
    """The draft of the header has it in quotes, most clients send it without."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
