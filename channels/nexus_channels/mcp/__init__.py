"""MCP: operations as tools, models as resources, for AI agents; over HTTP and over stdin and stdout."""
