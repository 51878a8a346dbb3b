"""What a channel is: one way in, for one kind of client."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from nexus.config import Settings
from nexus.runtime import Runtime
from nexus.session import Sessions


class Channel(Protocol):
    """A channel that is served over the network.

    A class of this shape under a dotted name, or under the entry point group `nexus.channels`, is all that
    it takes to add one. It is constructed with no arguments.
    """

    name: str
    path: str
    """Where the host mounts it, as in `/api`."""

    def build(self, runtime: Runtime, sessions: Sessions, settings: Settings) -> Any:
        """An ASGI application. It finds the caller's Session in `scope["nexus.session"]`."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Entered while the server runs, for what the channel does beside requests."""

    def hint(self, base_url: str) -> str:
        """One line that says what can be tried on it."""
