"""The network between an application and its database, which can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Network:
    """Between the application and its database, and sometimes not there."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, to_there = await asyncio.open_connection(*self._there)
        self._writers |= {writer, to_there}
        await asyncio.gather(self._pass(reader, to_there), self._pass(there, writer))
        self._writers -= {writer, to_there}

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()


@asynccontextmanager
async def network(url: str) -> AsyncIterator[tuple[Network, str]]:
    """And the database's URL through it."""
    parts = urlsplit(url)
    made = Network(parts.hostname or "", parts.port or 0)
    await made.up()
    try:
        yield made, parts._replace(netloc=f"{parts.username}@127.0.0.1:{made.port}").geturl()
    finally:
        made.flow()
        await made.down()
