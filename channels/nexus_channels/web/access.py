"""One line of the log for each request: what was asked and what became of it, and nothing that is secret."""

from __future__ import annotations

import logging

import msgspec
from starlette.types import Scope

from nexus.session import Session

logger = logging.getLogger("nexus.access")
_encode = msgspec.json.Encoder().encode


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """`status` 0 says that there was no answer, as the client had gone. The path is told without its query,
    whose values may be anybody's."""
    session: Session | None = scope.get("nexus.session")
    logger.info(
        "%s",
        _encode(
            {
                "method": scope.get("method", "WEBSOCKET"),
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 3),
                "user": None if session is None else session.user,
                "request": scope["nexus.request"],
            }
        ).decode(),
    )
