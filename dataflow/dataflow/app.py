"""DataFlow: models of one database, and what they offer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TypeVar

from dataflow.changelog import ChangeLog
from dataflow.database import Database
from dataflow.dialects import dialect_for
from dataflow.model import Model, model_from, refuse_instances
from dataflow.nodes import crud_operations
from dataflow.scope import tenant
from dataflow.store import Store
from nexus.errors import ConfigurationError, RegistrationError
from nexus.operation import Operation
from nexus.registry import Registry

T = TypeVar("T", bound=type)

DEFAULT_URL = "sqlite:///data.db"


class DataFlow:
    """The models of one database.

        db = DataFlow("sqlite:///shop.db")

        @db.model
        class Product:
            name: str
            price: float

    Without a URL: the environment's DATABASE_URL, else the file data.db in the current folder. `:memory:` is
    a database of this instance, gone with it. Nothing is opened before the first use. Raises
    DatabaseUrlError for a URL that cannot be used.
    """

    def __init__(self, database_url: str | None = None) -> None:
        url = database_url if database_url is not None else os.environ.get("DATABASE_URL", DEFAULT_URL)
        if not url:
            raise ConfigurationError("The database URL must be a text such as 'sqlite:///shop.db'.")
        self.database = Database(dialect_for(url))
        self.store = Store(self.database)
        self._models: dict[str, Model] = {}
        self._registries: list[Registry] = []

    @property
    def models(self) -> Mapping[str, Model]:
        return MappingProxyType(self._models)

    @property
    def changes(self) -> ChangeLog:
        return self.database.changes

    def model(self, cls: T) -> T:
        """Register a class as a model; a decorator. Its operations appear in every application that has
        this DataFlow, at once. Raises RegistrationError."""
        model = model_from(cls)
        for known in self._models.values():
            if model.name == known.name:
                raise RegistrationError(f"There is a model '{model.name}' already.")
            if model.table_name == known.table_name or model.route == known.route:
                raise RegistrationError(
                    f"'{model.name}' and '{known.name}' would have the same table or route.",
                    remedy='Set __tablename__, or __dataflow__ = {"route": "…"}.',
                )
        operations = self._operations(model)
        added: list[Registry] = []
        try:
            for registry in self._registries:
                registry.add(*operations)
                added.append(registry)
        except RegistrationError:
            for registry in added:
                registry.remove(*(operation.name for operation in operations))
            raise
        self._models[model.name] = model
        self.changes.follow(model)
        refuse_instances(cls)
        return cls

    def contribute(self, registry: Registry) -> None:
        registry.add(*(operation for model in self._models.values() for operation in self._operations(model)))
        self._registries.append(registry)

    def install_sql(self, *names: str) -> list[str]:
        """The statements that the first use of these models runs, by default of all."""
        wanted = names or tuple(self._models)
        plans = [self.database.plan(self._models[name]) for name in wanted]
        return list(dict.fromkeys(sql for plan in plans for sql in plan))

    @staticmethod
    def tenant(name: str) -> AbstractContextManager[None]:
        """Act for a tenant: `with db.tenant("acme"):`. For trusted code, whose session has none."""
        return tenant(name)

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        await self.database.close()

    def _operations(self, model: Model) -> list[Operation]:
        return crud_operations(model, self.store)
