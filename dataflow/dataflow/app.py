"""DataFlow: models of one database, and what they offer."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from dataflow.aggregates import Aggregates
from dataflow.bulk import Bulk
from dataflow.changelog import ChangeLog
from dataflow.connecting import settings_from
from dataflow.database import Database
from dataflow.declaration import model_from, refuse_instances
from dataflow.dialects import dialect_for
from dataflow.direct import Direct
from dataflow.face import Caller
from dataflow.model import Model
from dataflow.nodes import BaseDataFlowNode, model_operations
from dataflow.nodes.own import node_of_class, node_of_function
from dataflow.options import PREFIX, options_from
from dataflow.records import TableRecords
from dataflow.relations import Relations
from dataflow.replies import TableReplies
from dataflow.schema import SchemaCache, SchemaMode
from dataflow.store import Store
from dataflow.sync import SyncDataFlow
from dataflow.validation import Mode, validate_cycle
from nexus.errors import ConfigurationError, RegistrationError, did_you_mean
from nexus.feed import Feed
from nexus.instances import announce, withdraw
from nexus.operation import Effect, Operation
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.runs.record import RUNS
from nexus.runtime import Runtime
from nexus.session import tenant

T = TypeVar("T", bound=type)

DEFAULT_URL = "sqlite:///data.db"
SYSTEM_URL = "sqlite:///nexus_platform.db"


class DataFlow(Direct):
    """The models of one database.

        db = DataFlow("sqlite:///shop.db")

        @db.model
        class Product:
            name: str
            price: float

        lamp = await db.products.create(name="Lamp", price=9.5)

    Without a URL: the environment's DATABASE_URL or DATAFLOW_DATABASE_URL, else the file data.db in the
    current folder. `:memory:` is a database of this instance, gone with it. Nothing is opened before the
    first use.

    What is missing of a model's table is made at its first use: the table, columns that are new, indexes;
    nothing is ever dropped or narrowed. With `auto_migrate=False` that is left to `install`. With
    `existing_schema_mode=True` the database is used as it is, and its changes cannot be followed.

    What the platform keeps for itself, such as the runs of workflows, is in tables `nexus_…` of the same
    database; in the one of `system_url` where that is given, or DATAFLOW_SYSTEM_URL. With
    `existing_schema_mode=True` that is by default the file nexus_platform.db in the current folder.

    Its `name` is what workflows call this instance by, where several are used; without one, it is that of its
    database: the file's without its ending, `memory`, or the one on the server.

    The other options are those of `Options`, and those of URLs, as `ssl_ca`. Raises DatabaseUrlError for a
    URL that cannot be used, ConfigurationError for options that cannot be honoured, TypeError for those that
    there are not.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        name: str | None = None,
        auto_migrate: bool = True,
        existing_schema_mode: bool = False,
        system_url: str | None = None,
        **options: Any,
    ) -> None:
        url = _url(database_url, options)
        settings = settings_from(options, os.environ, PREFIX)
        mode = SchemaMode.AUTO if auto_migrate else SchemaMode.FIXED
        if existing_schema_mode:
            mode = SchemaMode.EXISTING
        super().__init__(self, Caller())
        dialect = dialect_for(url, settings)
        self.database = Database(dialect, mode, options_from(options, os.environ, url))
        self.name = _name(name, dialect.database)
        self.store = Store(self.database)
        self.bulk = Bulk(self.database)
        self.aggregates = Aggregates(self.database)
        self._records = self._platform_records(system_url)
        self._models: dict[str, Model] = {}
        self.replies = TableReplies(self.database, self._models)
        self._relations = Relations(self._models)
        self._made: dict[str, list[Operation]] = {}
        self._own: list[Operation] = []
        self._runtimes: list[Runtime] = []
        self._withdrawn = False
        announce(self)

    @property
    def models(self) -> Mapping[str, Model]:
        return MappingProxyType(self._models)

    @property
    def runtime(self) -> Runtime:
        """That of the application it was attached to last, else one of its own."""
        if self._withdrawn:  # it is used again
            self._withdrawn = False
            announce(self)
        if not self._runtimes:
            registry, policy = Registry(), Policy()
            self.contribute(Runtime(registry, policy, Feed(registry, policy)))
        return self._runtimes[-1]

    def pool_metrics(self) -> dict[str, Any]:
        """How many connections there are, in use and free, in all event loops."""
        return self.database.metrics()

    @property
    def _pool_manager(self) -> PoolManager:
        return PoolManager(self.database)

    @property
    def changes(self) -> ChangeLog:
        return self.database.changes

    @property
    def records(self) -> TableRecords:
        """What the platform keeps for itself."""
        return self._records

    def _platform_records(self, system_url: str | None) -> TableRecords:
        url = system_url or os.environ.get(f"{PREFIX}SYSTEM_URL")
        if url is None and self.database.mode is SchemaMode.EXISTING:
            url = SYSTEM_URL
        self._system = self.database if url is None else Database(dialect_for(url))
        return TableRecords(self._system, (RUNS,))

    def model(self, cls: T | None = None, *, strict: bool = False, skip_validation: bool = False) -> Any:
        """Register a class as a model; a decorator. Its operations appear in every application that has
        this DataFlow, at once. `strict` refuses what otherwise is only warned of, `skip_validation` is
        silent about it. Raises RegistrationError."""
        if strict and skip_validation:
            raise ConfigurationError("A model is validated strictly, or not at all.")
        mode = Mode.STRICT if strict else Mode.SKIP if skip_validation else Mode.WARN
        if cls is None:
            return functools.partial(self._register, mode=mode)
        return self._register(cls, mode=mode)

    def _register(self, cls: T, *, mode: Mode) -> T:
        switches = {"multi_tenant": self.database.options.multi_tenant}
        model = model_from(cls, self._relations, mode=mode, defaults=switches)
        self.database.check(model)
        self._check_names(model)
        self._models[model.name] = model
        try:
            validate_cycle(model, mode)
            self._made[model.name] = self._operations(model)
            self._publish(self._made[model.name])
        except BaseException:
            del self._models[model.name]
            self._made.pop(model.name, None)
            raise
        announce(self)
        self.changes.follow(model)
        refuse_instances(cls)
        return cls

    def _check_names(self, model: Model) -> None:
        taken = {index.name.casefold() for index in model.indexes}
        for known in self._models.values():
            if model.name == known.name:
                raise RegistrationError(f"There is a model '{model.name}' already.")
            if model.table_name.casefold() == known.table_name.casefold() or model.route == known.route:
                raise RegistrationError(
                    f"'{model.name}' and '{known.name}' would have the same table or route.",
                    remedy='Set __tablename__, or __dataflow__ = {"route": "…"}.',
                )
            for index in known.indexes:
                if index.name.casefold() in taken:
                    raise RegistrationError(
                        f"'{model.name}' and '{known.name}' both have an index '{index.name}'.",
                        remedy="Not every database allows that: leave out the name, or choose another.",
                    )

    def _publish(self, operations: list[Operation]) -> None:
        """Add operations to every registry, or to none."""
        added: list[Registry] = []
        try:
            for registry in (runtime.registry for runtime in self._runtimes):
                registry.add(*operations)
                added.append(registry)
        except RegistrationError:
            for registry in added:
                registry.remove(*(operation.name for operation in operations))
            raise

    def register_node(self, cls: type[BaseDataFlowNode]) -> None:
        """Offer a node of one's own to workflows, by the name of its class. Raises RegistrationError."""
        self._add_node(node_of_class(cls, self.database))

    def node(
        self,
        function: Callable[..., Awaitable[Any]] | None = None,
        *,
        name: str = "",
        effect: Effect | str = Effect.RUN,
        internal: bool = True,
    ) -> Any:
        """Offer an async function to workflows; a decorator. Its first parameter is given the models, inside
        of the call, and `query`; the others are the node's, with their types. `restock` is the node
        `RestockNode`; with `internal=False` it is an operation that can be reached from outside. Raises
        RegistrationError."""
        if effect not in tuple(Effect):
            raise RegistrationError(f"There is no effect '{effect}'.", remedy=did_you_mean(effect, Effect))
        if function is None:
            return functools.partial(self.node, name=name, effect=effect, internal=internal)
        self._add_node(
            node_of_function(
                function, self, self.database, name=name, effect=Effect(effect), internal=internal
            )
        )
        return function

    def _add_node(self, operation: Operation) -> None:
        if operation.name in (known.name for known in self._own):
            raise RegistrationError(f"There is a node '{operation.name}' already.")
        operation = replace(operation, replies=self.replies)
        self._publish([operation])
        self._own.append(operation)
        announce(self)

    def contribute(self, runtime: Runtime) -> None:
        made = (operation for made in self._made.values() for operation in made)
        runtime.registry.add(*made, *self._own)
        self._runtimes.append(runtime)

    @property
    def spellings(self) -> frozenset[str]:
        """What workflows may call this instance by."""
        dialect = self.database.dialect
        return frozenset((self.name, dialect.name, dialect.location))

    @property
    def identity(self) -> Hashable:
        """The same for two instances that have the same data."""
        dialect = self.database.dialect
        return (dialect.name, dialect.location) if dialect.lasting else id(self)

    @property
    def shapes(self) -> Mapping[str, Hashable]:
        """What the table of each model is."""
        return {name: model.shape for name, model in self._models.items()}

    @property
    def nodes(self) -> Mapping[str, Operation]:
        """The operations by the names of their nodes and by their own."""
        made = [operation for each in self._made.values() for operation in each] + self._own
        return {operation.name: operation for operation in made} | {
            operation.node: operation for operation in made if operation.node
        }

    @property
    def sync(self) -> SyncDataFlow:
        """The same for programs without an event loop."""
        return SyncDataFlow(self)

    def install_sql(self, *names: str) -> list[str]:
        """The statements that the first use of these models runs, by default of all."""
        wanted = names or tuple(self._models)
        plans = [self.database.plan(self._models[name]) for name in wanted]
        own = [] if names else [each.sql() for each in self._kept_here()]
        return list(dict.fromkeys(sql for plan in (*plans, *own) for sql in plan))

    async def install(self, *names: str) -> list[str]:
        """Make what is missing of these models, by default of all, on purpose; gives their tables. Raises
        SchemaMismatch for what cannot be made, and ConfigurationError in existing_schema_mode."""
        wanted = [self._models[name] for name in names or tuple(self._models)]
        await self.database.install(wanted)
        for each in () if names else self._kept_here():
            await each.install()
        return [model.table_name for model in wanted]

    @property
    def _schema_cache(self) -> SchemaCache:
        """Which tables are known to be there."""
        return self.database.cache

    @staticmethod
    def tenant(name: str) -> AbstractContextManager[None]:
        """Act for a tenant: `with db.tenant("acme"):`. For trusted code, whose session has none."""
        return tenant(name)

    async def check(self) -> None:
        """Return when the database answers; raises NexusError when it cannot be reached."""
        await self.database.pools.check()
        if self._system is not self.database:
            await self._system.pools.check()

    async def close(self) -> None:
        """Close the connections of the running event loop. Workflows that belong to no application do not
        find the models any more, until they are used again."""
        self._withdrawn = True
        withdraw(self)
        await self.database.close()
        if self._system is not self.database:
            await self._system.close()

    def _operations(self, model: Model) -> list[Operation]:
        made = model_operations(model, self.store, self.bulk, self.aggregates)
        return [replace(operation, source=self.name, replies=self.replies) for operation in made]

    def _kept_here(self) -> list[TableRecords]:
        """What the platform keeps in the database of the models."""
        if self.database.mode is SchemaMode.EXISTING:
            return []
        own = self.replies.records
        return [self.records, own] if self._system is self.database else [own]


class PoolManager:
    """The name under which older examples ask for the metrics."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get_pool_metrics(self, database_url: str | None = None) -> dict[str, Any]:
        """Raises ConfigurationError for the URL of another database."""
        location = self._database.dialect.location
        if database_url is not None and dialect_for(database_url).location != location:
            raise ConfigurationError(f"This DataFlow has one database, {location}, and this is another.")
        return self._database.metrics()


def _url(given: str | None, options: dict[str, Any]) -> str:
    """The URL, for which `database` is another word; else the environment's, else the default."""
    other = options.pop("database", None)
    if None not in (given, other):
        raise ConfigurationError("'database' is another word for 'database_url': give one.")
    url = given if other is None else other
    if url is None:
        environment = os.environ
        return environment.get("DATABASE_URL") or environment.get(f"{PREFIX}DATABASE_URL") or DEFAULT_URL
    if not isinstance(url, str) or not url:
        raise ConfigurationError("The database URL must be a text such as 'sqlite:///shop.db'.")
    return url


def _name(given: str | None, database: str) -> str:
    if given is None:
        return database
    if not given.strip() or len(given) > 100:
        raise ConfigurationError("The name of a DataFlow is a text of at most 100 characters.")
    return given
