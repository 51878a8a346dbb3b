"""Any ASGI application behind uvicorn itself, as other people run it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def hosted(asgi: Any, **options: Any) -> AsyncIterator[str]:
    """Gives the base URL. What cannot start ends the whole program, as uvicorn does it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(asgi, log_config=None, lifespan=options.pop("lifespan", "on"), **options)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            async with asyncio.timeout(10):
                while not server.started:  # noqa: ASYNC110, it has no event
                    await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            async with asyncio.timeout(10):
                await serving
