"""What is refused before the SDK sees it, on every transport: too large, not JSON."""

from __future__ import annotations

import msgspec

from nexus.arguments import UNREADABLE, malformed
from nexus.errors import Malformed, NexusError

ENVELOPE = 64 * 1024
"""How much larger than the arguments in it a message may be, in bytes."""

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600


def check_json(text: bytes) -> None:
    """Raises Malformed. Stricter than what the SDK would take, and so the same as on the other channels."""
    try:
        msgspec.json.decode(text)
    except UNREADABLE as failure:
        raise malformed(failure, of="The message") from None


def rejection(failure: NexusError) -> dict[str, object]:
    """The JSON-RPC error for a message that could not be read, and whose id is therefore not known."""
    code = _PARSE_ERROR if isinstance(failure, Malformed) else _INVALID_REQUEST
    error = {"code": code, "message": f"{failure.code} {failure}", "data": failure.describe()}
    return {"jsonrpc": "2.0", "id": None, "error": error}
