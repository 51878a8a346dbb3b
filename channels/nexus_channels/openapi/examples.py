"""A value that a schema allows, to show what is meant."""

from __future__ import annotations

from typing import Any

from nexus_channels.openapi.components import Components, JsonSchema

_FORMATS = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "partial-time": "12:00:00",
    "uuid": "01890a5d-ac96-774b-bcce-b302099a8057",
    "decimal": "9.50",
}
_DEEPEST = 6


def example(schema: JsonSchema, components: Components, name: str = "text", depth: int = 0) -> Any:
    """Small, and the same each time. `name` is what a text says."""
    schema = components.followed(schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema or "const" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if union in schema and "type" not in schema:
            return example(schema[union][0], components, name, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, components, depth)
    if kind == "array":
        short = depth >= _DEEPEST or not schema.get("items")
        return [] if short else [example(schema["items"], components, name, depth + 1)]
    if kind == "integer":
        return max(1, schema.get("minimum", 1))
    if kind == "number":
        return max(9.5, schema.get("minimum", 9.5))
    if kind == "string":
        return _text(schema, name)
    return {"boolean": True, "null": None}.get(kind or "", {})


def _object(schema: JsonSchema, components: Components, depth: int) -> dict[str, Any]:
    """The members that must be, or else one of those that may."""
    members = schema.get("properties", {})
    wanted = schema.get("required") or list(members)[: schema.get("minProperties", 0)]
    if depth >= _DEEPEST:
        return {}
    return {name: example(members.get(name, {}), components, name, depth + 1) for name in wanted}


def _text(schema: JsonSchema, name: str) -> str:
    if schema.get("contentEncoding") == "base64":
        return "TmV4dXM="
    known = _FORMATS.get(schema.get("format", ""), name)
    return str(known)[: schema.get("maxLength", 100)]
