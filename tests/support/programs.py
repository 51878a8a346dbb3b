"""Other programs on a database: they use its driver, and know nothing of us."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pymysql


def kind_of(url: str) -> str:
    return urlsplit(url).scheme if "://" in url else "memory"


async def run_sql(url: str, *statements: str) -> list[Any]:
    """Run statements on a connection of their own; the rows of the last."""
    if kind_of(url) == "postgresql":
        connection = await asyncpg.connect(url)
        try:
            rows: list[Any] = []
            for sql in statements:
                rows = [tuple(row) for row in await connection.fetch(sql)]
            return rows
        finally:
            await connection.close()
    if kind_of(url) == "mysql":
        parts = urlsplit(url)
        with (
            pymysql.connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=parts.username,
                password=parts.password or "",
                database=parts.path.removeprefix("/"),
                autocommit=True,
                charset="latin1",  # as some do
            ) as other,
            other.cursor() as cursor,
        ):
            for sql in statements:
                cursor.execute(sql)
            return list(cursor.fetchall())
    file = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
    try:
        for sql in statements:
            rows = file.execute(sql).fetchall()
        return rows
    finally:
        file.close()


class Program:
    """A connection to a server that is kept, for transactions."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def __aenter__(self) -> Program:
        if kind_of(self._url) == "postgresql":
            self._connection = await asyncpg.connect(self._url)
        else:
            parts = urlsplit(self._url)
            self._connection = pymysql.connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=parts.username,
                password=parts.password or "",
                database=parts.path.removeprefix("/"),
                autocommit=True,
            )
        return self

    async def run(self, *statements: str) -> None:
        for sql in statements:
            if kind_of(self._url) == "postgresql":
                await self._connection.execute(sql)
            else:
                self._connection.cursor().execute(sql)

    async def __aexit__(self, *failure: object) -> None:
        closed = self._connection.close()
        if closed is not None:  # one of the drivers does it at once
            await closed
