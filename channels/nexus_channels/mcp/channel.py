"""The MCP channel. Neither this module nor `endpoint` imports the SDK, which takes long to load."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp

from nexus.config import Settings
from nexus.runtime import Runtime
from nexus.session import Sessions
from nexus_channels.mcp.endpoint import Endpoint


class McpChannel:
    """Model Context Protocol over streamable HTTP: 2026-07-28 and the handshake revisions before it."""

    name = "mcp"
    path = "/mcp"

    def build(self, runtime: Runtime, sessions: Sessions, settings: Settings) -> ASGIApp:
        self._endpoint = Endpoint(runtime, settings)
        return self._endpoint

    def running(self) -> AbstractAsyncContextManager[None]:
        return self._endpoint.running()

    def hint(self, base_url: str) -> str:
        return f"{'MCP':<10} {base_url}{self.path} (streamable HTTP; stdio: nexus mcp)"
