"""The change log in SQLite: its tables, and the triggers that write it.

One writer at a time means that numbers are committed in order: a change's number is its position, and a
number that is rolled back is given again.
"""

from __future__ import annotations

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
  at TEXT NOT NULL
)"""
HEADS = """CREATE TABLE IF NOT EXISTS dataflow_changes_head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch BLOB NOT NULL,
  floor INTEGER NOT NULL
)"""
FIRST_HEAD = "INSERT OR IGNORE INTO dataflow_changes_head VALUES (1, randomblob(16), 0)"
SYSTEM_TABLES = (CHANGES, HEADS)

HEAD = """SELECT epoch, coalesce((SELECT max(seq) FROM dataflow_changes), floor), floor
FROM dataflow_changes_head"""
READ = """SELECT seq, model, pk, "row", old, actor, session, run, tenant, at
FROM dataflow_changes WHERE seq > ? ORDER BY seq LIMIT ?"""

CALLER = "nexus_caller"
# On our own connections only: a function in a trigger that lasts would break every other program's writes.
STAMP = f"""CREATE TEMP TRIGGER IF NOT EXISTS nexus_stamp AFTER INSERT ON main.dataflow_changes
WHEN {CALLER}('actor') IS NOT NULL
BEGIN
  UPDATE dataflow_changes SET actor = {CALLER}('actor'), session = {CALLER}('session'),
    run = {CALLER}('run'), tenant = {CALLER}('tenant') WHERE seq = NEW.seq;
END"""


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
