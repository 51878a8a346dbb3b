"""The schemas that a document shares, each under a name of its own."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec

from nexus.operation import Operation

logger = logging.getLogger("nexus")

JsonSchema = dict[str, Any]

_PLACE = "#/components/schemas/"
_DEFINITIONS = "#/$defs/"
ANYTHING: JsonSchema = {}


class Components:
    """Collects named schemas. What has the name of another one and differs from it gets a number behind."""

    def __init__(self) -> None:
        self.schemas: dict[str, JsonSchema] = {}

    def of_type(self, operation: Operation, annotation: Any) -> JsonSchema:
        """The schema of a type, whose parts are added. What stands in it in full, and is known under its
        title, becomes a reference."""
        schema, parts = self.read(operation, annotation)
        return self.adopt(self._within(schema), {name: self._within(part) for name, part in parts.items()})

    @staticmethod
    def read(operation: Operation, annotation: Any) -> tuple[JsonSchema, Mapping[str, JsonSchema]]:
        """The schema of a type, and its parts. A type of the application's own, of which msgspec knows
        nothing, may be anything."""
        try:
            return _schema_of(annotation)
        except TypeError as failure:
            reason = str(failure).splitlines()[-1]
            logger.warning("'%s' is described without a schema: %s", operation.name, reason)
            return ANYTHING, {}

    def adopt(self, schema: JsonSchema, parts: Mapping[str, JsonSchema]) -> JsonSchema:
        """The schema with references to where its parts are from now on."""
        for suffix in count(1):
            names = {name: self._clean(name) + ("" if suffix == 1 else str(suffix)) for name in parts}
            placed = {names[name]: _renamed(part, names) for name, part in parts.items()}
            if all(self.schemas.get(name, part) == part for name, part in placed.items()):
                self.schemas |= placed
                adopted: JsonSchema = _renamed(schema, names)
                return adopted
        raise AssertionError("unreachable")

    def add(self, name: str, schema: JsonSchema) -> JsonSchema:
        """A reference to a schema under this name."""
        return self.adopt({"$ref": _DEFINITIONS + name}, {name: schema})

    def followed(self, schema: JsonSchema) -> JsonSchema:
        """The schema that a reference leads to."""
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].removeprefix(_PLACE)]
        return schema

    def _shared(self, node: Any) -> Any:
        """With references for what stands there in full and is known under its title."""
        title = node.get("title") if isinstance(node, dict) else None
        if isinstance(title, str) and self.schemas.get(title) == node:
            return {"$ref": _PLACE + title}
        return self._within(node)

    def _within(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self._shared(value) for key, value in node.items()}
        return [self._shared(part) for part in node] if isinstance(node, list) else node

    @staticmethod
    def _clean(name: str) -> str:
        return name.rsplit(".", 1)[-1]


@functools.lru_cache(maxsize=1000)
def _schema_of(annotation: Any) -> tuple[JsonSchema, Mapping[str, JsonSchema]]:
    (schema,), parts = msgspec.json.schema_components([annotation], ref_template=_DEFINITIONS + "{name}")
    return schema, parts


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        if node.get("type") == "array" and "items" not in node:
            node = {**node, "items": ANYTHING}  # as some tools want it
        return {
            key: _PLACE + names.get(name := value.removeprefix(_DEFINITIONS), name)
            if key == "$ref" and isinstance(value, str) and value.startswith(_DEFINITIONS)
            else _renamed(value, names)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_renamed(part, names) for part in node]
    return node
