"""Types as JSON Schema."""

from __future__ import annotations

from typing import Any

import msgspec

_REFERENCE = "#/$defs/{name}"


def json_schema(annotation: Any) -> dict[str, Any]:
    """The JSON Schema of a type, with an object's own keywords at the root, as MCP wants them."""
    (schema,), definitions = msgspec.json.schema_components([annotation], ref_template=_REFERENCE)
    root = schema.get("$ref")
    if root is not None:
        name = root.rsplit("/", 1)[1]
        schema = dict(definitions[name])
        if not _mentions(definitions, root):
            definitions = {key: value for key, value in definitions.items() if key != name}
    if definitions:
        schema = {**schema, "$defs": definitions}
    return schema


def _mentions(node: Any, reference: str) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == reference or any(_mentions(value, reference) for value in node.values())
    if isinstance(node, list):
        return any(_mentions(value, reference) for value in node)
    return False
