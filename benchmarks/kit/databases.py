"""Which databases there are to measure on, and how they are left as they were."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from benchmarks.kit.rounds import Row, reason_of
from benchmarks.kit.settings import Settings
from dataflow import DataFlow
from nexus.errors import NexusError

KINDS = ("sqlite", "postgresql", "mysql")


def addresses(folder: Path, wanted: str | None) -> dict[str, str]:
    """URLs by the kind of database: a file in `folder`, and the servers that the tests use. What is not to
    be had is left out; `missing` says so."""
    found = {"sqlite": f"sqlite:///{folder / 'benchmark.db'}"}
    for kind in KINDS[1:]:
        if url := os.environ.get(f"NEXUS_TEST_{kind.upper()}_URL"):
            found[kind] = url
    return {kind: url for kind, url in found.items() if wanted in (None, kind)}


def missing(given: Iterable[str], wanted: str | None) -> list[str]:
    return [kind for kind in KINDS if kind not in given and wanted in (None, kind)]


async def on_each(
    settings: Settings,
    tables: Iterable[str],
    *works: Callable[[Settings, str, str], Awaitable[list[Row]]],
) -> list[Row]:
    """The rows that each of `works` gives for each database, on tables that are not there before and after.
    Where one fails the others go on."""
    rows: list[Row] = []
    tables = tuple(tables)
    for kind, url in settings.databases.items():
        for work in works:
            name = work.__name__.strip("_").replace("_", " ")
            print(f"… {kind}: {name}", file=sys.stderr, flush=True)  # some take minutes
            try:
                await clear(url, tables)
                rows += await work(settings, kind, url)
            except Exception as failure:
                rows.append(Row(kind, name, "", {}, {"ours": reason_of(failure)}))
        with contextlib.suppress(NexusError):  # which was told of already
            await clear(url, tables)
    return rows


async def clear(url: str, tables: Iterable[str]) -> None:
    """Drop these tables, and what is logged of them."""
    db = DataFlow(url)
    try:
        connection = await db.database.pools.writer.take()
        try:
            for table in tables:
                await connection.run(f"DROP TABLE IF EXISTS {table}")
                for sql in (
                    f"DELETE FROM dataflow_changes WHERE model = '{table}'",
                    f"DROP SEQUENCE IF EXISTS {table}_id_seq",
                ):
                    with contextlib.suppress(NexusError):  # there may be none, or no such thing at all
                        await connection.run(sql)
        finally:
            db.database.pools.writer.give(connection)
    finally:
        await db.database.close()
