"""How peers are served: the server and the settings that ours has."""

from __future__ import annotations

from typing import Any

import uvicorn


def serve(app: Any, port: int) -> None:
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )


def asynchronous(url: str) -> str:
    """A URL as SQLAlchemy's asynchronous engine takes it."""
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+aiomysql"}
    kind, _, rest = url.partition(":")
    return f"{drivers[kind]}:{rest}"
