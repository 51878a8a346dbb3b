"""Where a database server is: a URL taken apart, whatever characters its password has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from nexus.errors import DatabaseUrlError, did_you_mean

# The password may hold every character, '@' and '/' too: it ends at the last '@' after which a host,
# and nothing but a port, a database and options follow.
_URL = re.compile(
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@/?#\[\]]*)(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<database>[^/?#@]*))?(?:\?(?P<query>[^@]*))?",
    re.S,
)


@dataclass(frozen=True, slots=True)
class Address:
    """`options` are those in the URL's query. The representation shows no password."""

    host: str
    port: int
    user: str
    password: str | None
    database: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


def address_from(rest: str, *, port: int, user: str, known: frozenset[str]) -> Address:
    """What follows `scheme://`. Percent-encoded characters are decoded; a '%' that encodes nothing is one.
    Raises DatabaseUrlError, which never shows the URL."""
    found = _URL.fullmatch(rest)
    if found is None:
        raise DatabaseUrlError(
            "The database URL cannot be read.", remedy="Write scheme://user:password@host:port/database."
        )
    database = unquote(found["database"] or "")
    if not database:
        raise DatabaseUrlError("The database URL names no database.", remedy="Add it: …/name.")
    options = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    for name in options:
        if name not in known:
            raise DatabaseUrlError(
                f"The database URL has an unknown option '{name[:60]}'.", remedy=did_you_mean(name, known)
            )
    password = found["password"]
    return Address(
        host=unquote(found["host"]).strip("[]") or "127.0.0.1",
        port=int(found["port"] or port),
        user=unquote(found["user"] or "") or user,
        password=None if password is None else unquote(password),
        database=database,
        options=options,
    )


def number(address: Address, option: str, default: float) -> float:
    """An option that is a number of seconds or connections."""
    text = address.options.get(option)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if value <= 0:
        raise DatabaseUrlError(f"The option '{option}' of the database URL must be a positive number.")
    return value
