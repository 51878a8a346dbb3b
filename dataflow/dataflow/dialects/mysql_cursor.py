"""A cursor that takes the server's warnings for what they are."""

from __future__ import annotations

from typing import Any

import aiomysql

from nexus.errors import InvalidFilter

_PATTERN_FAILED = 1139


class Cursor(aiomysql.Cursor):  # type: ignore[misc]
    """A warning that a pattern was given up is an error: the server goes on as if it had not matched. The
    others, about numbers that were shortened on the way to a comparison, tell nobody anything."""

    async def _show_warnings(self, connection: Any) -> None:
        if self._result is not None and self._result.has_next:
            return  # they are those of what came first, and the server would take the question for the next
        for _, code, message in await connection.show_warnings() or ():
            if code == _PATTERN_FAILED:
                raise InvalidFilter(
                    f"The database gave the pattern up on a long text: {message}.",
                    remedy="Anchor the pattern with ^, or use fewer repetitions.",
                )
