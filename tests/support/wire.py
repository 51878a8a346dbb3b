"""A websocket client that speaks frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

PATIENCE = 5.0


class Wire:
    """Frames out and frames in, each within a few seconds or the test fails."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **frame: object) -> None:
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
        return frame

    async def ask(self, **frame: object) -> dict[str, Any]:
        await self.send(**frame)
        return await self.receive()

    async def subscribe(self, identifier: str = "s", topic: str = "things", **more: object) -> str:
        """Subscribe without a snapshot; gives the cursor."""
        ready = await self.ask(type="subscribe", id=identifier, topic=topic, **more)
        assert ready["type"] == "ready", ready
        cursor: str = ready["cursor"]
        return cursor

    async def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.connection.recv()
        except TimeoutError:
            return True
        return False

    async def closed(self) -> int | None:
        """Wait for the end; gives the code."""
        async with asyncio.timeout(PATIENCE):
            await self.connection.wait_closed()
        return self.connection.close_code


@asynccontextmanager
async def wire(
    base_url: str, *, path: str = "/ws", offer: str = "nexus.v1", **more: Any
) -> AsyncIterator[Wire]:
    url = base_url.replace("http", "ws", 1) + path
    subprotocols = [Subprotocol(offer)] if offer else None
    async with connect(url, subprotocols=subprotocols, proxy=None, max_size=None, **more) as connection:
        yield Wire(connection)
