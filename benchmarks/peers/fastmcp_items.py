"""FastMCP, as its documentation shows it, over the same hand-written items.

python -m benchmarks.peers.fastmcp_items PORT URL
"""

import datetime
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastmcp import FastMCP
from pydantic import BaseModel

from benchmarks.floor.items import Items
from benchmarks.floor.mcp import TOOLS
from benchmarks.peers.serving import serve

items = Items(sys.argv[2])


class Item(BaseModel):
    id: int
    name: str
    price: float
    stock: int
    active: bool
    note: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime


@asynccontextmanager
async def lifespan(server: FastMCP[Any]) -> AsyncIterator[None]:
    await items.open()
    yield
    await items.close()


mcp = FastMCP("items", lifespan=lifespan)


async def get_item(id: int) -> Item:
    """Read an item by its id."""
    return Item.model_validate(msgspec.structs.asdict(await items.get(id)))


for number in range(TOOLS):
    mcp.tool(get_item, name="get_item" if number == 0 else f"tool_{number}")

app = mcp.http_app(path="/mcp", json_response=True)

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
