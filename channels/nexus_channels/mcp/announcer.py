"""Tells connected clients what has changed, in both eras of the protocol: that tools and resources have come
or gone, and that a resource to which they subscribe is to be read again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.subscriptions import (
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
    event_to_notification,
)
from mcp_types import (
    NotificationParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenResult,
)

from nexus.errors import Unavailable
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp.following import Followings
from nexus_channels.mcp.outbox import Outbox
from nexus_channels.mcp.resources import listed

logger = logging.getLogger("nexus")

STREAMS = 1024
_BURST = 0.05  # registering a model registers several operations: that is one announcement

Context = ServerRequestContext[Any]


class Announcer:
    """Clients of 2026-07-28 hold a listen stream open; older ones are told on their connection."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._counts: Counter[str] = Counter()
        self._listening: dict[Outbox, SubscriptionFilter] = {}
        self._clients: dict[Connection, _Client] = {}
        self._streams: set[str] = set()

    async def listen(
        self, ctx: Context, wanted: SubscriptionFilter, session: Session
    ) -> SubscriptionsListenResult:
        """Serve one listen stream until the client leaves or the server closes. Raises NexusError when a
        resource cannot be followed, or not any more. Kinds that never change here are left out of what the
        client is promised."""
        if len(self._listening) >= STREAMS:
            raise Unavailable(f"{STREAMS} clients listen already.", remedy="Try again later.")
        uris = list(dict.fromkeys(wanted.resource_subscriptions or ()))
        promised = SubscriptionFilter(
            tools_list_changed=wanted.tools_list_changed or None,
            resources_list_changed=wanted.resources_list_changed or None,
            resource_subscriptions=uris or None,
        )
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}

        async def send(event: ServerEvent) -> None:
            notification = event_to_notification(event, meta)
            await ctx.session.send_notification(notification, related_request_id=ctx.request_id)

        outbox = Outbox(send)
        followings = Followings(self._runtime, outbox, self._counts, outbox.close)
        self._listening[outbox] = promised
        try:
            for uri in uris:
                await followings.add(session, uri)
            acknowledged = SubscriptionsAcknowledgedNotificationParams(notifications=promised, _meta=meta)
            await ctx.session.send_notification(
                SubscriptionsAcknowledgedNotification(params=acknowledged), related_request_id=ctx.request_id
            )
            followings.start()
            outbox.open()
            await outbox.run()
        finally:
            del self._listening[outbox]
            followings.close()
        return SubscriptionsListenResult(_meta=meta)

    async def initialized(self, ctx: Context, params: NotificationParams) -> None:
        """A handshake is complete."""
        self._client(ctx)

    async def subscribe(self, ctx: Context, uri: str, session: Session) -> None:
        """Tell this client of the handshake revisions of changes to a resource. Raises NexusError."""
        await self._client(ctx).followings.add(session, uri)

    def unsubscribe(self, ctx: Context, uri: str) -> None:
        """Raises NotFound for what it is not subscribed to."""
        self._client(ctx).followings.remove(uri)

    @contextmanager
    def streaming(self, session_id: str) -> Iterator[None]:
        """Entered while the client with this session of the protocol has a stream over which it is told."""
        self._streams.add(session_id)
        for client in self._with(session_id):
            client.resume()
        try:
            yield
        finally:
            self._streams.discard(session_id)
            for client in self._with(session_id):
                client.suspend()

    @asynccontextmanager
    async def announcing(self) -> AsyncIterator[None]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:  # in whichever thread registers
            with suppress(RuntimeError):  # the loop may have closed meanwhile
                loop.call_soon_threadsafe(changed.set)

        forget = self._runtime.registry.watch(tell)
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
        for outbox in self._listening:
            outbox.close()

    async def _announce(self, changed: asyncio.Event) -> None:
        resources = listed(self._runtime.registry)
        while True:
            await changed.wait()
            await asyncio.sleep(_BURST)
            changed.clear()
            before, resources = resources, listed(self._runtime.registry)
            self._publish(also_resources=resources != before)

    def _publish(self, *, also_resources: bool) -> None:
        for outbox, promised in self._listening.items():
            if promised.tools_list_changed:
                outbox.put(ToolsListChanged())
            if also_resources and promised.resources_list_changed:
                outbox.put(ResourcesListChanged())
        for client in self._clients.values():
            client.outbox.put(ToolsListChanged())
            if also_resources:
                client.outbox.put(ResourcesListChanged())

    def _client(self, ctx: Context) -> _Client:
        connection = connection_of(ctx)
        client = self._clients.get(connection)
        if client is None:
            client = self._clients[connection] = _Client(self._runtime, connection, self._counts)
            connection.exit_stack.push_async_callback(self._forget, connection)
            if connection.session_id is None or connection.session_id in self._streams:
                client.resume()
        return client

    async def _forget(self, connection: Connection) -> None:
        await self._clients.pop(connection).close()

    def _with(self, session_id: str) -> list[_Client]:
        return [client for client in self._clients.values() if client.session_id == session_id]


def connection_of(ctx: Context) -> Connection:
    """The SDK has no public way to the connection behind a session."""
    return ctx.session._connection


class _Client:
    """A client of the handshake revisions. While it has no stream it is only remembered: what it would have
    been told is told when it has one again."""

    def __init__(self, runtime: Runtime, connection: Connection, counts: Counter[str]) -> None:
        self.session_id = connection.session_id
        self.outbox = Outbox(self._send)
        self.followings = Followings(runtime, self.outbox, counts)
        self._connection = connection
        self._was_told = False
        self._task = asyncio.create_task(self.outbox.run())

    def resume(self) -> None:
        if self._was_told:  # and perhaps has not got what was sent last
            self.followings.all_changed()
        self._was_told = True
        self.followings.start()
        self.outbox.open()

    def suspend(self) -> None:
        self.outbox.hold()
        self.followings.stop()

    async def close(self) -> None:
        self.followings.close()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _send(self, event: ServerEvent) -> None:
        match event:
            case ToolsListChanged():
                await self._connection.send_tool_list_changed()
            case ResourcesListChanged():
                await self._connection.send_resource_list_changed()
            case ResourceUpdated():
                await self._connection.send_resource_updated(event.uri)
