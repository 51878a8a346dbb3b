"""Tells connected clients that tools and resources have come or gone, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ToolsListChanged,
)
from mcp_types import NotificationParams, SubscriptionsListenRequestParams, SubscriptionsListenResult

from nexus.registry import Registry
from nexus_channels.mcp.resources import listed

logger = logging.getLogger("nexus")

_BURST = 0.05  # registering a model registers several operations: that is one announcement
_PATIENCE = 5.0


class Announcer:
    """Clients of 2026-07-28 hold a listen stream open; older ones are told on their connection."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(self._bus)
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    async def listen(
        self, ctx: ServerRequestContext[Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve one listen stream. What never changes here is left out of what the client is promised."""
        unserved = {"prompts_list_changed": None, "resource_subscriptions": None}
        wanted = params.notifications.model_copy(update=unserved)
        return await self._streams(ctx, params.model_copy(update={"notifications": wanted}))

    async def initialized(self, ctx: ServerRequestContext[Any], params: NotificationParams) -> None:
        """A handshake is complete. The SDK has no public way to the connection behind a session."""
        self._connections.add(ctx.session._connection)

    @asynccontextmanager
    async def announcing(self) -> AsyncIterator[None]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:  # in whichever thread registers
            with suppress(RuntimeError):  # the loop may have closed meanwhile
                loop.call_soon_threadsafe(changed.set)

        forget = self._registry.watch(tell)
        task = asyncio.create_task(self._announce(changed))
        try:
            yield
        finally:
            forget()
            self.close()
            task.cancel()
            await asyncio.wait({task})

    def close(self) -> None:
        """End the listen streams, each with its final message."""
        self._streams.close()

    async def _announce(self, changed: asyncio.Event) -> None:
        resources = listed(self._registry)
        while True:
            await changed.wait()
            await asyncio.sleep(_BURST)
            changed.clear()
            before, resources = resources, listed(self._registry)
            await self._publish(also_resources=resources != before)

    async def _publish(self, *, also_resources: bool) -> None:
        await self._bus.publish(ToolsListChanged())
        if also_resources:
            await self._bus.publish(ResourcesListChanged())
        await asyncio.gather(*(_notify(each, also_resources) for each in tuple(self._connections)))


async def _notify(connection: Connection, also_resources: bool) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):  # a client that does not read hurts nobody else
            await connection.send_tool_list_changed()
            if also_resources:
                await connection.send_resource_list_changed()
    except TimeoutError:
        logger.warning("an MCP client does not read its notifications")
    except Exception:
        logger.exception("an MCP client could not be told of a change")
