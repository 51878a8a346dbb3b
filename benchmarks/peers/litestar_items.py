"""Litestar and advanced-alchemy, as their documentation shows it: a repository in a service, msgspec schemas.

python -m benchmarks.peers.litestar_items PORT URL
"""

import datetime
import sys
from typing import Annotated

import msgspec
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
    filters,
    providers,
    repository,
    service,
)
from litestar import Controller, Litestar, get, patch, post
from litestar.params import Dependency
from sqlalchemy import String, event
from sqlalchemy.orm import Mapped, mapped_column

from benchmarks.peers.serving import asynchronous, serve


class ItemModel(base.BigIntAuditBase):
    __tablename__ = "benchmark_litestar"
    name: Mapped[str] = mapped_column(String(255))
    price: Mapped[float] = mapped_column(default=0.0)
    stock: Mapped[int] = mapped_column(default=0)
    active: Mapped[bool] = mapped_column(default=True)
    note: Mapped[str | None] = mapped_column(String(255), default=None)


class Item(msgspec.Struct):
    id: int
    name: str
    price: float
    stock: int
    active: bool
    note: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime


class ItemCreate(msgspec.Struct):
    name: str
    price: float = 0.0
    stock: int = 0
    active: bool = True
    note: str | None = None


class ItemUpdate(msgspec.Struct, omit_defaults=True):
    name: str | msgspec.UnsetType = msgspec.UNSET
    price: float | msgspec.UnsetType = msgspec.UNSET
    stock: int | msgspec.UnsetType = msgspec.UNSET
    active: bool | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType | None = msgspec.UNSET


class ItemService(service.SQLAlchemyAsyncRepositoryService[ItemModel]):
    class Repo(repository.SQLAlchemyAsyncRepository[ItemModel]):
        model_type = ItemModel

    repository_type = Repo


class ItemController(Controller):
    path = "/items"
    dependencies = providers.create_service_dependencies(
        ItemService,
        "items",
        filters={"pagination_type": "limit_offset", "sort_field": "id", "sort_order": "asc"},
    )

    @get()
    async def list_items(
        self,
        items: ItemService,
        filters: Annotated[list[filters.FilterTypes], Dependency(skip_validation=True)],
    ) -> service.OffsetPagination[Item]:
        found, total = await items.list_and_count(*filters)
        return items.to_schema(found, total, filters=filters, schema_type=Item)

    @post()
    async def create_item(self, items: ItemService, data: ItemCreate) -> Item:
        made = await items.create(data)
        return items.to_schema(made, schema_type=Item)

    @get("/{item_id:int}")
    async def get_item(self, items: ItemService, item_id: int) -> Item:
        return items.to_schema(await items.get(item_id), schema_type=Item)

    @patch("/{item_id:int}")
    async def update_item(self, items: ItemService, data: ItemUpdate, item_id: int) -> Item:
        return items.to_schema(await items.update(data, item_id=item_id), schema_type=Item)


alchemy = SQLAlchemyAsyncConfig(
    connection_string=asynchronous(sys.argv[2]),
    before_send_handler="autocommit",
    session_config=AsyncSessionConfig(expire_on_commit=False),
    engine_config=EngineConfig(pool_size=10),
    create_all=True,
)
engine = alchemy.get_engine()
if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def write_ahead(connection, record):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")


app = Litestar(route_handlers=[ItemController], plugins=[SQLAlchemyPlugin(config=alchemy)])

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
