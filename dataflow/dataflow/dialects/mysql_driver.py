"""The driver's connection and cursor, as we need them."""

from __future__ import annotations

import re
from typing import Any

import aiomysql
from pymysql.constants import CLIENT

from nexus.errors import ConfigurationError, InvalidFilter, InvalidInput, Unavailable

_PATTERN_FAILED = 1139
_TOKEN = re.compile(
    r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`|--(?=\s|$)[^\n]*|\#[^\n]*|/\*.*?\*/|.""",
    re.S,
)
_OLDEST_MARIADB = (10, 7, 0)  # JSON_EQUALS
_OLDEST_MYSQL = (8, 0, 17)  # utf8mb4_0900_bin


def is_mariadb(version: str) -> bool:
    """Which of the two servers it is, of those that can do all that is asked of them. Raises
    ConfigurationError for an older one."""
    mariadb = "MariaDB" in version
    found = re.search(r"(\d+)\.(\d+)\.(\d+)(?=-MariaDB)" if mariadb else r"(\d+)\.(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < (_OLDEST_MARIADB if mariadb else _OLDEST_MYSQL):
        oldest = "MariaDB 10.7" if mariadb else "MySQL 8.0.17"
        raise ConfigurationError(
            f"The database server is too old: {found[0]}.", remedy=f"{oldest} is the oldest that will do."
        )
    return mariadb


def as_bytes(password: str) -> str:
    """A password whose characters the driver, which writes them in Latin-1, sends as UTF-8."""
    return password.encode().decode("latin-1")


def check_single(sql: str) -> None:
    """The server would run several statements at once. Raises InvalidInput for them, and for comments that
    are none to the server."""
    for token in _TOKEN.finditer(sql):
        if (token[0] == ";" and sql[token.end() :].strip()) or token[0].startswith(("/*!", "/*M!")):
            raise InvalidInput("The database cannot read the statement: it takes one at a time.")


class Driver(aiomysql.Connection):  # type: ignore[misc]
    """A connection that shows no password before the server speaks TLS where it must."""

    must_be_secure = False

    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.SSL:
            if self.must_be_secure:
                raise Unavailable("The database server does not offer TLS, which is asked for.")
            self.client_flag &= ~CLIENT.SSL  # the driver would still say that TLS is about to begin
        await super()._request_authentication()


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
