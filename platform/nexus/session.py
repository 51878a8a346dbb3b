"""Who is asking. A session is the same on every channel; a credential is what proves it."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from nexus.errors import Forbidden, Unauthenticated

ALL = "*"


@dataclass(frozen=True, slots=True)
class Session:
    """An identity and what it may do. `scopes` are permissions; `*` is all of them."""

    id: str
    user: str
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    tenant: str | None = None


CHOSEN_TENANT: ContextVar[str | None] = ContextVar("nexus_tenant", default=None)
"""The tenant that trusted code in this process acts for, where its session has none."""


@contextlib.contextmanager
def tenant(name: str) -> Iterator[None]:
    """Act for the tenant `name`: for trusted code in this process, whose session has none. Raises Forbidden
    inside of another tenant's block."""
    if not name or "\0" in name:
        raise ValueError("A tenant has a name.")
    if CHOSEN_TENANT.get() not in (None, name):
        raise Forbidden(f"Inside of the tenant '{CHOSEN_TENANT.get()}' no other can be chosen.")
    token = CHOSEN_TENANT.set(name)
    try:
        yield
    finally:
        CHOSEN_TENANT.reset(token)


LOCAL = Session(id="local", user="local", scopes=frozenset({ALL}))


class Sessions:
    """Resolves credentials. Without an API key there is one local user, who needs none; that is for
    loopback only, and the server refuses to listen elsewhere. With a key, the network must show it."""

    def __init__(self, api_key: str | None = None) -> None:
        self._api_key = api_key.encode() if api_key else None

    @property
    def open(self) -> bool:
        """Whether anyone who can reach the server is let in."""
        return self._api_key is None

    async def resolve(self, credential: str | None) -> Session:
        """The session that `credential` proves; raises Unauthenticated."""
        if self._api_key is None:
            return LOCAL
        if credential is None:
            raise Unauthenticated(
                "This server requires an API key.",
                remedy="Send it as 'Authorization: Bearer …' or 'X-API-Key: …'.",
            )
        if not hmac.compare_digest(credential.encode(), self._api_key):
            raise Unauthenticated("The API key is not valid.")
        return LOCAL
