"""What a request asks beside its arguments, in its headers.

Idempotency-Key: …         the same run for the same key and the same body
Prefer: …                  see prefer.py
"""

from __future__ import annotations

from starlette.types import Scope

from nexus.demands import Demands
from nexus.errors import InvalidInput
from nexus.operation import Effect, Operation
from nexus_channels.rest.prefer import ASYNC, preferences_of

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
    key = _unquoted(keys[0]) if keys else None
    if b"prefer" not in asked:
        return Demands(key=key)
    preferred = preferences_of(scope, asked[b"prefer"])
    background = preferred.background and operation.recorded and recording
    preferred.check(
        *(() if background else (ASYNC,)), *(("return",) if operation.effect is Effect.READ else ())
    )
    preferred.applied("tx")
    preferred.applied("max-affected")
    return Demands(
        key=key,
        background=background,
        dry_run=preferred.dry_run,
        max_affected=preferred.max_affected,
    )


def _asked(scope: Scope) -> dict[bytes, list[str]]:
    """The lines of the headers that ask for something, in one pass over all of them."""
    found: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _ASKING:
            found.setdefault(name, []).append(value.decode("latin-1").strip())
    return found


def _unquoted(key: str) -> str:
    """The draft of the header has it in quotes, most clients send it without."""
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
