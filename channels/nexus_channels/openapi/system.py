"""The addresses that belong to no operation."""

from __future__ import annotations

from collections.abc import Iterable

from nexus_channels.openapi.components import JsonSchema
from nexus_channels.openapi.responses import JSON, problems

_STATUS = {"type": "string", "enum": ["ok"]}
_NAMES = {"type": "array", "items": {"type": "string"}}
_TEXT = {"type": "string"}
_EFFECT = {"type": "string", "enum": ["read", "create", "update", "delete", "run"]}


def _object(**members: JsonSchema) -> JsonSchema:
    return {"type": "object", "properties": members, "required": list(members)}


def _list(items: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": items}


_WORKFLOW = _object(name=_TEXT, summary=_TEXT, effect=_EFFECT)
_DESCRIBED = _object(
    name=_TEXT, summary=_TEXT, effect=_EFFECT, input={"type": "object"}, output={"type": "object"}
)
_OVERVIEW = _object(
    resources=_list(_object(name=_TEXT, path=_TEXT, verbs=_NAMES)),
    workflows=_list(_object(name=_TEXT, path=_TEXT)),
)
_SESSION = _object(user=_TEXT, roles=_NAMES, tenant={"type": ["string", "null"]}, scopes=_NAMES)
_INDEX = _object(
    title=_TEXT, version=_TEXT, channels={"type": "object", "additionalProperties": {"type": "string"}}
)
_LIVE, _READY = _object(status=_STATUS), _object(status=_STATUS, channels=_NAMES)


def host_paths(*, locked: bool) -> dict[str, JsonSchema]:
    """The server's own."""
    made = {
        "/": _own("index", "What is here", "The title, and where each channel is.", _INDEX),
        "/livez": _own("livez", "Alive", "Whether the server runs.", _LIVE),
        "/readyz": _own("readyz", "Ready", "Whether its databases answer, and what runs.", _READY),
        "/health": _own("health", "Alive (health)", "The same as /livez.", _LIVE),
        "/ready": _own("ready", "Ready (ready)", "The same as /readyz.", _READY),
    }
    for path in ("/readyz", "/ready"):
        made[path]["get"]["responses"] |= problems(503)
    for described in made.values() if locked else ():
        described["get"]["security"] = []
    document = _own("openapi", "This document", "What is registered now.", {"type": "object"})
    document["get"]["responses"] |= problems(401, 403) if locked else {}
    return {**made, "/openapi.json": document}


def _own(name: str, summary: str, description: str, schema: JsonSchema) -> JsonSchema:
    return {"get": _described(name, summary, description, schema, (), "system")}


def api_paths(prefix: str, *, locked: bool) -> dict[str, JsonSchema]:
    """The REST channel's, but for those of operations."""
    described = _read(
        "workflows_describe",
        "One operation",
        "By any of its names, with the schemas of its input and output.",
        _DESCRIBED,
        locked=locked,
        missing=True,
    )
    name = {"name": "name", "in": "path", "required": True, "description": "Which one", "schema": _TEXT}
    return {
        prefix: _read("overview", "Overview", "Resources and workflows.", _OVERVIEW, locked=locked),
        f"{prefix}/session": _read("session", "Session", "Who is asking.", _SESSION, locked=locked),
        f"{prefix}/workflows": _read(
            "workflows_list",
            "List workflows",
            "The operations that belong to no resource.",
            _list(_WORKFLOW),
            locked=locked,
            tag="workflows",
        ),
        f"{prefix}/workflows/{{name}}": {"parameters": [name], **described},
    }


def _read(
    name: str,
    summary: str,
    description: str,
    schema: JsonSchema,
    *,
    locked: bool,
    missing: bool = False,
    tag: str = "system",
) -> JsonSchema:
    refused = [406, 422] + ([404] if missing else []) + ([401, 403] if locked else [])
    return {"get": _described(name, summary, description, schema, sorted(refused), tag)}


def _described(
    name: str, summary: str, description: str, schema: JsonSchema, refused: Iterable[int], tag: str
) -> JsonSchema:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "responses": {
            "200": {"description": "As asked.", "content": {JSON: {"schema": schema}}},
            **problems(*refused),
        },
    }
