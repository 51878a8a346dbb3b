"""The change log in MariaDB and MySQL: its tables, the triggers that write it, and the sealing.

Who makes a change, and in which transaction, is in six variables of the connection. They outlive a statement,
and so the connection sets them, in front of the statement and on the same way, whenever they hold something
else than what they should. A trigger can find out nothing of the transaction that it runs in: where a program
does not say it, each of its statements counts as one.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

from dataflow.dialects.base import Codec
from dataflow.dialects.log import LEASE_SECONDS, NOBODY, PARTS, SEALED_AT_ONCE, Identity, bounded
from dataflow.dialects.values import decimal_from, json_reader
from dataflow.fields import Field, Kind
from dataflow.model import Model

_QUICK, _SLOW = 0.002, 0.05
_CALMING = 20  # of the time that nothing has happened, the part that one waits before looking again

_TABLE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
# The check keeps a record whose JSON the server could not write from being logged as none.
_CHANGES = f"""CREATE TABLE IF NOT EXISTS dataflow_changes (
  seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  pos BIGINT,
  model VARCHAR(64) NOT NULL,
  pk VARCHAR(300) NOT NULL,
  op VARCHAR(6) NOT NULL,
  tenant VARCHAR(255),
  actor VARCHAR(255),
  session VARCHAR(255),
  run VARCHAR(255),
  request VARCHAR(255),
  `row` LONGTEXT,
  old LONGTEXT,
  at DATETIME(6) NOT NULL,
  txn VARCHAR(64),
  UNIQUE KEY (pos),
  CHECK ((op = 'delete' OR `row` IS NOT NULL) AND (op = 'create' OR old IS NOT NULL))
) {_TABLE}"""
_HEAD = f"""CREATE TABLE IF NOT EXISTS dataflow_changes_head (
  id INT PRIMARY KEY,
  epoch BINARY(16) NOT NULL,
  n BIGINT NOT NULL,
  floor BIGINT NOT NULL
) {_TABLE}"""
_FIRST_HEAD = (
    "INSERT IGNORE INTO dataflow_changes_head VALUES (1,"
    " UNHEX(LEFT(SHA2(CONCAT(UUID(), RAND(), RAND(), NOW(6), CONNECTION_ID()), 256), 32)), 0, 0)"
)
_READERS = f"""CREATE TABLE IF NOT EXISTS dataflow_changes_readers (
  id VARCHAR(64) PRIMARY KEY,
  until DATETIME(6) NOT NULL
) {_TABLE}"""
SYSTEM = (_CHANGES, _HEAD, _FIRST_HEAD, _READERS)

FOUND = (
    "SELECT trigger_name, action_statement FROM information_schema.triggers"
    " WHERE event_object_table = %s AND event_object_schema = database()"
)
# To a log that was made before they were kept.
_ADDED = {"request": "VARCHAR(255) AFTER run", "txn": "VARCHAR(64)"}
WHO = ("@nexus_actor", "@nexus_session", "@nexus_run", "@nexus_tenant", "@nexus_request")
Signature: TypeAlias = tuple[Identity, str]
UNSIGNED: Signature = (NOBODY, "")
_TXN = "COALESCE(LEFT(@nexus_txn, 64), CONCAT(CONNECTION_ID(), '.', UNIX_TIMESTAMP(NOW(6))))"
_UPDATED_AT_ONCE = 500

_MOMENT = "DATE_FORMAT(at, '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')"
_QUIET = re.compile(
    r"\s*(?:SELECT|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|DO|SHOW|CREATE|ALTER|DROP)\b", re.IGNORECASE
)


async def make_system(connection: Any) -> None:
    """Make the log's own tables if they are missing. To make sure by trying could wait for every transaction
    that has written."""
    ((tables,),) = await connection.fetch(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = database()"
        " AND table_name IN ('dataflow_changes', 'dataflow_changes_head', 'dataflow_changes_readers')"
    )
    ((heads,),) = (
        await connection.fetch("SELECT COUNT(*) FROM dataflow_changes_head") if tables == 3 else [(0,)]
    )
    if not heads:
        for sql in SYSTEM:
            await connection.run(sql)
    found = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = database()"
        " AND table_name = 'dataflow_changes'"
    )
    kept = {name for (name,) in found}
    for name, kind in _ADDED.items():
        if name not in kept:
            await connection.run(f"ALTER TABLE dataflow_changes ADD COLUMN {name} {kind}")


def may_write(sql: str) -> bool:
    """Whether a statement may make triggers run."""
    return _QUIET.match(sql) is None


def signature(signed: Signature, before: Signature | None, escape: Callable[[str], str]) -> str:
    """What tells it to the triggers, as text that can precede a statement: who makes it, and in which
    transaction, empty outside of one. `before` is what they take it for, where that is known."""
    who, txn = signed
    changed = [
        f"{name} = {escape(text) if text else 'NULL'}"
        for place, (name, text) in enumerate(zip(WHO, who, strict=True))
        if before is None or before[0][place] != text
    ]
    if before is None or before[1] != txn:
        changed.append(f"@nexus_txn = {escape(txn) if txn else 'NULL'}")
    return f"SET {', '.join(changed)}; "


def bodies(model: Model) -> dict[str, str]:
    """The triggers of a model: their names, and what they do."""
    new, old = _record(model, "NEW"), _record(model, "OLD")
    table = model.table_name
    created = _log(table, "create", "NEW", new, "NULL")
    deleted = _log(table, "delete", "OLD", "NULL", old)
    updated = _log(table, "update", "NEW", new, old)
    changed = (  # a record under another key is another record
        f"BEGIN IF OLD.id <=> NEW.id THEN {updated}; ELSE {deleted}; {created}; END IF; END"
    )
    made = {"insert": created, "update": changed, "delete": deleted}
    return {_name(table, event): body for event, body in made.items()}


def capture_sql(model: Model, *, mariadb: bool) -> list[str]:
    made: list[str] = []
    for (name, body), event in zip(bodies(model).items(), ("INSERT", "UPDATE", "DELETE"), strict=True):
        replaced = mariadb and model.changes  # without a moment in which nothing would be logged
        if not replaced:
            made.append(f"DROP TRIGGER IF EXISTS `{name}`")
        if model.changes:
            create = "CREATE OR REPLACE TRIGGER" if replaced else "CREATE TRIGGER"
            made.append(f"{create} `{name}` AFTER {event} ON `{model.table_name}` FOR EACH ROW {body}")
    return made


def is_captured(model: Model, found: dict[str, str]) -> bool:
    wanted = bodies(model)
    return wanted.items() <= found.items() if model.changes else not wanted.keys() & found.keys()


def _name(table: str, event: str) -> str:
    return bounded(f"dataflow_{event}_{table}")


def _log(table: str, op: str, row: str, after: str, before: str) -> str:
    who = ", ".join(f"LEFT({name}, 255)" for name in WHO)
    return (
        "INSERT INTO dataflow_changes (model, pk, op, `row`, old, actor, session, run, tenant, request, at,"
        f" txn) VALUES ('{table}', CAST({row}.id AS CHAR), '{op}', {after}, {before}, {who},"
        f" UTC_TIMESTAMP(6), {_TXN})"
    )


def _record(model: Model, row: str) -> str:
    pairs = ", ".join(f"'{field.name}', {_value(field, row)}" for field in model.fields.values())
    return f"JSON_OBJECT({pairs})"


def _value(field: Field, row: str) -> str:
    column = f"{row}.`{field.name}`"
    if field.kind in (Kind.INTEGER, Kind.BOOLEAN):
        return column
    if field.kind is Kind.BYTES:
        column = f"HEX({column})"
    elif field.kind is Kind.JSON:  # as text: the two servers would embed it in different ways
        column = f"CONCAT({column}, '')"
    # The numbers as text, too: JSON would keep fewer digits. All in one collation, or they do not mix.
    return f"CAST({column} AS CHAR) COLLATE utf8mb4_bin"


def _utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


_FROM_LOG: dict[Kind, Any] = {
    Kind.BOOLEAN: bool,
    Kind.FLOAT: float,
    Kind.DATETIME: _utc,
    Kind.DATE: datetime.date.fromisoformat,
    Kind.TIME: datetime.time.fromisoformat,
    Kind.DECIMAL: decimal_from,
    Kind.UUID: uuid.UUID,
    Kind.BYTES: bytes.fromhex,
}


def logged(field: Field, codec: Codec) -> Codec:
    """A codec that knows the log's form, too."""
    from_log = json_reader(field) if field.kind is Kind.JSON else _FROM_LOG.get(field.kind)
    return Codec(codec.encode, codec.decode, from_log)


class MysqlLog:
    """A Log. Nobody is told of new changes here: one looks, often while there are some."""

    sealed = True

    def head_sql(self) -> str:
        return (
            "SELECT epoch, n, floor, EXISTS (SELECT 1 FROM dataflow_changes WHERE pos IS NULL),"
            f" (SELECT {_MOMENT} FROM dataflow_changes WHERE pos = n) FROM dataflow_changes_head"
        )

    def read_sql(self) -> str:
        return (
            f"SELECT pos, model, pk, `row`, old, actor, session, run, tenant, request, {_MOMENT}, txn"
            " FROM dataflow_changes WHERE pos > %s ORDER BY pos LIMIT %s"
        )

    async def seal(self, connection: Any) -> None:
        while True:
            ((first, latest),) = await connection.fetch(
                "SELECT MIN(seq), MAX(seq) FROM dataflow_changes WHERE pos IS NULL"
            )
            if first is None:
                return
            bound = first + max(SEALED_AT_ONCE, (latest - first) // PARTS)
            await connection.begin(write=True, isolation="read_committed")
            try:
                await self._seal(connection, bound)
                await connection.commit()
            except BaseException:
                await connection.rollback()
                raise
            if bound >= latest:
                return

    async def begin_sealed(self, connection: Any) -> None:
        await connection.begin(write=True, isolation="repeatable_read")
        await self._seal(connection, None)

    async def _seal(self, connection: Any, bound: int | None) -> None:
        """Seal the transactions that end up to `bound`, or all when none does. Locks the head first, so that
        what is read next is what was committed until then; reads without locks, so that no writer is waited
        for."""
        ((last,),) = await connection.fetch("SELECT n FROM dataflow_changes_head FOR UPDATE")
        ordered = await self._in_order(connection, bound)
        if not ordered and bound is not None:
            ordered = await self._in_order(connection, None)
        for begin in range(0, len(ordered), _UPDATED_AT_ONCE):
            listed = ", ".join(map(str, ordered[begin : begin + _UPDATED_AT_ONCE]))
            await connection.run(
                f"UPDATE dataflow_changes SET pos = {last + begin} + FIELD(seq, {listed})"
                f" WHERE seq IN ({listed})"
            )
        if ordered:
            await connection.fetch("UPDATE dataflow_changes_head SET n = %s", (last + len(ordered),))

    async def _in_order(self, connection: Any, bound: int | None) -> list[int]:
        """The numbers of what waits, as they get their positions. What a program says of its transactions
        need not be true: where it would bring the changes of a record out of their order, nobody is believed,
        and their numbers alone count."""
        # Grouped and joined, since MAX as a window takes a time that grows with the square of its size.
        ends = "IFNULL(ends, seq)"
        within = "" if bound is None else f" AND seq <= {bound} AND {ends} <= {bound}"
        rows = await connection.fetch(
            f"SELECT seq, LAG(seq) OVER (PARTITION BY model, pk ORDER BY {ends}, seq) > seq"
            " FROM dataflow_changes LEFT JOIN (SELECT txn AS whole, MAX(seq) AS ends FROM dataflow_changes"
            " WHERE pos IS NULL GROUP BY txn) AS transactions ON whole = txn"
            f" WHERE pos IS NULL{within} ORDER BY {ends}, seq"
        )
        ordered = [seq for seq, _ in rows]
        return sorted(ordered) if any(wrong for _, wrong in rows) else ordered

    async def is_followed(self, connection: Any) -> bool:
        rows = await connection.fetch(
            "SELECT 1 FROM dataflow_changes_readers WHERE until > UTC_TIMESTAMP(6) LIMIT 1"
        )
        return bool(rows)

    async def follow(self, connection: Any, reader: str) -> None:
        until = f"UTC_TIMESTAMP(6) + INTERVAL {LEASE_SECONDS} SECOND"
        await connection.fetch(
            "DELETE FROM dataflow_changes_readers WHERE until < UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE"
        )
        await connection.fetch(
            f"INSERT INTO dataflow_changes_readers VALUES (%s, {until})"
            f" ON DUPLICATE KEY UPDATE until = {until}",
            (reader,),
        )

    async def changed_elsewhere(self, connection: Any, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            ((position,),) = await connection.fetch("SELECT n FROM dataflow_changes_head")
            now = time.monotonic()
            if position != connection.seen:
                connection.seen, connection.seen_at = position, now
                return
            pause = max(_QUICK, min(_SLOW, (now - connection.seen_at) / _CALMING))
            if now + pause > until:
                return
            await asyncio.sleep(pause)

    def extent_sql(self) -> str:
        return (
            "SELECT COALESCE(MAX(seq) - MIN(seq) + 1, 0), COALESCE(TIMESTAMPDIFF(SECOND,"
            " (SELECT at FROM dataflow_changes ORDER BY seq LIMIT 1), UTC_TIMESTAMP(6)), 0)"
            " FROM dataflow_changes"
        )

    def floor_sql(self) -> str:
        return (
            "UPDATE dataflow_changes_head SET floor = GREATEST(floor, n - %s, COALESCE((SELECT pos - 1 FROM"
            " dataflow_changes WHERE pos > floor AND at >= UTC_TIMESTAMP(6) - INTERVAL %s SECOND"
            " ORDER BY pos LIMIT 1), n))"
        )

    def clean_sql(self) -> str:
        return (
            "DELETE FROM dataflow_changes WHERE pos <= (SELECT floor FROM dataflow_changes_head)"
            " ORDER BY pos LIMIT %s"
        )
