"""The ways in: REST, the terminal, MCP, the websocket. Each is imported when it starts."""

__all__: list[str] = []
