"""The change log in SQLite: its tables, and the triggers that write it.

One writer at a time means that numbers are committed in order: a change's number is its position, and a
number that is rolled back is given again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any

from dataflow.fields import Field, Kind
from dataflow.model import Model

CHANGES = """CREATE TABLE IF NOT EXISTS dataflow_changes (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  model TEXT NOT NULL,
  pk TEXT NOT NULL,
  op TEXT NOT NULL,
  "row" TEXT,
  old TEXT,
  actor TEXT,
  session TEXT,
  run TEXT,
  tenant TEXT,
  request TEXT,
  at TEXT NOT NULL,
  txn TEXT
)"""
HEADS = """CREATE TABLE IF NOT EXISTS dataflow_changes_head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch BLOB NOT NULL,
  floor INTEGER NOT NULL
)"""
FIRST_HEAD = "INSERT OR IGNORE INTO dataflow_changes_head VALUES (1, randomblob(16), 0)"
SYSTEM_TABLES = (CHANGES, HEADS)

_LOOK, _LOOKS = 0.002, 40

CALLER = "nexus_caller"
# On our own connections only: a function in a trigger that lasts would break every other program's writes.
WHO = ("actor", "session", "run", "tenant", "request", "txn")
TXN = WHO.index("txn")


def stamp_sql(columns: Iterable[str]) -> str:
    """What says who made a change, and in which transaction, in a log with these columns: an older one has
    fewer of those of `WHO`."""
    known = set(columns)
    parts = ", ".join(f"{name} = {CALLER}({place})" for place, name in enumerate(WHO) if name in known)
    return f"""CREATE TEMP TRIGGER IF NOT EXISTS nexus_stamp AFTER INSERT ON main.dataflow_changes
BEGIN
  UPDATE dataflow_changes SET {parts} WHERE seq = NEW.seq;
END"""


def completed_sql(columns: Iterable[str]) -> list[str]:
    """What a log with these columns lacks: one that was made before they were kept."""
    known = set(columns)
    return [f"ALTER TABLE dataflow_changes ADD COLUMN {name} TEXT" for name in WHO if name not in known]


def capture_sql(model: Model) -> list[str]:
    triggers = capture_triggers(model)
    drops = [f'DROP TRIGGER IF EXISTS "{name}"' for name in triggers]
    return [*drops, *triggers.values()] if model.changes else drops


def is_captured(model: Model, found: dict[str, str]) -> bool:
    wanted = capture_triggers(model)
    return wanted.items() <= found.items() if model.changes else not wanted.keys() & found.keys()


def capture_triggers(model: Model) -> dict[str, str]:
    """The triggers of a model by name, in the form in which the database keeps them."""
    table = model.table_name
    before, after = _json(model, "OLD"), _json(model, "NEW")
    created = _log(table, "create", "NEW", after, "NULL")
    deleted = _log(table, "delete", "OLD", "NULL", before)
    updated = _log(table, "update", "NEW", after, before)
    moved = f"{deleted} {created}"  # a record under another key is another record
    return {
        _name(table, "create"): _trigger(table, "create", "INSERT", "", created),
        _name(table, "update"): _trigger(table, "update", "UPDATE", "WHEN OLD.id IS NEW.id ", updated),
        _name(table, "move"): _trigger(table, "move", "UPDATE", "WHEN OLD.id IS NOT NEW.id ", moved),
        _name(table, "delete"): _trigger(table, "delete", "DELETE", "", deleted),
    }


def _name(table: str, op: str) -> str:
    return f"dataflow_{table}_{op}"


def _trigger(table: str, op: str, event: str, when: str, body: str) -> str:
    return f'CREATE TRIGGER "{_name(table, op)}" AFTER {event} ON "{table}" {when}BEGIN {body} END'


def _log(table: str, op: str, row: str, after: str, before: str) -> str:
    return (
        'INSERT INTO dataflow_changes (model, pk, op, "row", old, at) VALUES '
        f"('{table}', CAST({row}.id AS TEXT), '{op}', {after}, {before}, "
        "strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));"
    )


def _json(model: Model, row: str) -> str:
    pairs = ", ".join(f"'{field.name}', {_value(field, row)}" for field in model.fields.values())
    return f"json_object({pairs})"


def _value(field: Field, row: str) -> str:
    column = f'{row}."{field.name}"'
    if field.kind is Kind.FLOAT:  # JSON would keep 15 digits; a double needs 17, and here 26 to be exact
        return f"CASE WHEN {column} IS NOT NULL THEN printf('%!.26g', {column}) END"
    if field.kind is Kind.BYTES:  # which JSON cannot hold
        return f"CASE WHEN {column} IS NOT NULL THEN hex({column}) END"
    return column


class SqliteLog:
    """A Log."""

    sealed = False

    def head_sql(self) -> str:
        return """SELECT epoch, n, floor, 0, (SELECT at FROM dataflow_changes WHERE seq = n) FROM (
  SELECT epoch, floor, coalesce((SELECT max(seq) FROM dataflow_changes), floor) AS n
  FROM dataflow_changes_head)"""

    def read_sql(self) -> str:
        return """SELECT seq, model, pk, "row", old, actor, session, run, tenant, request, at, txn
FROM dataflow_changes WHERE seq > ? ORDER BY seq LIMIT ?"""

    async def seal(self, connection: Any) -> None:
        """A change has its position from the beginning."""

    async def begin_sealed(self, connection: Any) -> None:
        await connection.begin(write=False)

    async def is_followed(self, connection: Any) -> bool:
        return False  # and nobody needs to be told

    async def follow(self, connection: Any, reader: str) -> None:
        """Nobody needs to know."""

    async def changed_elsewhere(self, connection: Any, seconds: float) -> None:
        """To look at the file is cheap, and shows nearly every commit; to ask shows every one. The file is
        written a while before its commit is seen: so after a change one asks often."""
        until = time.monotonic() + seconds
        often = 0.0
        while True:
            seen = _glance(connection.wal)  # before asking: what is written meanwhile is then seen, too
            ((version,),) = await connection.fetch("PRAGMA data_version")
            if version != connection.seen_version:
                connection.seen_version = version
                return
            for _ in range(_LOOKS):
                await asyncio.sleep(_LOOK)
                if _glance(connection.wal) != seen:
                    often = time.monotonic() + _LOOK * _LOOKS
                if time.monotonic() < often:
                    break
            if time.monotonic() >= until:
                return

    def extent_sql(self) -> str:
        return """SELECT coalesce(max(seq) - min(seq) + 1, 0), coalesce(86400 * (julianday('now') -
  julianday((SELECT at FROM dataflow_changes ORDER BY seq LIMIT 1))), 0) FROM dataflow_changes"""

    def floor_sql(self) -> str:
        return """UPDATE dataflow_changes_head SET floor = max(floor,
  coalesce((SELECT max(seq) FROM dataflow_changes), 0) - ?,
  coalesce((SELECT seq - 1 FROM dataflow_changes WHERE julianday(at) >= julianday('now') - ? / 86400.0
    ORDER BY seq LIMIT 1), (SELECT max(seq) FROM dataflow_changes), 0))"""

    def clean_sql(self) -> str:
        return """DELETE FROM dataflow_changes WHERE seq IN (SELECT seq FROM dataflow_changes
  WHERE seq <= (SELECT floor FROM dataflow_changes_head) ORDER BY seq LIMIT ?)"""


def _glance(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
