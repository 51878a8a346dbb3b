"""The schemas that a document shares, each under a name of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
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
    """Collects named schemas. What has the name of another one and differs from it gets a number behind.

    What is settled is kept as text: of hundreds of models there would be a million small objects, through
    which the garbage collector would go again and again, with the whole process waiting. What is asked for
    again after that is shared, and is kept as it is."""

    def __init__(self) -> None:
        self.schemas: dict[str, JsonSchema | msgspec.Raw] = {}
        self._fresh: list[str] = []
        self._read: dict[Any, tuple[JsonSchema, Mapping[str, JsonSchema]]] = {}
        self._placed: dict[str, tuple[JsonSchema, JsonSchema]] = {}  # a part as it came, and in its place
        self._named: dict[int, tuple[JsonSchema, frozenset[str]]] = {}  # what a part refers to

    def settle(self) -> None:
        """What has come since the last time is done with."""
        for name in self._fresh:
            self.schemas[name] = encoded(self.schemas[name])
            self._placed.pop(name, None)
        self._fresh.clear()
        self._read.clear()
        shared = {id(part) for part, _ in self._placed.values()}
        self._named = {key: known for key, known in self._named.items() if key in shared}

    def of_type(self, operation: Operation, annotation: Any) -> JsonSchema:
        """The schema of a type, whose parts are added. What stands in it in full, and is known under its
        title, becomes a reference."""
        schema, parts = self.read(operation, annotation)
        return self.adopt(self._within(schema), {name: self._within(part) for name, part in parts.items()})

    def prepare(self, annotations: Iterable[Any]) -> None:
        """Read types together, so that what they share is read once."""
        kinds = list(dict.fromkeys(annotations))
        try:
            schemas, parts = msgspec.json.schema_components(kinds, ref_template=_DEFINITIONS + "{name}")
        except (TypeError, KeyError):
            return  # one of them cannot be read, or two cannot be told apart: so each by itself
        for annotation, schema in zip(kinds, schemas, strict=True):
            self._read[annotation] = schema, self.needed(schema, parts)

    def needed(self, schema: JsonSchema, parts: Mapping[str, JsonSchema]) -> dict[str, JsonSchema]:
        """The parts that a schema needs."""
        found: set[str] = set()
        rest = list(_references(schema))
        while rest:
            name = rest.pop()
            if name in parts and name not in found:
                found.add(name)
                part = parts[name]
                if id(part) not in self._named:
                    self._named[id(part)] = part, frozenset(_references(part))
                rest.extend(self._named[id(part)][1])
        return {name: part for name, part in parts.items() if name in found}

    def read(self, operation: Operation, annotation: Any) -> tuple[JsonSchema, Mapping[str, JsonSchema]]:
        """The schema of a type, and its parts. A type of the application's own, of which msgspec knows
        nothing, may be anything."""
        if (known := self._read.get(annotation)) is not None:
            return known
        try:
            found = self._read[annotation] = _schema_of(annotation)
        except TypeError as failure:
            reason = str(failure).splitlines()[-1]
            logger.warning("'%s' is described without a schema: %s", operation.name, reason)
            return ANYTHING, {}
        return found

    def adopt(self, schema: JsonSchema, parts: Mapping[str, JsonSchema]) -> JsonSchema:
        """The schema with references to where its parts are from now on."""
        for suffix in count(1):
            names = {name: self._clean(name) + ("" if suffix == 1 else str(suffix)) for name in parts}
            placed = {names[name]: self._in_place(name, part, names) for name, part in parts.items()}
            if all(self._agrees(name, part) for name, part in placed.items()):
                self._fresh += [name for name in placed if name not in self.schemas]
                self.schemas |= placed
                if suffix == 1:
                    self._placed |= {names[name]: (part, placed[names[name]]) for name, part in parts.items()}
                adopted: JsonSchema = _renamed(schema, names)
                return adopted
        raise AssertionError("unreachable")

    def _in_place(self, name: str, part: JsonSchema, names: Mapping[str, str]) -> JsonSchema:
        """What many have in common is mostly there already."""
        came, placed = self._placed.get(names[name], (None, ANYTHING))
        return placed if came is part or came == part else _renamed(part, names)

    def _agrees(self, name: str, part: JsonSchema) -> bool:
        known = self._known(name)
        return known is part or known is None or known == part

    def _known(self, name: str) -> JsonSchema | None:
        known = self.schemas.get(name)
        if isinstance(known, msgspec.Raw):
            known = self.schemas[name] = msgspec.json.decode(known)
        return known

    def add(self, name: str, schema: JsonSchema) -> JsonSchema:
        """A reference to a schema under this name."""
        return self.adopt({"$ref": _DEFINITIONS + name}, {name: schema})

    def followed(self, schema: JsonSchema) -> JsonSchema:
        """The schema that a reference leads to."""
        while "$ref" in schema:
            schema = self._known(schema["$ref"].removeprefix(_PLACE)) or ANYTHING
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


def _references(node: Any) -> Iterator[str]:
    """The names that a schema refers to as parts of itself."""
    rest = [node]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            reference = one.get("$ref")
            if isinstance(reference, str) and reference.startswith(_DEFINITIONS):
                yield reference.removeprefix(_DEFINITIONS)
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)


def encoded(node: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(node))


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
