"""What the change log must be able to do in a database, and what a change says of who made it."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, TypeAlias

from nexus.call import Call

LEASE_SECONDS = 5
"""How long a reader counts as there after it has said so; it says so once a second."""
SEALED_AT_ONCE = 5_000
"""About so many changes get their positions in one transaction: more where a transaction has made more, or of
a log that is long, a part."""
PARTS = 8
"""In so many parts at most is sealed what has waited: to seal one, all that waits is looked at."""

SEPARATOR = "\x1f"
_LONGEST = 255


class Log(Protocol):
    """The change log of a database: how it is read, sealed, followed and kept small.

    `sealed`: a change has no position until it is sealed, after its commit, since changes are not
    committed in the order of their numbers (`seq`).

    What is sealed gets its positions in the order of the last number of its transaction, and within that of
    its own number. So the changes of a transaction stand together, and those of a record in the order in
    which they were made: a transaction takes the number of a change while it holds the record, until its end.
    Let T change a record after S has. It has waited for the end of S, so the number of that change is higher
    than every number of S; the last number of T is no lower, and T comes after S. (The first number would not
    do: T may have changed something else before S began.) And S is seen wherever T is seen, hence sealed no
    later. A transaction becomes visible at once, so none is divided between two sealings. Where only those
    are sealed that end up to some number, S ends before T does, and is among them if T is.
    """

    sealed: bool

    def head_sql(self) -> str:
        """Gives one row: epoch, position, floor, whether a change that is seen has no position yet, and the
        moment of the change at the position."""

    def read_sql(self) -> str:
        """From position, up to a limit: pos, table, key, row, old, actor, session, run, tenant, request,
        at, transaction."""

    async def seal(self, connection: Any) -> None:
        """Give every committed change its position, and tell those who listen."""

    async def begin_sealed(self, connection: Any) -> None:
        """Begin a transaction that sees one state of the database, in which every change has its position.
        It keeps others from sealing until it ends."""

    async def is_followed(self, connection: Any) -> bool:
        """Whether somebody, in any process, waits for changes to be sealed."""

    async def follow(self, connection: Any, reader: str) -> None:
        """Say that `reader` waits for changes, for LEASE_SECONDS."""

    async def changed_elsewhere(self, connection: Any, seconds: float) -> None:
        """Return when another connection has written, or after so many seconds."""

    def extent_sql(self) -> str:
        """Gives one row: how many changes there are, roughly, and the age of the oldest in seconds."""

    def floor_sql(self) -> str:
        """From a number of changes and an age in seconds: raise the floor so that no more and no older ones
        than that are above it."""

    def clean_sql(self) -> str:
        """Delete some of the changes up to the floor, at most a given number."""


Identity: TypeAlias = tuple[str, str, str, str, str]

NOBODY: Identity = ("", "", "", "", "")


def identity(caller: Call | None) -> Identity:
    """Actor, session, run, tenant and request as the log keeps them; empty where there is none."""
    if caller is None:
        return NOBODY
    session = caller.session
    return (
        _clean(session.user),
        _clean(session.id),
        _clean(caller.run_id),
        _clean(session.tenant),
        _clean(caller.request),
    )


def identity_text(caller: Call | None) -> str:
    return SEPARATOR.join(identity(caller))


def fingerprint(*texts: str) -> str:
    """Tells whether what is in a database was made from these texts."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def bounded(name: str, longest: int = 63) -> str:
    """A name that every database takes, and that belongs to nothing else."""
    return name if len(name) <= longest else f"{name[: longest - 17]}_{fingerprint(name)}"


def _clean(text: str | None) -> str:
    if not text:
        return ""
    if SEPARATOR in text or "\0" in text:
        text = text.replace(SEPARATOR, "?").replace("\0", "?")
    return text[:_LONGEST]
