"""FastAPI and SQLModel, as their tutorials show it, with the asynchronous session.

python -m benchmarks.peers.fastapi_items PORT URL
"""

import datetime
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from sqlalchemy import Column, DateTime, event
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from benchmarks.peers.serving import asynchronous, serve


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class ItemBase(SQLModel):
    name: str = Field(max_length=255)
    price: float = 0.0
    stock: int = 0
    active: bool = True
    note: str | None = Field(default=None, max_length=255)


class Item(ItemBase, table=True):
    __tablename__ = "benchmark_fastapi"
    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime.datetime = Field(
        default_factory=now, sa_column=Column(DateTime(timezone=True), nullable=False)
    )
    updated_at: datetime.datetime = Field(
        default_factory=now, sa_column=Column(DateTime(timezone=True), nullable=False)
    )


class ItemPublic(ItemBase):
    id: int
    created_at: datetime.datetime
    updated_at: datetime.datetime


class ItemUpdate(SQLModel):
    name: str | None = None
    price: float | None = None
    stock: int | None = None
    active: bool | None = None
    note: str | None = None


engine = create_async_engine(asynchronous(sys.argv[2]), pool_size=10)
if engine.dialect.name == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def write_ahead(connection, record):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")


sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/items/{item_id}", response_model=ItemPublic)
async def read_item(item_id: int, session: Session):
    item = await session.get(Item, item_id)
    if not item:
        raise HTTPException(status_code=404, detail="Item not found")
    return item


@app.get("/items", response_model=list[ItemPublic])
async def read_items(session: Session, offset: int = 0, limit: Annotated[int, Query(le=100)] = 100):
    return (await session.exec(select(Item).order_by(Item.id).offset(offset).limit(limit))).all()


@app.post("/items", response_model=ItemPublic, status_code=201)
async def create_item(item: ItemBase, session: Session):
    made = Item.model_validate(item)
    session.add(made)
    await session.commit()
    await session.refresh(made)
    return made


@app.patch("/items/{item_id}", response_model=ItemPublic)
async def update_item(item_id: int, item: ItemUpdate, session: Session):
    found = await session.get(Item, item_id)
    if not found:
        raise HTTPException(status_code=404, detail="Item not found")
    found.sqlmodel_update(item.model_dump(exclude_unset=True))
    found.updated_at = now()
    session.add(found)
    await session.commit()
    await session.refresh(found)
    return found


if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
