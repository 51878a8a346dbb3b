"""Channels and servers by name, imported when they are started and not before.

The ones that come with the platform use the same mechanism as those of other people: a dotted name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nexus.channel import Channel
from nexus.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

GROUP = "nexus.channels"

DEFAULT_CHANNELS = {
    "rest": "nexus_channels.rest:RestChannel",
    "websocket": "nexus_channels.websocket:WebSocketChannel",
    "mcp": "nexus_channels.mcp.channel:McpChannel",
}
SERVER = "nexus_channels.server:serve"
ASGI = "nexus_channels.host:Application"


def channel_names() -> list[str]:
    """The default channels, then the installed ones."""
    return [*DEFAULT_CHANNELS, *(point.name for point in _installed())]


def load_channel(name: str) -> Channel:
    """Raises ConfigurationError for a name that nothing installed answers to."""
    if name in DEFAULT_CHANNELS:
        factory = load(DEFAULT_CHANNELS[name])
    else:
        found = _installed().select(name=name)
        if not found:
            raise ConfigurationError(
                f"There is no channel '{name}'.", remedy=did_you_mean(name, channel_names())
            )
        factory = next(iter(found)).load()
    channel: Channel = factory()
    return channel


def load(dotted: str) -> Any:
    """The object that `package.module:name` means."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def _installed() -> EntryPoints:
    # Importing it takes as long as half of the kernel, and a program that serves nothing never asks.
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)
