"""Where a database server is: a URL taken apart, whatever characters its password has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from dataflow.dialects.tls import SPELLINGS
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
class Settings:
    """How to connect, as it is said beside the URL: `given` to the DataFlow, which must be honoured, and
    found in the `environment`, where it is for all databases and each takes what it knows."""

    given: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def options(self, query: Iterable[tuple[str, str]], known: frozenset[str], owner: str) -> dict[str, str]:
        """With those of a URL, by their usual names. Raises DatabaseUrlError for what is unknown or said in
        two ways, showing no value: passwords are among them."""
        made: dict[str, str] = {}
        for where, pairs in (("The database URL", query), (owner, self.given.items())):
            for spelling, value in pairs:
                name = SPELLINGS.get(spelling, spelling)
                if name not in known:
                    raise DatabaseUrlError(
                        f"{where} has an unknown option '{spelling[:60]}'.", remedy=did_you_mean(name, known)
                    )
                if made.setdefault(name, value) != value:
                    raise DatabaseUrlError(f"'{name}' is given twice, and differs.")
        for spelling, value in self.environment.items():
            name = SPELLINGS.get(spelling, spelling)
            if name in known:
                made.setdefault(name, value)
        return made


NO_SETTINGS = Settings({}, {})


@dataclass(frozen=True, slots=True)
class Address:
    """`options` are those in the URL's query, and beside it. The representation shows no password."""

    host: str
    port: int
    user: str
    password: str | None
    database: str
    options: Mapping[str, str]
    socket: str | None = None

    def __repr__(self) -> str:
        where = self.socket if self.socket is not None else f"{self.host}:{self.port}"
        return f"{self.user}@{where}/{self.database}"


def address_from(
    rest: str, settings: Settings, *, owner: str, port: int, user: str, known: frozenset[str]
) -> Address:
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
    options = settings.options(_pairs(found["query"] or ""), known | {"host", "unix_socket"}, owner)
    host, socket = _place(unquote(found["host"]).strip("[]"), options)
    password = found["password"]
    return Address(
        host=host,
        port=int(found["port"] or port),
        user=unquote(found["user"] or "") or user,
        password=None if password is None else unquote(password),
        database=database,
        options=options,
        socket=socket,
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    """A '+' is a plus sign: these are names of files more often than words."""
    parts = [part.partition("=") for part in query.split("&") if part]
    return [(unquote(name), unquote(value)) for name, _, value in parts]


def _place(host: str, options: dict[str, str]) -> tuple[str, str | None]:
    """A host; or a socket, which is a path."""
    given = [value for value in (options.pop("host", None), options.pop("unix_socket", None)) if value]
    if len(given) > 1 or (given and host and not (given[0].startswith("/") and host == "localhost")):
        raise DatabaseUrlError("The database URL names two places.", remedy="Leave out one of them.")
    if given and given[0].startswith("/"):
        return "localhost", given[0]
    return (given[0] if given else host) or "127.0.0.1", None


def number(address: Address, option: str, default: float) -> float:
    """An option that is a number of seconds or connections."""
    text = address.options.get(option)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= 1_000_000:
        raise DatabaseUrlError(f"The option '{option}' of the database URL must be a positive number.")
    return value
