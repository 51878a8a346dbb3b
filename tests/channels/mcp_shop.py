"""An application with a database for the tests of MCP. Run as a program with the database's URL it speaks MCP
over stdio."""

from __future__ import annotations

import asyncio
import sys

from dataflow import DataFlow
from nexus import Nexus, Settings


def build(url: str, settings: Settings | None = None) -> Nexus:
    db = DataFlow(url)

    @db.model
    class Product:
        name: str
        stock: int = 0

    @db.model
    class Note:
        __dataflow__ = {"multi_tenant": True}
        text: str

    @db.model
    class Silent:
        __dataflow__ = {"changes": False}
        name: str

    return Nexus(db, settings=settings)


if __name__ == "__main__":
    from nexus_channels.mcp.stdio import serve_stdio

    asyncio.run(serve_stdio(build(sys.argv[1])))
