"""The websocket: subscriptions to what changes, and calls, over one connection."""

from nexus_channels.websocket.channel import WebSocketChannel

__all__ = ["WebSocketChannel"]
