"""Who may do what."""

from __future__ import annotations

from collections.abc import Callable

from nexus.errors import Forbidden, Unauthenticated
from nexus.operation import Operation
from nexus.session import ALL, Session

ANYONE = "anyone"
"""The permission of operations that show each session only what is its own."""


class Policy:
    """Checked by the runtime before an operation runs, and by the feed again at each delivery."""

    def __init__(self) -> None:
        self._changed: dict[str, Session | None] = {}
        self._on_change: list[Callable[[], None]] = []

    def change(self, session: Session) -> None:
        """From now on the session of this id is what `session` says, also where it is in use: on open
        connections, in subscriptions."""
        self._changed[session.id] = session
        self._tell()

    def revoke(self, session_id: str) -> None:
        """From now on there is no session of this id, nor any access by it."""
        self._changed[session_id] = None
        self._tell()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever what somebody may do has changed."""
        self._on_change.append(callback)

    def current(self, session: Session) -> Session:
        """The session as it is by now. Raises Unauthenticated for one that has been revoked."""
        if not self._changed:
            return session
        found = self._changed.get(session.id, session)
        if found is None:
            raise Unauthenticated("This session has been revoked.")
        return found

    def check(self, session: Session, operation: Operation) -> None:
        """Raises Forbidden unless the session has the operation's permission, Unauthenticated when it has
        been revoked."""
        if self._changed:
            session = self.current(session)
        scopes = session.scopes
        if ALL not in scopes and operation.permission not in scopes and operation.permission != ANYONE:
            raise Forbidden(
                f"'{session.user}' may not use '{operation.name}'.",
                remedy=f"It needs the permission '{operation.permission}'.",
            )

    def _tell(self) -> None:
        for callback in tuple(self._on_change):
            callback()
