"""What the kernel needs from others. `dataflow` implements it, `Nexus` attaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from nexus.filters import Filter
from nexus.registry import Registry
from nexus.session import Session

if TYPE_CHECKING:
    from nexus.call import Call
    from nexus.errors import NexusError
    from nexus.runtime import Runtime

Record = Mapping[str, Any]
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """One row of a change log: what a record was and what it is. `record` is None after a delete, `old`
    before a create. The changes of one transaction have the same `txn` and stand together in the log; None
    where the log does not know it."""

    pos: int
    topic: str
    key: Any
    record: Record | None
    old: Record | None
    actor: str | None
    session: str | None
    run: str | None
    tenant: str | None
    at: str
    request: str | None = None
    txn: str | None = None


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where a log stands: it holds the positions after `floor`, up to `pos`. A new `epoch` means that
    positions known from another epoch mean nothing here. `mark` is the moment of the change at `pos`, or
    empty where that is not kept."""

    epoch: bytes
    pos: int
    floor: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The records of a topic as of one position of its log."""

    head: LogHead
    records: list[Record]


class ChangeSource(Protocol):
    """An ordered, gap-free log of committed changes."""

    def has(self, topic: str) -> bool: ...

    def topics(self) -> list[str]:
        """Those that can be followed."""

    def parse(self, topic: str, where: object, session: Session) -> Filter:
        """The filter over this topic that a subscriber asks for, narrowed to what exists for its session.
        Raises InvalidFilter, and Forbidden when nothing does."""

    def fields(self, topic: str) -> tuple[str, ...]:
        """The names of the fields of this topic's records."""

    async def head(self, topic: str) -> LogHead:
        """Where the log stands now, after making sure that changes to this topic are captured."""

    async def read(self, after: int, limit: int) -> list[LoggedChange]:
        """The next changes of every topic, in order."""

    async def snapshot(self, topic: str, where: Filter, limit: int, session: Session) -> Snapshot:
        """All records that match, as of one position; raises TooLarge beyond `limit`."""

    async def changed(self) -> None:
        """Return when the log may have grown by another process's doing, or after a second at most."""

    def written(self, *, read_here: bool) -> None:
        """This process has committed changes; `read_here` says that somebody in it reads the log."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a transaction is to be run; `isolation` None is what the resource usually does."""

    isolation: Isolation | None = None
    read_only: bool = False


class Unit(Protocol):
    """Work on one resource that becomes visible as a whole or not at all."""

    @property
    def connection(self) -> Any: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def check(self) -> None:
        """Raise what a commit would, for constraints that are only checked there."""

    async def savepoint(self, name: str) -> None:
        """Begin a part that can be undone alone. Parts end in the opposite order of their beginning."""

    async def release(self, name: str) -> None:
        """End that part and keep it."""

    async def undo(self, name: str) -> None:
        """End that part and leave nothing of it behind."""


class Resource(Protocol):
    """Something that a call reads and writes: a database."""

    @property
    def changes(self) -> ChangeSource | None:
        """Where its changes can be followed."""

    def lend(self, call: Call, *, write: bool) -> AbstractAsyncContextManager[Any]:
        """A connection for one statement that commits by itself."""

    async def begin(self, call: Call) -> Unit:
        """A transaction on a connection of its own, by the call's terms; raises ConfigurationError for terms
        that cannot be honoured."""


class Contributor(Protocol):
    """A source of operations, now and later: a DataFlow with its models."""

    @property
    def changes(self) -> ChangeSource | None: ...

    def contribute(self, runtime: Runtime) -> None:
        """Add the operations that there are to its registry, and from now on those that come."""

    async def check(self) -> None:
        """Return when what it works with answers, which is cheap to ask; raises NexusError when it cannot be
        reached."""

    async def close(self) -> None:
        """Give back what is held in the running event loop."""


class DescribedField(Protocol):
    """A field of a model, for those who look at it."""

    @property
    def name(self) -> str: ...

    @property
    def stored_type(self) -> Any:
        """What reading the field gives."""

    @property
    def required(self) -> bool: ...

    @property
    def automatic(self) -> bool:
        """Filled by the platform and never by a caller."""

    @property
    def default(self) -> Any:
        """`msgspec.NODEFAULT` where there is none."""


class DescribedModel(Protocol):
    """A model, for those who look at it."""

    @property
    def name(self) -> str: ...

    @property
    def table_name(self) -> str: ...

    @property
    def route(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, DescribedField]: ...


@runtime_checkable
class Modelled(Protocol):
    """A contributor whose operations come from models that are tables: a DataFlow."""

    @property
    def models(self) -> Mapping[str, DescribedModel]: ...

    def install_sql(self, *models: str) -> list[str]:
        """What the first use of these models, or of all, would run; touches no database."""

    async def install(self) -> list[str]:
        """Run that for all models now; the names of their tables."""


class Progress(Protocol):
    """Who is told how far a workflow has come. Its methods return at once. A status is `done`, `failed`,
    `skipped` or `retrying`."""

    def node_started(self, node: str) -> None: ...

    def node_ended(self, node: str, status: str, seconds: float, error: NexusError | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Column:
    """`key` is a text of at most 255 characters that can be compared, `text` one of any length, `number` an
    integer. All may be null but the first of a table, which is its key."""

    name: str
    kind: Literal["key", "text", "number"]


@dataclass(frozen=True, slots=True)
class RecordTable:
    """A table of the platform's own. The columns in `unique` hold each value once, any number of nulls."""

    name: str
    columns: tuple[Column, ...]
    unique: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.columns[0].name


Row: TypeAlias = Mapping[str, Any]
Condition: TypeAlias = tuple[str, Literal["=", "!=", "<", ">"], Any]
"""A column, how it compares, and with what; None is null, for `=` and `!=` only."""


class Records(Protocol):
    """A small store of rows for the platform itself. What is written is kept by itself, never as a part of
    the transaction of a call. Raises NexusError when the store cannot be used."""

    @property
    def shared(self) -> bool:
        """Whether other processes see the same rows."""

    async def insert(self, table: RecordTable, row: Row) -> bool:
        """Keep a row for good; False, and nothing is written, when a unique value is taken."""

    async def write(
        self, table: RecordTable, rows: Sequence[Row], changes: Sequence[tuple[str, Row]]
    ) -> None:
        """Insert rows, all of the same columns, and change those with these keys, all of it or nothing. It
        outlives the process, if perhaps not a failure of the machine. Raises Conflict when a unique value is
        taken."""

    async def change(self, table: RecordTable, where: Sequence[Condition], changes: Row) -> int:
        """Change the rows that match; how many they are."""

    async def find(
        self,
        table: RecordTable,
        where: Sequence[Condition] = (),
        *,
        columns: Sequence[str] = (),
        limit: int,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """The rows that match, the largest key first; of all columns or of some."""

    async def delete(self, table: RecordTable, where: Sequence[Condition]) -> int:
        """Delete the rows that match; how many they were."""


class Replies(Protocol):
    """Answers to writes that have an idempotency key, kept where the writes are, in their transactions."""

    @property
    def resource(self) -> Resource:
        """What they are a part of."""

    async def find(self, call: Call, key: str) -> Row | None:
        """What is kept under a key, which is the call's until its end. Raises KeyInFlight, at once, while it
        is another transaction's (one that the database has wait anyway waits), and InvalidInput where
        nothing can be kept."""

    async def keep(self, call: Call, row: Row, *, instead: bool) -> None:
        """Keep a row as a part of the call; `instead` of the one that there is."""

    async def prune(self, before: str) -> None:
        """Delete some of what has expired by then, in a transaction of its own."""


@runtime_checkable
class Recording(Protocol):
    """A contributor that keeps rows for the platform: a DataFlow."""

    @property
    def records(self) -> Records: ...

    @property
    def replies(self) -> Replies: ...


class Runnable(Protocol):
    """Something that becomes one operation: a workflow."""

    def as_operation(self, name: str, registry: Registry) -> Any: ...
