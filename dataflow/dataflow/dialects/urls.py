"""Which database a URL means."""

from __future__ import annotations

from dataflow.dialects.address import NO_SETTINGS, Settings
from dataflow.dialects.base import Dialect
from dataflow.dialects.mysql import mysql_from
from dataflow.dialects.postgresql import postgresql_from
from dataflow.dialects.sqlite import sqlite_from
from nexus.errors import DatabaseUrlError

_MEMORY = ":memory:"
_KNOWN = "As in sqlite:///path.db, postgresql://user@host/name or mysql://user@host/name."


def dialect_for(url: str, settings: Settings = NO_SETTINGS) -> Dialect:
    """Raises DatabaseUrlError, which never shows the URL: it may hold a password."""
    if url in (_MEMORY, "sqlite://", f"sqlite:///{_MEMORY}"):
        return sqlite_from(None, settings)
    scheme, separator, rest = url.partition("://")
    engine = scheme.partition("+")[0].lower()
    if separator and engine == "sqlite":
        if not rest.startswith("/") or rest == "/":
            raise DatabaseUrlError(
                "A SQLite URL has three slashes and a path.",
                remedy="sqlite:///relative.db or sqlite:////absolute/path.db",
            )
        path, _, query = rest[1:].partition("?")
        if query:
            raise DatabaseUrlError(f"SQLite URLs take no options here, and this one has '{query[:60]}'.")
        return sqlite_from(path, settings)
    if separator and engine in ("postgresql", "postgres"):
        return postgresql_from(rest, settings)
    if separator and engine in ("mysql", "mariadb"):
        return mysql_from(rest, settings, mariadb=engine == "mariadb")
    raise DatabaseUrlError("This is not the URL of a database that is known here.", remedy=_KNOWN)
