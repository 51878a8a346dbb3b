"""Models as MCP resources: nexus://products is the first page of a list, nexus://products/7 a record."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import msgspec
from mcp_types import Resource, ResourceTemplate, TextResourceContents

from nexus.errors import NotFound, did_you_mean
from nexus.registry import Registry
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp.tools import page

SCHEME = "nexus://"
MEDIA = "application/json"


def listed(registry: Registry) -> list[str]:
    """The names of the resources that can be read as a list, in order."""
    return sorted(name for name in registry.resources() if "list" in registry.verbs(name))


def resource_page(registry: Registry, cursor: str | None) -> tuple[list[Resource], str | None]:
    """Raises InvalidCursor."""
    names = listed(registry)
    indices, following = page(names, cursor)
    return [_resource(registry, names[index]) for index in indices], following


def templates(registry: Registry) -> list[ResourceTemplate]:
    if not any("get" in registry.verbs(name) for name in registry.resources()):
        return []
    return [
        ResourceTemplate(
            name="record",
            title="A record",
            uri_template=SCHEME + "{resource}/{id}",
            description="One record of a resource, by its id.",
            mime_type=MEDIA,
        )
    ]


async def read(runtime: Runtime, session: Session, uri: str) -> TextResourceContents:
    """Raises NexusError."""
    resource, _, key = (unquote(part) for part in uri.removeprefix(SCHEME).partition("/"))
    operation = runtime.registry.verbs(resource).get("get" if key else "list")
    if operation is None or not uri.startswith(SCHEME):
        known = [SCHEME + name for name in listed(runtime.registry)]
        raise NotFound(f"There is no resource '{uri[:200]}'.", remedy=did_you_mean(uri, known))
    arguments: dict[str, Any] = {"id": operation.arguments.from_text("id", key)} if key else {}
    result = await runtime.invoke(operation.name, arguments, session, channel="mcp")
    return TextResourceContents(uri=uri, mime_type=MEDIA, text=msgspec.json.encode(result).decode())


def _resource(registry: Registry, name: str) -> Resource:
    summary = registry.verbs(name)["list"].summary
    return Resource(
        name=name,
        title=name.replace("_", " ").capitalize(),
        uri=SCHEME + quote(name),
        description=summary or None,
        mime_type=MEDIA,
    )
