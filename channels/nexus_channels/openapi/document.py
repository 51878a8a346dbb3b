"""The whole document, made anew when the registry has changed and somebody asks."""

from __future__ import annotations

from typing import Any

import msgspec

from nexus.registry import Registry
from nexus_channels.guard import OPEN_PATHS
from nexus_channels.openapi.around import HEADERS, Limits, add_limits
from nexus_channels.openapi.components import Components, JsonSchema, encoded
from nexus_channels.openapi.paths import Paths, tags
from nexus_channels.openapi.responses import PROBLEM_SCHEMA, shared_responses
from nexus_channels.openapi.system import api_paths, host_paths

VERSION = "3.1.0"
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer and the API key"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The API key"},
}
_DESCRIPTION = """Every operation that is registered, by its address.

Lists take `filter` (JSON), and short forms of it beside: `name=Lamp`, `price[gte]=3`, `status[in]=a,b`, with
the operators of filters after a field's name. Answers to what is wrong are problem documents (RFC 9457)."""


def describe(
    registry: Registry,
    *,
    title: str = "Nexus",
    version: str = "",
    locked: bool = False,
    prefix: str | None = "/api",
    root: str = "",
    limits: Limits = Limits(),  # noqa: B008
) -> JsonSchema:
    """The OpenAPI document of what is registered now. `locked`: a credential is needed. `prefix` is where the
    REST channel is, None without one; `root` what the server is mounted at, `limits` which
    there are."""
    components = Components()
    paths = Paths(registry, components, prefix or "", locked=locked, limits=limits)
    if prefix is not None:
        paths.build()
    components.add("Problem", PROBLEM_SCHEMA)
    found = host_paths(locked=locked)
    if prefix is not None:
        found |= api_paths(prefix, locked=locked)
    add_limits(found, limits, prefix=prefix, free=OPEN_PATHS)
    texts = [encoded(path) for path in found.values()] + list(paths.made.values())
    document: JsonSchema = {
        "openapi": VERSION,
        "info": {
            "title": title,
            "version": version or "0",
            "description": _DESCRIPTION,
            "contact": {"name": title},
        },
        "servers": [{"url": root or "/"}],
        "tags": tags(registry),
        "paths": {**found, **paths.made},
        "components": {
            "schemas": components.schemas,
            "responses": _used(shared_responses(), texts),
        },
    }
    if paths.parameters:
        document["components"]["parameters"] = paths.parameters
    if limits.rate:
        document["components"]["headers"] = HEADERS
    if locked:
        document["components"]["securitySchemes"] = _SCHEMES
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def _used(responses: JsonSchema, paths: list[msgspec.Raw]) -> JsonSchema:
    wanted = {name: f'"#/components/responses/{name}"'.encode() for name in responses}
    used: set[str] = set()
    for path in paths:
        text = bytes(path)
        used.update(name for name, reference in wanted.items() if name not in used and reference in text)
    return {name: one for name, one in responses.items() if name in used}


class Described:
    """The document as JSON, kept until the registry changes."""

    def __init__(self, registry: Registry, **about: Any) -> None:
        self._registry = registry
        self._about = about
        self._kept: tuple[int, str, bytes] = (-1, "", b"")

    def document(self, root: str) -> bytes:
        """May take seconds where there are hundreds of models: not for the event loop."""
        version = self._registry.version  # read first: a change meanwhile is then seen the next time
        kept = self._kept
        if kept[:2] != (version, root):
            made = msgspec.json.encode(describe(self._registry, root=root, **self._about))
            kept = self._kept = (version, root, made)
        return kept[2]

    def known(self, root: str) -> bytes | None:
        """The document, if it need not be made."""
        return self._kept[2] if self._kept[:2] == (self._registry.version, root) else None
