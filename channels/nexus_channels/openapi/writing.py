"""What is particular to writes: preferences, records that are replaced, and patches."""

from __future__ import annotations

from nexus.operation import Effect, Operation
from nexus_channels.openapi.components import JsonSchema

PREFER: JsonSchema = {
    "name": "Prefer",
    "in": "header",
    "description": "Preferences (RFC 7240), with commas between them: return=minimal, return=representation,"
    " respond-async (for workflows), tx=rollback (a dry run), max-affected=N, handling=strict",
    "schema": {"type": "string"},
}
_APPLIED: JsonSchema = {"description": "Which preferences were honoured", "schema": {"type": "string"}}
_MINIMAL: JsonSchema = {"description": "Done; no body, since Prefer says return=minimal."}
_VERSION = "version"


def with_preferences(operation: Operation, described: JsonSchema) -> JsonSchema:
    """The same for one that writes."""
    if operation.effect is Effect.READ:
        return described
    described["parameters"] = [*described.get("parameters", ()), {"$ref": "#/components/parameters/Prefer"}]
    responses = described["responses"]
    for status in ("200", "201"):
        if status in responses:
            responses[status].setdefault("headers", {})["Preference-Applied"] = _APPLIED
    if "200" in responses:
        described["responses"] = {"200": responses.pop("200"), "204": _MINIMAL, **responses}
    return described


def whole_of(made: JsonSchema, changed: JsonSchema) -> JsonSchema:
    """What PUT takes: what makes a record, but for the id, which the address says."""
    required = [name for name in made.get("required", ()) if name != "id"]
    properties = {name: one for name, one in made["properties"].items() if name != "id"}
    if _VERSION in changed["properties"]:
        properties.setdefault(_VERSION, changed["properties"][_VERSION])
    schema = {key: value for key, value in made.items() if key != "required"}
    return {**schema, "properties": properties, **({"required": required} if required else {})}


def patch_of(made: JsonSchema, changed: JsonSchema) -> JsonSchema:
    """What a merge patch may hold: any of it."""
    whole = whole_of(made, changed)
    properties = {
        name: {key: value for key, value in one.items() if key != "default"}
        for name, one in whole["properties"].items()
    }
    return {**{key: value for key, value in whole.items() if key != "required"}, "properties": properties}
