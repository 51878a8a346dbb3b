"""Tools over items on the bare low-level SDK: no registry, no validation, as many tools as ours has.

python -m benchmarks.floor.mcp PORT URL
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from mcp import types
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.floor.items import Items, NewItem
from benchmarks.peers.serving import serve

TOOLS = 25
_INPUT = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
_OUTPUT = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "price": {"type": "number"},
        "stock": {"type": "integer"},
        "active": {"type": "boolean"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "created_at": {"type": "string", "format": "date-time"},
        "updated_at": {"type": "string", "format": "date-time"},
    },
    "required": ["id", "name", "price", "stock", "active", "note", "created_at", "updated_at"],
}

items = Items(sys.argv[2])
tools = [
    types.Tool(
        name="get_item" if number == 0 else f"tool_{number}",
        description="Read an item by its id.",
        input_schema=_INPUT,
        output_schema=_OUTPUT,
    )
    for number in range(TOOLS)
]


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=tools)


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    item = await items.get((params.arguments or {})["id"])
    text = msgspec.json.encode(item).decode()
    content = types.TextContent(type="text", text=text)
    return types.CallToolResult(content=[content], structured_content=msgspec.to_builtins(item))


server = Server(
    "items",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    get_tool_input_schema=lambda name: _INPUT,
)
server.streamable_http_app(
    json_response=True,
    transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await items.open()
    if await items.get(1) is None:
        await items.create(NewItem("item 1", 0.25))
    async with server.session_manager.run():
        yield
    await items.close()


app = Starlette(
    routes=[Route("/mcp", endpoint=StreamableHTTPASGIApp(server.session_manager))], lifespan=lifespan
)

if __name__ == "__main__":
    serve(app, int(sys.argv[1]))
