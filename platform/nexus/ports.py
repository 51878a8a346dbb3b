"""What the kernel needs from others. `dataflow` implements it, `Nexus` attaches it."""

from __future__ import annotations

from collections.abc import Mapping
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
    before a create."""

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


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where a log stands: it holds the positions after `floor`, up to `pos`. A new `epoch` means that
    positions known from another epoch mean nothing here."""

    epoch: bytes
    pos: int
    floor: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The records of a topic as of one position of its log."""

    head: LogHead
    records: list[Record]


class ChangeSource(Protocol):
    """An ordered, gap-free log of committed changes."""

    def has(self, topic: str) -> bool: ...

    def topics(self) -> list[str]: ...

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


class Progress(Protocol):
    """Who listens to the nodes of a running workflow. Called in the event loop: it must be quick."""

    def node_started(self, node: str) -> None: ...

    def node_ended(self, node: str, status: str, seconds: float, error: NexusError | None = None) -> None:
        """`status` is done, failed, skipped or retrying; `error` is there where it failed."""


class Contributor(Protocol):
    """A source of operations, now and later: a DataFlow with its models."""

    @property
    def changes(self) -> ChangeSource | None: ...

    def contribute(self, runtime: Runtime) -> None:
        """Add the operations that there are to its registry, and from now on those that come."""

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


class Runnable(Protocol):
    """Something that becomes one operation: a workflow."""

    def as_operation(self, name: str, registry: Registry) -> Any: ...
