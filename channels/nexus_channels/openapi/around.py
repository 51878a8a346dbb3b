"""What stands around every operation, as the settings have it: limits of time, size and number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nexus.config import Settings
from nexus_channels.openapi.components import JsonSchema
from nexus_channels.openapi.responses import problems

HEADERS: JsonSchema = {
    "RateLimit": {
        "description": "How many requests are left (r), and in how many seconds none will be used (t)",
        "schema": {"type": "string"},
        "example": '"default";r=99;t=1',
    },
    "RateLimit-Policy": {
        "description": "How many requests (q) a session has in how many seconds (w)",
        "schema": {"type": "string"},
        "example": '"default";q=100;w=1',
    },
}
_METHODS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Limits:
    """Which there are: of requests in a time, of the time for receiving one, of the time for doing it."""

    rate: bool = False
    receiving: bool = False
    doing: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(bool(settings.rate_limit), settings.receive_timeout > 0, settings.request_timeout > 0)


def add_limits(paths: JsonSchema, limits: Limits, *, prefix: str | None, free: Iterable[str] = ()) -> None:
    """Add what they answer with to the operations at these paths. `prefix` is where the REST channel is;
    what is `free` is answered however often it is asked for."""
    exempt = set(free)
    for path, described in _operations(paths):
        statuses = [431]
        if limits.receiving and "requestBody" in described:
            statuses.append(408)
        if limits.doing and prefix is not None and path.startswith(f"{prefix}/"):
            statuses.append(504)
        if limits.rate and path not in exempt:
            statuses.append(429)
            for status, response in described["responses"].items():
                if status.startswith("2"):
                    references = {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}
                    response["headers"] = {**response.get("headers", {}), **references}
        described["responses"] = {**described["responses"], **problems(*sorted(statuses))}


def _operations(paths: JsonSchema) -> Iterator[tuple[str, JsonSchema]]:
    for path, methods in paths.items():
        for method in _METHODS:
            if method in methods:
                yield path, methods[method]
