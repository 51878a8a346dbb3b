"""What PostgreSQL and its driver say, as our errors. No message shows a value."""

from __future__ import annotations

import re

from asyncpg import exceptions as pg

from dataflow.dialects.failures import duplicate, gone
from dataflow.dialects.numbering import used_up
from dataflow.dialects.tls import tls_failure
from nexus.errors import Conflict, InvalidInput, NexusError, Retryable, Unavailable

_KEY = re.compile(r"^Key \((?P<fields>.+?)\)=")


def translated(failure: Exception) -> Exception:
    match failure:
        case NexusError():
            return failure
        case pg.UniqueViolationError():
            found = _KEY.search(failure.detail or "")
            return duplicate(found["fields"].replace('"', "").split(",") if found else ())
        case pg.NotNullViolationError():
            return Conflict(f"'{failure.column_name}' cannot be null.")
        case pg.ForeignKeyViolationError():
            return Conflict("The record refers to one that does not exist, or is referred to by another.")
        case pg.NumericValueOutOfRangeError():
            return Conflict("A field cannot hold the result: a number became too large.")
        case pg.IntegrityConstraintViolationError():
            return Conflict(f"The database refuses the record: {failure.constraint_name}.")
        case pg.StringDataRightTruncationError():
            return InvalidInput("A text is longer than the field can hold.")
        case pg.CharacterNotInRepertoireError() | pg.UntranslatableCharacterError():
            return InvalidInput("A text contains characters that the database cannot hold.")
        case pg.ProgramLimitExceededError():
            return InvalidInput("A value is larger than the database can hold.")
        case pg.UndefinedTableError() | pg.UndefinedColumnError():
            return gone(failure.args[0])
        case pg.SyntaxOrAccessError() if not isinstance(failure, pg.InsufficientPrivilegeError):
            return InvalidInput(f"The database cannot read the statement ({failure.sqlstate}).")
        case pg.InsufficientPrivilegeError():
            return Unavailable("The database does not let this user do that.")
        case pg.DiskFullError():
            return Unavailable("The disk of the database is full.")
        case pg.ReadOnlySQLTransactionError():
            return Unavailable("The database cannot be written: it is read-only.")
        case pg.DeadlockDetectedError() | pg.SerializationError():
            return Retryable("Another transaction was in the way.", remedy="Try again.")
        case pg.LockNotAvailableError():
            return Unavailable("Another transaction was in the way.", remedy="Try again.")
        case pg.InvalidCatalogNameError():
            return Unavailable("The database does not exist on the server.")
        case pg.InvalidAuthorizationSpecificationError():
            return Unavailable("The database refuses the user or the password.")
        case pg.TooManyConnectionsError():
            return Unavailable("The database takes no more connections.", remedy="Try again.")
        case UnicodeEncodeError():
            return InvalidInput("A text contains characters that are not valid Unicode.")
        case pg.SequenceGeneratorLimitExceededError():
            return used_up()
        case pg.DataError() if isinstance(failure.__cause__, UnicodeEncodeError):
            return InvalidInput("A text contains characters that are not valid Unicode.")
        case pg.DataError():
            return InvalidInput("A value does not fit its field.")
        case pg.QueryCanceledError():
            return Unavailable("The statement was cancelled.")
        case (
            pg.PostgresConnectionError()
            | pg.InternalClientError()
            | pg.InterfaceError()
            | pg.OperatorInterventionError()
        ):
            return Unavailable("The connection to the database was lost.", remedy="Try again.")
        case OSError() | TimeoutError():
            return tls_failure(failure) or Unavailable("The database server does not answer.")
        case pg.PostgresError():
            return Unavailable(f"The database failed ({failure.sqlstate}).")
    return failure
