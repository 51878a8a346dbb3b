"""Which database a URL means."""

from __future__ import annotations

from dataflow.dialects.base import Dialect
from dataflow.dialects.sqlite import Sqlite
from nexus.errors import DatabaseUrlError

_LATER = {
    "postgresql": "PostgreSQL",
    "postgres": "PostgreSQL",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
}
_MEMORY = ":memory:"


def dialect_for(url: str) -> Dialect:
    """Raises DatabaseUrlError, which never shows the URL: it may hold a password."""
    if url in (_MEMORY, "sqlite://", f"sqlite:///{_MEMORY}"):
        return Sqlite(None)
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
        return Sqlite(path)
    if engine in _LATER:
        raise DatabaseUrlError(
            f"{_LATER[engine]} is not available yet.", remedy="Use SQLite: sqlite:///path.db"
        )
    raise DatabaseUrlError(
        "This is not the URL of a database that is known here.",
        remedy="Use SQLite: sqlite:///path.db",
    )
