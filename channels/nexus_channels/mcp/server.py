"""The SDK's low-level server over a runtime: every request looks the registry up."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    NotificationParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ServerCapabilities,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    UnsubscribeRequestParams,
)

from nexus.errors import NexusError
from nexus.request import new_request
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp import resources
from nexus_channels.mcp.announcer import Announcer
from nexus_channels.mcp.calls import Begun, Calls, Outcome
from nexus_channels.mcp.peers import BEGUN, Peers

_INSTRUCTIONS = (
    "Tools are named after what they work on and what they do, as in products_list. A call that fails"
    " changes nothing, and its first text begins with a code such as DF-101, names what is wrong and says"
    " what to do; the second text is the same as JSON. Records can also be read as resources:"
    " nexus://products, nexus://products/7."
)
# Everything depends on who asks, and may change at any time.
_FRESH = CacheHint(ttl_ms=0, scope="private")
_LAST_WORDS = 1.0

Context = ServerRequestContext[Any]


class NexusServer(Server[Any]):
    """The server for one runtime. `limit` bounds the arguments of a call, in bytes of JSON. Without a
    `session` it acts for the one that the host has put into each request's scope."""

    def __init__(
        self, runtime: Runtime, announcer: Announcer, *, limit: int, session: Session | None = None
    ) -> None:
        self._runtime = runtime
        self.calls = Calls(runtime, limit)
        self.peers = Peers()
        handlers = _Handlers(runtime, announcer, self.calls, self.peers, session)
        super().__init__(
            "nexus",
            version=_version(),
            instructions=_INSTRUCTIONS,
            cache_hints={
                "resources/list": _FRESH,
                "resources/templates/list": _FRESH,
                "resources/read": _FRESH,
            },
            get_tool_input_schema=self.calls.toolbox.checked_schema,
            on_call_tool=handlers.call_tool,
            on_list_resources=handlers.list_resources,
            on_list_resource_templates=handlers.list_templates,
            on_read_resource=handlers.read_resource,
            on_subscribe_resource=handlers.subscribe,
            on_unsubscribe_resource=handlers.unsubscribe,
            on_subscriptions_listen=handlers.listen,
        )
        self.add_request_handler("tools/list", PaginatedRequestParams, handlers.list_tools)
        self.add_notification_handler("notifications/initialized", NotificationParams, announcer.initialized)

    async def stop(self) -> None:
        """Cancel the calls that run. The SDK would do so itself, but only after it has cut their way back,
        which then costs it a second."""
        if running := set(self.calls.running):
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=_LAST_WORDS)

    # What the SDK's server says of itself, corrected to what this one does.

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        changes = NotificationOptions(tools_changed=True, resources_changed=True)
        return super().create_initialization_options(
            notification_options or changes, experimental_capabilities, extensions
        )

    def get_capabilities(self, *args: Any, **options: Any) -> ServerCapabilities:
        capabilities = super().get_capabilities(*args, **options)
        if capabilities.resources is not None:
            capabilities.resources.subscribe = resources.can_be_followed(self._runtime)
        return capabilities


class _Handlers:
    def __init__(
        self, runtime: Runtime, announcer: Announcer, calls: Calls, peers: Peers, session: Session | None
    ) -> None:
        self._runtime = runtime
        self._announcer = announcer
        self._calls = calls
        self._peers = peers
        self._session = session

    async def list_tools(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        self._peers.admit(ctx)
        try:
            return self._calls.toolbox.page(params.cursor)
        except NexusError as failure:
            raise _wire(failure) from None

    async def call_tool(self, ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        self._peers.admit(ctx)
        scope = {} if ctx.request is None else ctx.request.scope
        begun: Begun | None = scope.get(BEGUN)
        if begun is not None:
            return _result(await begun.take_over())
        request = scope.get("nexus.request") or new_request()
        return _result(
            await self._calls.run(params.name, params.arguments, params.meta, self._caller(ctx), request)
        )

    async def list_resources(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        try:
            found, following = resources.resource_page(
                self._runtime.registry, params.cursor if params else None
            )
        except NexusError as failure:
            raise _wire(failure) from None
        return ListResourcesResult(resources=found, next_cursor=following)

    async def list_templates(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=resources.templates(self._runtime.registry))

    async def read_resource(self, ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        try:
            found = resources.find(self._runtime.registry, params.uri)
            content = await found.read(self._runtime, self._caller(ctx))
        except NexusError as failure:
            raise _wire(failure) from None
        return ReadResourceResult(contents=[content])

    async def subscribe(self, ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        try:
            await self._announcer.subscribe(ctx, params.uri, self._caller(ctx))
        except NexusError as failure:
            raise _wire(failure) from None
        return EmptyResult()

    async def unsubscribe(self, ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        try:
            self._announcer.unsubscribe(ctx, params.uri)
        except NexusError as failure:
            raise _wire(failure) from None
        return EmptyResult()

    async def listen(
        self, ctx: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        try:
            return await self._announcer.listen(ctx, params.notifications, self._caller(ctx))
        except NexusError as failure:
            raise _wire(failure) from None

    def _caller(self, ctx: Context) -> Session:
        if self._session is not None:
            return self._session
        if ctx.request is None:
            raise NexusError("This request came without a session.")
        session: Session = ctx.request.scope["nexus.session"]
        return session


def _result(outcome: Outcome) -> CallToolResult:
    structured = None if outcome.structured is None else msgspec.json.decode(outcome.structured)
    return CallToolResult(
        content=[TextContent(text=text) for text in outcome.texts],
        structured_content=structured,
        is_error=outcome.failed,
        _meta=None if outcome.meta is None else dict(outcome.meta),
    )


def _wire(failure: NexusError) -> MCPError:
    """A failure of what is not a tool call, which has no other form than a JSON-RPC error."""
    code = INVALID_PARAMS if failure.status < 500 else INTERNAL_ERROR
    return MCPError(code, f"{failure.code} {failure}", failure.describe())


def _version() -> str:
    try:
        return version("nexus-platform")
    except PackageNotFoundError:  # run from a source tree
        return ""
