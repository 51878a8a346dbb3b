"""What a database must be able to do for us. Everything that differs between databases is in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from dataflow.columns import Columns
from dataflow.dialects.filter_sql import FilterSql
from dataflow.dialects.log import Log
from dataflow.fields import Field
from dataflow.model import Model
from nexus.call import Call
from nexus.ports import Isolation

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """How a value travels; None where it travels as it is. `from_log` reads what the change log holds."""

    encode: Callable[[Any], Any] | None = None
    decode: Callable[[Any], Any] | None = None
    from_log: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What a statement that gives no rows did: how many records it found, and the key it generated."""

    found: int
    key: int


class Connection(Protocol):
    """A driver's connection, with our errors. `caller` is who the next statements are for; the change log
    learns it from there."""

    caller: Call | None

    @property
    def usable(self) -> bool:
        """Whether it can serve another statement: not lost, and not left in the middle of one."""

    async def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement and return its rows, if it gives any."""

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Done:
        """Run one statement that gives no rows."""

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of one statement, by the names of their columns. Raises InvalidInput where two have the
        same."""

    async def run(self, sql: str) -> None:
        """Run one statement exactly as it is written: no character of it stands for a parameter."""

    async def execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of `rows`, in order."""

    async def begin(self, *, write: bool, isolation: Isolation | None = None) -> None:
        """A transaction of at least this isolation; without `write`, one that only reads."""

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a table: no columns where there is none. `captured` says that its changes are
    logged, or that they cannot be yet."""

    columns: frozenset[str]
    indexes: frozenset[str]
    captured: bool


def isolation_sql(level: Isolation) -> str:
    """`repeatable_read` as the standard's grammar has it."""
    return level.replace("_", " ").upper()


class Dialect(Protocol):
    """One database engine, at one address; `database` is the name of what is there.

    `overflow` is how many connections more there may be while they are needed. `writers` is None where any
    of the `readers` connections may write. `returning` says which of insert, update and delete can return
    their rows; it is known once a connection is open. `lasting` says that the database is there for others
    and after this instance, too. `reads_together` says that one statement for several records costs much less
    than several. `makes_log` says that the log's own tables may be made when they are
    missing, `repeats_indexes` that CREATE INDEX knows IF NOT EXISTS, `has_arrays` that lists can be arrays.
    `checks_deferred` is the statement that checks what otherwise only a commit checks, if there is one.
    """

    name: str
    location: str
    database: str
    lasting: bool
    compiler: sa.engine.Dialect
    readers: int
    overflow: int
    writers: int | None
    returning: frozenset[str]
    locks_reads: bool
    reads_together: bool
    nulls_first: bool
    log: Log
    filters: FilterSql
    makes_log: bool
    repeats_indexes: bool
    has_arrays: bool
    checks_deferred: str

    def column_type(self, field: Field) -> sa.types.TypeEngine[Any]: ...

    def codec(self, field: Field) -> Codec: ...

    def table_options(self) -> dict[str, Any]:
        """Keyword arguments for each sqlalchemy.Table."""

    def index_options(self, fields: Sequence[Field]) -> dict[str, Any]:
        """Keyword arguments for the sqlalchemy.Index on these fields."""

    def in_list(self, column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
        """`column IN` a list that travels as one parameter; for anything but floats."""

    def list_parameter(self, values: list[Any]) -> object:
        """How such a list travels."""

    def combined(
        self, field: Field, op: str, column: sa.ColumnElement[Any], given: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        """What `$inc` (`inc`) or `$mul` (`mul`) makes of a field."""

    def key_given(self, table: sa.Table) -> sa.ColumnElement[Any] | None:
        """What an insert must return besides, so that a key which was given is not generated again."""

    def changed_list(
        self, op: str, column: sa.ColumnElement[Any], elements: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[Any]:
        """The JSON list in `column` after `elements`, which is a JSON list too, were pushed, added or pulled
        (`op` is push, add or pull), as `dataflow.lists` does it."""

    integer_sum_columns: int

    def integer_sum(self, column: sa.ColumnElement[Any]) -> list[sa.ColumnElement[Any]]:
        """The exact sum of integers, however large: in parts, each worth 2 ** 32 of the next."""

    def float_sum(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A sum that is infinite, null or an error when it is too large."""

    async def insert_many(
        self, connection: Any, table: sa.Table, columns: Columns, *, generates_id: bool, ids: bool
    ) -> list[Any]:
        """Insert records of encoded values, in as few statements as can be; where asked for, their ids, in
        their order. At least one of the columns is in `each`, here and below."""

    async def update_many(
        self, connection: Any, table: sa.Table, columns: Columns, counters: Sequence[str]
    ) -> int:
        """Change records, each another one, whose `id` is in `each`, to the values beside it, and add one to
        the `counters`; how many were found."""

    async def upsert_many(
        self,
        connection: Any,
        table: sa.Table,
        columns: Columns,
        changed: Sequence[str],
        counters: Sequence[str],
        *,
        generates_id: bool,
    ) -> int:
        """Insert records, each of another `id`, or where it is there already change these fields of it, and
        add one to the counters; how many were inserted. Whatever else is unique stays so."""

    async def lock(self, connection: Any, names: Iterable[str]) -> None:
        """Hold these names until the end of the transaction; wait for those who hold one of them."""

    async def try_lock(self, connection: Any, name: str) -> bool:
        """Hold a name until the end of the transaction; False, at once, while another transaction does. True
        where a transaction that may write is the only one."""

    async def estimate(self, connection: Any, table: sa.Table) -> int | None:
        """About how many rows there are, from the statistics; None where there are none."""

    async def open_reader(self) -> Connection: ...

    async def open_writer(self) -> Connection: ...

    def system_sql(self) -> list[str]:
        """The tables of our own; running it again changes nothing."""

    def capture_sql(self, model: Model) -> list[str]:
        """What writes the changes of a model into the log; running it again changes nothing."""

    async def found(self, connection: Any, model: Model) -> Found:
        """What there is of a model's table."""

    def alone(self, connection: Any, model: Model) -> AbstractAsyncContextManager[None]:
        """While statements make tables, no other process of ours does. Where the database can, what fails
        is undone as a whole."""

    async def open_recorder(self) -> Connection:
        """For the platform's own records only: what is committed there outlives this process, though perhaps
        not a failure of the machine, since where the database can, a commit does not wait for the disk."""

    def hurried(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """The same for a while, for a connection that others use as well."""

    def literal(self, field: Field, value: Any) -> str:
        """An encoded value as it is written in SQL, as the default of a column."""

    def dispose(self) -> None:
        """Remove what was made for this instance only."""
