"""Empty databases of every kind. The servers' addresses come from `scripts/test`.

Where the tests are shared out among several processes, each has databases of its own, named after it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pymysql
import pytest

DATABASES = ["file", "memory", "postgresql", "mysql", "mysql-without-returning"]

_SERVERS = {"postgresql": "NEXUS_TEST_POSTGRESQL_URL", "mysql": "NEXUS_TEST_MYSQL_URL"}


def empty_database(kind: str, folder: Path) -> str:
    """The URL of a database without any table; skips the test where there is no such server."""
    if kind == "memory":
        return ":memory:"
    if kind == "file":
        return f"sqlite:///{folder / 'test.db'}"
    server = kind.partition("-")[0]
    url = os.environ.get(_SERVERS[server])
    if not url:
        pytest.skip(f"no {server}: {_SERVERS[server]} is not set; run scripts/test")
    url = _own(url)
    if server == "postgresql":
        asyncio.run(_empty_postgresql(url))
        return url
    _empty_mysql(url)
    return url + ("?returning=off" if kind == "mysql-without-returning" else "")


def _own(url: str) -> str:
    """The database of this process: that of the URL, or with pytest-xdist one beside it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    parts = urlsplit(url)
    return url if worker is None else parts._replace(path=f"{parts.path}_{worker}").geturl()


async def _empty_postgresql(url: str) -> None:
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.InvalidCatalogNameError:
        await _make_postgresql(url)
        return
    try:
        for (table,) in await connection.fetch(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        ):
            await connection.execute(f"DROP TABLE {table} CASCADE")
    finally:
        await connection.close()


async def _make_postgresql(url: str) -> None:
    parts = urlsplit(url)
    connection = await asyncpg.connect(parts._replace(path="/postgres").geturl())
    try:
        # From template0, because a cluster made in an old locale is not UTF-8 by default.
        name = parts.path.removeprefix("/")
        await connection.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")
    finally:
        await connection.close()


def _empty_mysql(url: str) -> None:
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    connection = pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password or ""
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
        cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
