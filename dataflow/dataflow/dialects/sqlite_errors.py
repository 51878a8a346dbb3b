"""What SQLite says, as our errors. No message shows a value."""

from __future__ import annotations

import re
import sqlite3

from dataflow.dialects.failures import duplicate, gone
from nexus.errors import Conflict, InvalidInput, NexusError, Unavailable

_COLUMNS = re.compile(r"constraint failed: (.+)$")
_UNREADABLE = ("You can only execute one", "incomplete input", "no such function", "unrecognized token")
_STORED = re.compile(r"cannot store \w+ value in \w+ column \w+\.(\w+)")


def translated(failure: Exception) -> NexusError:
    if isinstance(failure.__context__, UnicodeEncodeError | OverflowError):
        # The driver says what was wrong with the statement before, and carries the true reason along.
        failure = failure.__context__
    if isinstance(failure, OverflowError):
        return InvalidInput("A number is outside of what the database can hold (64-bit integers).")
    if isinstance(failure, UnicodeEncodeError):
        return InvalidInput("A text contains characters that are not valid Unicode.")
    if isinstance(failure, sqlite3.IntegrityError):
        return _conflict(failure)
    code = getattr(failure, "sqlite_errorname", "")
    message = str(failure)
    if message.startswith(("no such table", "no such column")) or " has no column named " in message:
        return gone(message)
    if "syntax error" in message or message.startswith(_UNREADABLE):
        return InvalidInput("The database cannot read the statement.")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable("The database is locked by another program.", remedy="Try again.")
    if code.startswith("SQLITE_FULL"):
        return Unavailable("The disk of the database is full.")
    if code.startswith("SQLITE_READONLY"):
        return Unavailable("The database cannot be written: the file or its folder is read-only.")
    if code.startswith("SQLITE_TOOBIG"):
        return InvalidInput("A value is larger than the database can hold.")
    if code.startswith("SQLITE_INTERRUPT"):
        return Unavailable("The statement was interrupted: the database is closing.")
    if "user-defined function raised" in message:  # those that reckon
        return Conflict("A field cannot hold the result: a number became too large.")
    return Unavailable(f"The database failed: {failure}.")


def _conflict(failure: sqlite3.IntegrityError) -> NexusError:
    code = getattr(failure, "sqlite_errorname", "")
    found = _COLUMNS.search(str(failure))
    fields = ", ".join(part.rpartition(".")[2] for part in found[1].split(", ")) if found else ""
    if code in (
        "SQLITE_CONSTRAINT_UNIQUE",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
        "SQLITE_CONSTRAINT_ROWID",
    ):
        return duplicate(fields.split(","))
    if code == "SQLITE_CONSTRAINT_NOTNULL":
        return Conflict(f"'{fields}' cannot be null.")
    if code == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return Conflict("The record refers to one that does not exist, or is referred to by another.")
    if found := _STORED.search(str(failure)):
        return Conflict(f"'{found[1]}' cannot hold the result: a number became too large.")
    return Conflict(f"The database refuses the record: {failure}.")
