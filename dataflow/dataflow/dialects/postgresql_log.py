"""The change log in PostgreSQL: its tables, the triggers that write it, and the sealing.

Who makes a change travels with its statement, in the setting `nexus.who`, which ends with the transaction. A
single statement carries it in its RETURNING, which is evaluated for each row before the triggers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import uuid
from collections.abc import Sequence
from typing import Any

from dataflow.dialects.base import Codec
from dataflow.dialects.ddl import quoted
from dataflow.dialects.log import LEASE_SECONDS, PARTS, SEALED_AT_ONCE, bounded, fingerprint, identity_text
from dataflow.dialects.values import decimal_from, json_reader, json_text
from dataflow.fields import Field, Kind
from dataflow.model import Model
from nexus.call import Call

CHANNEL = "dataflow_changes"
_LOCK = 0x4E584C47  # guards the making of the log's own tables

_CHANGES = """CREATE TABLE IF NOT EXISTS dataflow_changes (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  pos bigint,
  model text NOT NULL,
  pk text NOT NULL,
  op text NOT NULL,
  tenant text,
  actor text,
  session text,
  run text,
  request text,
  "row" json,
  old json,
  at timestamptz NOT NULL,
  txn xid8 DEFAULT pg_current_xact_id(),
  began timestamptz DEFAULT transaction_timestamp()
)"""
# No index over all: what is written anew is in the one, what is sealed in the other.
_WAITING = "CREATE INDEX IF NOT EXISTS dataflow_changes_waiting ON dataflow_changes (seq) WHERE pos IS NULL"
_SEALED = (
    "CREATE UNIQUE INDEX IF NOT EXISTS dataflow_changes_pos ON dataflow_changes (pos) WHERE pos IS NOT NULL"
)
_HEAD = """CREATE TABLE IF NOT EXISTS dataflow_changes_head (
  id int PRIMARY KEY CHECK (id = 1),
  epoch bytea NOT NULL,
  n bigint NOT NULL,
  floor bigint NOT NULL
)"""
_FIRST_HEAD = (
    "INSERT INTO dataflow_changes_head VALUES (1, uuid_send(gen_random_uuid()), 0, 0) ON CONFLICT DO NOTHING"
)
_READERS = """CREATE UNLOGGED TABLE IF NOT EXISTS dataflow_changes_readers (
  id text PRIMARY KEY,
  until timestamptz NOT NULL
)"""
_VERSION = "dataflow sealing 3"
# A volatile function sees, in each of its statements, what was committed until then: so the numbers are given
# to what is there when the head is locked. Of a transaction that is all or nothing. How many wait is nothing
# that statistics know: a nested loop, planned for one, would take a time that grows with their square.
_SEAL = f"""DO $do$
BEGIN
  EXECUTE format($sql$
    CREATE OR REPLACE FUNCTION %1$s.dataflow_seal() RETURNS int LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $f$
    -- {_VERSION}
    DECLARE
      last bigint;
      first bigint;
      latest bigint;
      bound bigint;
      sealed int := 0;
    BEGIN
      SELECT seq INTO first FROM %1$s.dataflow_changes WHERE pos IS NULL ORDER BY seq LIMIT 1;
      IF first IS NULL THEN
        RETURN 0;
      END IF;
      SELECT n INTO last FROM %1$s.dataflow_changes_head FOR UPDATE;
      SELECT seq INTO latest FROM %1$s.dataflow_changes WHERE pos IS NULL ORDER BY seq DESC LIMIT 1;
      IF latest IS NULL THEN -- another has sealed them meanwhile
        RETURN 0;
      END IF;
      bound := first + greatest({SEALED_AT_ONCE}, (latest - first) / {PARTS});
      LOOP
        UPDATE %1$s.dataflow_changes AS changed SET pos = last + numbered.k
        FROM (
          SELECT seq, row_number() OVER (ORDER BY ends, seq) AS k FROM (
            SELECT seq, CASE WHEN txn IS NULL THEN seq
              ELSE max(seq) OVER (PARTITION BY txn, began) END AS ends
            FROM %1$s.dataflow_changes WHERE pos IS NULL
          ) AS waiting
          WHERE ends <= bound
        ) AS numbered
        WHERE changed.seq = numbered.seq AND changed.pos IS NULL;
        GET DIAGNOSTICS sealed = ROW_COUNT;
        EXIT WHEN sealed > 0 OR bound >= latest;
        bound := latest; -- a transaction that is longer
      END LOOP;
      IF sealed > 0 THEN
        UPDATE %1$s.dataflow_changes_head SET n = last + sealed;
        -- What a reader sees must outlast a crash, also where commits are not waited for.
        PERFORM set_config('synchronous_commit', 'on', true);
        PERFORM pg_notify('{CHANNEL}', '');
      END IF;
      RETURN (bound < latest)::int;
    END $f$
  $sql$, quote_ident(current_schema()));
END $do$"""
# To a log that was made before they were kept. What is in it has no transaction: so the default comes after.
_ADDED = (
    "ALTER TABLE dataflow_changes ADD COLUMN IF NOT EXISTS request text",
    "ALTER TABLE dataflow_changes ADD COLUMN IF NOT EXISTS txn xid8,"
    " ADD COLUMN IF NOT EXISTS began timestamptz",
    "ALTER TABLE dataflow_changes ALTER COLUMN txn SET DEFAULT pg_current_xact_id(),"
    " ALTER COLUMN began SET DEFAULT transaction_timestamp()",
)
SYSTEM = (_CHANGES, *_ADDED, _WAITING, _SEALED, _HEAD, _FIRST_HEAD, _READERS, _SEAL)

_ARGUMENTS = 100  # of a function, at most
# Read once for each call of a function, and not for each column.
_DECLARED = """    #variable_conflict use_variable
    DECLARE nexus_who pg_catalog.text;
"""
_LEARNED = "nexus_who := pg_catalog.current_setting('nexus.who', true);"
_WHO = ", ".join(
    f"nullif(pg_catalog.split_part(nexus_who, pg_catalog.chr(31), {place}), '')" for place in (1, 2, 3, 4, 5)
)
_BULK = "pg_catalog.current_setting('nexus.bulk', true) OPERATOR(pg_catalog.=) {}"
# In what the database was restored to, transactions may have numbers that others had.
_TXN = "txn::text || '.' || to_hex((extract(epoch FROM began) * 1000000)::bigint)"
_MOMENT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_SYSTEM_FOUND = (
    "SELECT count(*) FROM pg_proc WHERE oid = to_regprocedure(quote_ident(current_schema())"
    " || '.dataflow_seal()') AND position($1 IN prosrc) > 0 AND to_regclass(quote_ident(current_schema())"
    " || '.dataflow_changes_readers') IS NOT NULL AND EXISTS (SELECT FROM pg_attribute"
    " WHERE attname = 'began' AND attrelid"
    " = to_regclass(quote_ident(current_schema()) || '.dataflow_changes'))"
)
FOUND = """SELECT count(*) FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE t.tgrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))
  AND t.tgname LIKE 'dataflow_log%' AND t.tgenabled <> 'D' AND position($2 IN p.prosrc) > 0"""
# Inserts of many records are logged by one statement. Not where another program's triggers may change a
# record as soon as it is there: that would be logged first.
BULK = """SELECT set_config('nexus.bulk', CASE WHEN EXISTS (
  SELECT FROM pg_trigger WHERE tgrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1))
  AND NOT tgisinternal AND tgname NOT LIKE 'dataflow_log%') THEN '' ELSE $1 END, true)"""
# A condition of the trigger itself would be read anew, as text, for every statement; so the functions ask.
_TRIGGERS = {
    "insert": "AFTER INSERT ON {table} FOR EACH ROW",
    "bulk": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS made FOR EACH STATEMENT",
    "update": "AFTER UPDATE ON {table} FOR EACH ROW",
    "delete": "AFTER DELETE ON {table} FOR EACH ROW",
    "truncate": "BEFORE TRUNCATE ON {table} FOR EACH STATEMENT",
}
_FORMER = "dataflow_log"  # the trigger of updates and deletions, once; all had one function


async def make_system(connection: Any) -> None:
    """Make the log's own tables if they are missing, under a lock of their own, since whoever makes any table
    does so. To make sure by trying would wait for every transaction that has written."""
    for locked in (False, True):
        ((found,),) = await connection.fetch(_SYSTEM_FOUND, (_VERSION,))
        if found:
            return
        if not locked:
            await connection.fetch("SELECT pg_advisory_xact_lock($1)", (_LOCK,))
    for sql in SYSTEM:
        await connection.run(sql)


def capture_sql(model: Model) -> list[str]:
    """One statement, and so all of it or nothing."""
    table = f'"{model.table_name}"'
    triggers = [_FORMER, *map(_trigger_name, _TRIGGERS)]
    functions = [
        bounded(f"{_FORMER}_{model.table_name}"),
        *(_function_name(model, event) for event in _TRIGGERS),
    ]
    drops = [f"DROP TRIGGER IF EXISTS {name} ON {table}" for name in triggers]
    if not model.changes:
        return [*drops, *(f'DROP FUNCTION IF EXISTS "{name}"()' for name in functions)]
    made = "".join(
        f"""    CREATE OR REPLACE FUNCTION %1$s."{_function_name(model, event)}"() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER AS $f$
    -- {mark(model)}
{body}    $f$;
"""
        for event, body in _bodies(model).items()
    )
    creates = [
        f"CREATE TRIGGER {_trigger_name(event)} {when.format(table=table)}"
        f' EXECUTE FUNCTION "{_function_name(model, event)}"()'
        for event, when in _TRIGGERS.items()
    ]
    remade = "".join(
        f"  {sql};\n" for sql in (*drops, f'DROP FUNCTION IF EXISTS "{functions[0]}"()', *creates)
    )
    return [
        f"""DO $do$
BEGIN
  EXECUTE format($sql$
{made}  $sql$, quote_ident(current_schema()));
{remade}END $do$"""
    ]


def mark(model: Model) -> str:
    """What is in the functions that log a model as it is now; empty where any is too much."""
    return f"dataflow {fingerprint(*_bodies(model).values())}" if model.changes else ""


def triggers(model: Model) -> int:
    return len(_TRIGGERS) if model.changes else 0


def _trigger_name(event: str) -> str:
    return f"dataflow_log_{event}"


def _function_name(model: Model, event: str) -> str:
    return bounded(f"dataflow_{event}_{model.table_name}")


def _bodies(model: Model) -> dict[str, str]:
    """What each of the triggers does. One function for all would have to ask first which of them it is for,
    which takes as long as a good part of the rest."""
    # They run with their owner's rights, so that every program can write whatever role it has; so their names
    # must not depend on the search path of those programs.
    new, old, table = _record(model, "NEW"), _record(model, "OLD"), model.table_name
    created, deleted = _log(table, "create", "NEW", new, "NULL"), _log(table, "delete", "OLD", "NULL", old)
    in_bulk = _BULK.format(quoted(table))
    many = _log(table, "create", "made", _record(model, "made"), "NULL", "made")
    emptied = _log(table, "delete", "one", "NULL", _record(model, "one"), f'%1$s."{table}" AS one')
    changed = (  # a record under another key is another record
        f"IF OLD.id OPERATOR(pg_catalog.=) NEW.id THEN {_log(table, 'update', 'NEW', new, old)};"
        f" ELSE {deleted}; {created}; END IF;"
    )
    return {
        "insert": _function(f"{created};", unless=in_bulk),
        "bulk": _function(f"{many};", unless=f"({in_bulk}) IS NOT TRUE"),
        "update": _function(changed),
        "delete": _function(f"{deleted};"),
        "truncate": _function(f"{emptied};"),
    }


def _function(statements: str, *, unless: str = "") -> str:
    left = f"      IF {unless} THEN RETURN NULL; END IF;\n" if unless else ""
    return f"""{_DECLARED}    BEGIN
{left}      {_LEARNED}
      {statements}
      RETURN NULL;
    END
"""


def _log(table: str, op: str, row: str, after: str, before: str, source: str = "") -> str:
    values = (
        f"{quoted(table)}, {row}.id::pg_catalog.text, '{op}', {after}, {before}, {_WHO},"
        " pg_catalog.clock_timestamp()"
    )
    return (
        'INSERT INTO %1$s.dataflow_changes (model, pk, op, "row", old, actor, session, run, tenant,'
        f" request, at) {f'SELECT {values} FROM {source}' if source else f'VALUES ({values})'}"
    )


def _record(model: Model, row: str) -> str:
    if len(model.fields) <= _ARGUMENTS // 2:
        pairs = ", ".join(f"'{field.name}', {_value(field, row)}" for field in model.fields.values())
        return f"pg_catalog.json_build_object({pairs})"
    columns = ", ".join(f'{_value(field, row)} AS "{field.name}"' for field in model.fields.values())
    return f"(SELECT pg_catalog.row_to_json(record) FROM (SELECT {columns}) AS record)"


def _value(field: Field, row: str) -> str:
    column = f'{row}."{field.name}"'
    if field.kind is Kind.DECIMAL:  # a number of JSON would be read as a float
        return f"{column}::pg_catalog.text"
    if field.kind is Kind.BYTES:  # JSON has none, and their usual form is a setting of each program
        return f"pg_catalog.encode({column}, 'hex')"
    return column


# The driver takes the first and the last of days and moments for minus infinity and infinity.
_FIRST, _LAST = "-infinity", "infinity"
_DAYS = {_FIRST: datetime.date.min, _LAST: datetime.date.max}
_MOMENTS = {
    _FIRST: datetime.datetime.min.replace(tzinfo=datetime.UTC),
    _LAST: datetime.datetime.max.replace(tzinfo=datetime.UTC),
}


def _day(text: str) -> datetime.date:
    return _DAYS.get(text) or datetime.date.fromisoformat(text)


def _utc(text: str) -> datetime.datetime:
    return _MOMENTS.get(text) or datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)


_FROM_LOG: dict[Kind, Any] = {
    Kind.FLOAT: float,
    Kind.DATETIME: _utc,
    Kind.DATE: _day,
    Kind.TIME: datetime.time.fromisoformat,
    Kind.DECIMAL: decimal_from,
    Kind.UUID: uuid.UUID,
    Kind.BYTES: bytes.fromhex,
}


def logged(field: Field, codec: Codec) -> Codec:
    """A codec that knows the log's form, too."""
    if field.kind is Kind.JSON:
        read = json_reader(field)
        return Codec(codec.encode, codec.decode, lambda value: read(json_text(value)))
    return Codec(codec.encode, codec.decode, _FROM_LOG.get(field.kind))


def signed(sql: str, parameters: Sequence[Any], caller: Call) -> tuple[str, Sequence[Any]]:
    """A single statement that tells the triggers who makes it."""
    if not sql.startswith(("INSERT", "UPDATE", "DELETE")):
        return sql, parameters
    return _with_identity(sql, len(parameters) + 1), (*parameters, identity_text(caller))


@functools.lru_cache(maxsize=2000)
def _with_identity(sql: str, place: int) -> str:
    joint = "," if " RETURNING " in sql else " RETURNING"
    return f"{sql}{joint} set_config('nexus.who', ${place}, true)"


def signature(caller: Call | None) -> str:
    """What tells it for the rest of a transaction, as text that can follow its BEGIN."""
    return f"SELECT set_config('nexus.who', {quoted(identity_text(caller))}, true)"


class PostgresqlLog:
    """A Log."""

    sealed = True

    def head_sql(self) -> str:
        at = _MOMENT.format("at")
        return (
            "SELECT epoch, n, floor, EXISTS (SELECT FROM dataflow_changes WHERE pos IS NULL),"
            f" (SELECT {at} FROM dataflow_changes WHERE pos = n) FROM dataflow_changes_head"
        )

    def read_sql(self) -> str:
        return (
            f'SELECT pos, model, pk, "row", old, actor, session, run, tenant, request,'
            f" {_MOMENT.format('at')}, {_TXN}"
            " FROM dataflow_changes WHERE pos > $1 ORDER BY pos LIMIT $2"
        )

    async def seal(self, connection: Any) -> None:
        while (await connection.fetch("SELECT dataflow_seal()"))[0][0]:
            pass

    async def begin_sealed(self, connection: Any) -> None:
        await connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")
        # Unlike SELECT … FOR UPDATE, this takes no snapshot before the lock is held.
        await connection.run("LOCK TABLE dataflow_changes_head IN EXCLUSIVE MODE")
        await self.seal(connection)

    async def is_followed(self, connection: Any) -> bool:
        ((followed,),) = await connection.fetch(
            "SELECT EXISTS (SELECT FROM dataflow_changes_readers WHERE until > now())"
        )
        return bool(followed)

    async def follow(self, connection: Any, reader: str) -> None:
        until = f"now() + interval '{LEASE_SECONDS} s'"
        await connection.fetch("DELETE FROM dataflow_changes_readers WHERE until < now() - interval '1 min'")
        await connection.fetch(
            f"INSERT INTO dataflow_changes_readers VALUES ($1, {until})"
            " ON CONFLICT (id) DO UPDATE SET until = excluded.until",
            (reader,),
        )

    async def changed_elsewhere(self, connection: Any, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may lose a cancellation
                await connection.notified(CHANNEL)

    def extent_sql(self) -> str:
        return (
            "SELECT n - floor + (SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM dataflow_changes"
            " WHERE pos IS NULL), coalesce(extract(epoch FROM now() - coalesce("
            "(SELECT at FROM dataflow_changes WHERE pos IS NOT NULL ORDER BY pos LIMIT 1),"
            " (SELECT at FROM dataflow_changes WHERE pos IS NULL ORDER BY seq LIMIT 1))), 0)::float8"
            " FROM dataflow_changes_head"
        )

    def floor_sql(self) -> str:
        return (
            "UPDATE dataflow_changes_head SET floor = greatest(floor, n - $1, coalesce((SELECT pos - 1 FROM"
            " dataflow_changes WHERE pos > floor AND at >= now() - make_interval(secs => $2)"
            " ORDER BY pos LIMIT 1), n))"
        )

    def clean_sql(self) -> str:
        return (
            "DELETE FROM dataflow_changes WHERE pos IN (SELECT pos FROM dataflow_changes"
            " WHERE pos <= (SELECT floor FROM dataflow_changes_head) ORDER BY pos LIMIT $1)"
        )
