"""Who may do what."""

from __future__ import annotations

from nexus.errors import Forbidden
from nexus.operation import Operation
from nexus.session import ALL, Session

ANYONE = "anyone"
"""The permission of operations that show each session only what is its own."""


class Policy:
    """Checked by the runtime before an operation runs, and by the feed again at each delivery."""

    def check(self, session: Session, operation: Operation) -> None:
        """Raises Forbidden unless the session has the operation's permission."""
        scopes = session.scopes
        if ALL not in scopes and operation.permission not in scopes and operation.permission != ANYONE:
            raise Forbidden(
                f"'{session.user}' may not use '{operation.name}'.",
                remedy=f"It needs the permission '{operation.permission}'.",
            )
