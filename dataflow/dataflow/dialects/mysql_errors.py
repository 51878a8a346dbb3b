"""What MySQL, MariaDB and their driver say, as our errors. No message shows a value."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pymysql import err
from pymysql.constants import ER

from dataflow.dialects.failures import duplicate, gone
from dataflow.dialects.numbering import used_up
from dataflow.dialects.tls import tls_failure
from nexus.errors import Conflict, InvalidFilter, InvalidInput, NexusError, Retryable, Unavailable

_KEY = re.compile(r"for key '(?:[^'.]*\.)?(?P<key>[^']+)'$")
_COLUMN = re.compile(r"(?:[Cc]olumn|Field) '(?P<column>[^']+)'")
_OUT_OF_RANGE_IN_EXPRESSION = 1690
_STATEMENT_TOO_LARGE = 1153
_PATTERN_GIVEN_UP = frozenset({3698, 3699})
_READ_ONLY = frozenset({1290, 1792, 1836})
_IN_THE_WAY = frozenset({ER.LOCK_DEADLOCK, 1020})
_CANCELLED = 1317
_NO_TRIGGERS = 1419
_GONE = frozenset({ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR, 1051})
_UNREADABLE = frozenset({ER.PARSE_ERROR, 1065, 1305, 1128, 1582})
_DENIED = frozenset({1142, 1143, 1227, 1370})
_REFUSED = frozenset({ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, 1698})
_CHECKS = frozenset({3819, 4025})
_SILENT = 2003
_TOO_MANY = frozenset({ER.CON_COUNT_ERROR, 1203, 1226})
_LOST = frozenset({2006, 2013, 2055, 1053, 1927})
_USED_UP = frozenset({167, 1467})
_FULL = frozenset({ER.DISK_FULL, ER.RECORD_FILE_FULL, 1041})
_REFERENCES = frozenset({1216, 1217, 1451, 1452})


def translated(failure: Exception, keys: Mapping[str, str] | None = None) -> Exception:
    """`keys` are the fields of the indexes that are known by name."""
    if isinstance(failure, NexusError):
        return failure
    if isinstance(failure, UnicodeEncodeError):
        return InvalidInput("A text contains characters that are not valid Unicode.")
    if isinstance(failure, err.MySQLError) and failure.args:
        return tls_failure(failure) or _by_number(failure.args[0], str(failure.args[-1]), keys or {})
    if isinstance(failure, OSError | TimeoutError | err.MySQLError):
        return Unavailable("The database server does not answer.")
    return failure


def _by_number(number: object, message: str, keys: Mapping[str, str]) -> NexusError:
    if number == ER.DUP_ENTRY:
        found = _KEY.search(message)
        key = found["key"] if found else "key"
        fields = "id" if key == "PRIMARY" else keys.get(key, key)
        return duplicate(fields.split(","))
    if number in (ER.BAD_NULL_ERROR, 1364):
        found = _COLUMN.search(message)
        return Conflict(f"'{found['column'] if found else 'A field'}' cannot be null.")
    if number in _REFERENCES:
        return Conflict("The record refers to one that does not exist, or is referred to by another.")
    if number in _CHECKS:
        return Conflict("The database refuses the record.")
    if number in (_OUT_OF_RANGE_IN_EXPRESSION, ER.WARN_DATA_OUT_OF_RANGE):
        return Conflict("A field cannot hold the result: a number became too large.")
    if number in _USED_UP:
        return used_up()
    if number == ER.DATA_TOO_LONG:
        return InvalidInput("A text is longer than the field can hold.")
    if number in _PATTERN_GIVEN_UP:
        return InvalidFilter("The database gave the pattern up on a long text.")
    if number == _STATEMENT_TOO_LARGE:
        return InvalidInput("A value is larger than the database can hold.")
    if number in _IN_THE_WAY:
        return Retryable("Another transaction was in the way.", remedy="Try again.")
    if number == ER.LOCK_WAIT_TIMEOUT:
        return Unavailable("Another transaction was in the way for too long.", remedy="Try again.")
    if number == _CANCELLED:
        return Unavailable("The statement was cancelled.")
    if number in _REFUSED:
        return Unavailable("The database refuses the user or the password.")
    if number == ER.BAD_DB_ERROR:
        return Unavailable("The database does not exist on the server.")
    if number == _SILENT:
        return Unavailable("The database server does not answer.")
    if number in _TOO_MANY:
        return Unavailable("The database takes no more connections.", remedy="Try again.")
    if number in _GONE:
        return gone(message)
    if number in _UNREADABLE:
        return InvalidInput(f"The database cannot read the statement ({number}).")
    if number in _DENIED:
        return Unavailable("The database does not let this user do that.")
    if number in _READ_ONLY:
        return Unavailable("The database cannot be written: it is read-only.")
    if number in _FULL:
        return Unavailable("The disk of the database is full.")
    if number in _LOST:
        return Unavailable("The connection to the database was lost.", remedy="Try again.")
    if number == _NO_TRIGGERS:
        return Unavailable(
            "The database lets this user make no triggers.",
            remedy="Set its log_bin_trust_function_creators to 1, or the user's privileges.",
        )
    return Unavailable(f"The database failed ({number}).")
