"""Models as MCP resources: nexus://products is the first page of a list, nexus://products/7 a record."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec
from mcp_types import Resource, ResourceTemplate, TextResourceContents

from nexus.errors import NotFound, did_you_mean
from nexus.operation import Operation
from nexus.registry import Registry
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp.tools import page

SCHEME = "nexus://"
MEDIA = "application/json"


def listed(registry: Registry) -> list[str]:
    """The names of the resources that can be read as a list, in order."""
    return sorted(name for name in registry.resources() if "list" in registry.verbs(name))


def can_be_followed(runtime: Runtime) -> bool:
    """Whether there is any of which it is known when it changes."""
    topics = set(runtime.feed.topics())
    return any(name in topics for name in listed(runtime.registry))


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


@dataclass(frozen=True, slots=True)
class Located:
    """What a URI stands for: a list of `name`, or with a `key` one record of it."""

    uri: str
    name: str
    reading: Operation
    key: object = None

    @property
    def where(self) -> dict[str, object] | None:
        """The filter of the records that it shows."""
        return None if self.key is None else {"id": msgspec.to_builtins(self.key)}

    async def read(self, runtime: Runtime, session: Session) -> TextResourceContents:
        """Raises NexusError."""
        arguments = {} if self.key is None else {"id": self.key}
        result = await runtime.invoke(self.reading.name, arguments, session, channel="mcp")
        return TextResourceContents(uri=self.uri, mime_type=MEDIA, text=msgspec.json.encode(result).decode())


def find(registry: Registry, uri: str) -> Located:
    """Raises NotFound, InvalidArguments."""
    resource, _, key = (unquote(part) for part in uri.removeprefix(SCHEME).partition("/"))
    operation = registry.verbs(resource).get("get" if key else "list")
    if operation is None or not uri.startswith(SCHEME):
        known = [SCHEME + name for name in listed(registry)]
        raise NotFound(f"There is no resource '{uri[:200]}'.", remedy=did_you_mean(uri, known))
    return Located(uri, resource, operation, operation.arguments.from_text("id", key) if key else None)


def _resource(registry: Registry, name: str) -> Resource:
    summary = registry.verbs(name)["list"].summary
    return Resource(
        name=name,
        title=name.replace("_", " ").capitalize(),
        uri=SCHEME + quote(name),
        description=summary or None,
        mime_type=MEDIA,
    )
