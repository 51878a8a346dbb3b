"""What an operation accepts: as one object, and as parameters of an address."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from msgspec import inspect

from nexus.arguments import is_json_text, kinds_of
from nexus.operation import Operation
from nexus_channels.openapi.components import ANYTHING, Components, JsonSchema
from nexus_channels.openapi.examples import example

_ORDERED = (
    inspect.IntType,
    inspect.FloatType,
    inspect.DecimalType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.TimeType,
)
_DEFINITIONS = "$defs"
_UNKNOWN: JsonSchema = {"type": "object"}


def accepted(operation: Operation, components: Components, without: Collection[str] = ()) -> JsonSchema:
    """The schema of the arguments, without some of them; what it refers to is added to the components."""
    root, known_parts = components.read(operation, operation.input)
    parts = dict(known_parts)
    schema = parts.get(root.get("$ref", "").rsplit("/", 1)[-1], _UNKNOWN)
    exact = dict(operation.details.schemas())
    parts |= exact.pop(_DEFINITIONS, {})
    properties: JsonSchema = {}
    for name, known in schema.get("properties", {}).items():
        if name in without or exact.get(name) is False:
            continue
        properties[name] = _exact(known, exact[name]) if name in exact else known
    required = [name for name in schema.get("required", ()) if name in properties]
    made = {key: value for key, value in schema.items() if key not in ("properties", "required")}
    made |= {"title": schema.get("title", operation.input.__name__), "properties": properties}
    if required:
        made["required"] = required
    return components.adopt(made, components.needed({"properties": properties}, parts))


def alternatives(operation: Operation, schema: JsonSchema) -> list[JsonSchema]:
    """The schema once for each group of arguments that are given apart from the others."""
    made: list[JsonSchema] = []
    for group in operation.details.apart or (frozenset(schema["properties"]),):
        others = frozenset().union(*operation.details.apart) - group
        properties = {name: one for name, one in schema["properties"].items() if name not in others}
        fewest = {"minProperties": 1} if operation.details.apart else {}
        required = [*schema.get("required", ()), *(group if len(group) == 1 and fewest else ())]
        title = (
            schema["title"] if len(made) == 0 else f"{schema['title']}By{'And'.join(sorted(group)).title()}"
        )
        one = {**schema, "title": title, "properties": properties, **fewest}
        made.append({**one, "required": required} if required else one)
    return made


def _exact(known: JsonSchema, exact: JsonSchema) -> JsonSchema:
    """The exact schema, and null where the type takes that, with what is said of it."""
    schema = exact
    if {"type": "null"} in known.get("anyOf", ()) and "anyOf" not in exact:
        schema = {"anyOf": [exact, {"type": "null"}]}
    return {**{key: known[key] for key in ("description", "default", "deprecated") if key in known}, **schema}


def query_parameters(
    operation: Operation, schema: JsonSchema, components: Components
) -> Iterator[JsonSchema]:
    """The arguments as they stand in a query."""
    required = schema.get("required", ())
    for name, known in schema["properties"].items():
        parameter: JsonSchema = {"name": name, "in": "query"}
        if "description" in known:
            parameter["description"] = known["description"]
        if name in required:
            parameter["required"] = True
        if known.get("deprecated"):
            parameter["deprecated"] = True
        yield parameter | _spelt(operation.arguments.fields[name].type, known, components, name)


def _spelt(annotation: Any, known: JsonSchema, components: Components, name: str) -> JsonSchema:
    """How a value of this type is written in an address."""
    if is_json_text(annotation):
        schema = {key: value for key, value in known.items() if key != "description"}
        return {
            "content": {"application/json": {"schema": schema, "example": example(schema, components, name)}}
        }
    schema = _without_null({key: value for key, value in known.items() if key != "description"})
    if any(isinstance(kind, inspect.StrType) for kind in kinds_of(annotation)):
        if schema.get("type") == "array":  # names, in one text
            return {"style": "form", "explode": False, "schema": schema}
        texts = [one for one in schema.get("anyOf", (schema,)) if one.get("type") == "string"]
        return {"schema": texts[0] if texts else {"type": "string"}}
    return {"schema": schema}


def _without_null(schema: JsonSchema) -> JsonSchema:
    """An address cannot say null."""
    made = {key: value for key, value in schema.items() if key != "default" or value is not None}
    if "anyOf" in made:
        rest = [one for one in made["anyOf"] if one != {"type": "null"}]
        made = {key: value for key, value in made.items() if key != "anyOf"}
        made |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    return made


def short_forms(operation: Operation, components: Components) -> Iterator[tuple[str, JsonSchema]]:
    """The short forms of a filter that are worth describing one by one, each with a name to share it by."""
    for name, annotation in operation.details.fields.items():
        if is_json_text(annotation):
            continue
        schema = _without_null(components.of_type(operation, annotation))
        if name not in operation.arguments.fields:
            yield f"{operation.resource}.{name}", _short(name, f"Those whose {name} is this.", schema)
        if any(isinstance(kind, _ORDERED) for kind in kinds_of(annotation)):
            for op, words in (("gte", "at least"), ("lte", "at most")):
                described = _short(f"{name}[{op}]", f"Those whose {name} is {words} this.", schema)
                yield f"{operation.resource}.{name}.{op}", described


def _short(name: str, description: str, schema: JsonSchema) -> JsonSchema:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def identity(operation: Operation, components: Components) -> JsonSchema:
    """The parameter that says which record."""
    field = operation.arguments.fields.get("id")
    schema = ANYTHING if field is None else components.of_type(operation, field.type)
    schema = _without_null(schema)
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "Which record; percent-encoded where it holds a slash",
        "schema": schema,
        "example": example(schema, components, "id"),
    }
