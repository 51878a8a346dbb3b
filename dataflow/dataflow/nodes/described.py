"""What a model's arguments may hold, as JSON Schemas: for descriptions, and more exact than their types.

What two arguments may not say together, and which patterns are cheap enough, no schema can tell.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Container
from typing import Any

import msgspec

from dataflow.fields import INT_MAX, INT_MIN, NO_KEYS, Field, Kind
from dataflow.model import Model
from nexus.details import Details, Schemas

_NO_NUL = "^[^\\u0000]*$"
_DEEPEST_INCLUDE = 2

JsonSchema = dict[str, Any]


def details_of(model: Model, verb: str, given: Collection[str]) -> Details:
    """`given` names the arguments of an operation, of which those that a model decides are described."""
    flat = frozenset(field.name for field in model.writable()).intersection(given) - {"id"}
    instead = frozenset(given) & {"filter", "conditions"}
    return Details(
        fields={field.name: field.given_type for field in model.fields.values()},
        instead_of_id=instead | flat if verb == "get" else instead,
        apart=(flat, frozenset({"fields"})) if verb == "update" else (),
        schemas=lambda: _schemas(model, verb, given, flat),
    )


def _schemas(model: Model, verb: str, given: Collection[str], flat: Collection[str]) -> Schemas:
    texts = {name: _given(model.fields[name]) for name in flat if _is_text(model.fields[name])}
    known: dict[str, JsonSchema | bool] = {
        **texts,
        "filter": _reference(_filter_name(model)),
        "conditions": _reference(_filter_name(model)),
        "include": _include_schema(model),
        "raise_on_not_found": False,  # for nodes: a channel's own answer to a missing record is an error
        "return_null_if_not_found": False,
        "match_fields": _some_of(keys_of(model), shortest=1),
        "conflict_on": _some_of(keys_of(model), shortest=1),
        "order_by": False,  # another name of sort
    }
    if verb == "list":
        known |= {"fields": _some_of(list(model.fields), shortest=1), "sort": _order_schema(model)}
    elif verb == "update":
        known |= {"fields": changes_schema(model), "updates": False}
    elif verb.startswith("bulk_"):
        known |= {"update": changes_schema(model), "updates": False, "fields": False}
        known |= {"data": _rows_schema(model, verb), **dict.fromkeys(flat, False)}
    elif verb == "upsert":
        known |= {
            "where": _key_schema(model),
            "create": _row_schema(model, known=keys_of(model)),
            "update": changes_schema(model),
        }
    filters = "filter" in given
    definitions = {_filter_name(model): _filter_schema(model), **_tests_of(model)} if filters else {}
    return {**{name: known[name] for name in known if name in given}, "$defs": definitions}


def changes_schema(model: Model) -> JsonSchema:
    """New values and operators, by field."""
    fields = [field for field in model.writable() if field.name != "id"]
    return _object({field.name: {"anyOf": [_given(field), _operators(field)]} for field in fields}, 1)


def _operators(field: Field) -> JsonSchema:
    value = _given(field)
    plain = {"$set": value} | ({"$unset": {"type": "boolean"}} if field.nullable else {})
    if field.counts:
        plain |= dict.fromkeys(("$inc", "$mul", "$multiply"), _without_null(value))
    if field.kind is not Kind.JSON:
        plain |= dict.fromkeys(("$min", "$max"), _without_null(value))
    elif value.get("type") != "array":
        plain["$merge"] = {"type": "object"}
    else:
        items: JsonSchema = value.get("items", {})
        plain |= dict.fromkeys(("$push", "$pull", "$addToSet"), items)
    return _object(plain, 1) | {"maxProperties": 1}


def _row_schema(model: Model, *, known: Container[str] = ()) -> JsonSchema:
    """What makes a record; the `known` fields may stand elsewhere."""
    fields = [*model.writable(), *([model.fields["id"]] if model.generates_id else [])]
    required = [field.name for field in model.writable() if field.required and field.name not in known]
    schema = _object({field.name: _given(field) for field in fields})
    return {**schema, "required": required} if required else schema


def _rows_schema(model: Model, verb: str) -> JsonSchema:
    row = _row_schema(model)
    if verb != "bulk_create":  # a record that is there keeps what its row does not name
        row = {**row, "required": ["id"]} if verb == "bulk_update" else row
    return {"type": "array", "items": row}


def _key_schema(model: Model) -> JsonSchema:
    return _object({name: _without_null(_given(model.fields[name])) for name in keys_of(model)}, 1)


def keys_of(model: Model) -> list[str]:
    """The fields by which a record can be known."""
    given = {"id", *(field.name for field in model.writable())}
    return [name for name, field in model.fields.items() if name in given and field.kind not in NO_KEYS]


def _object(properties: JsonSchema, fewest: int = 0) -> JsonSchema:
    schema: JsonSchema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "minProperties": fewest} if fewest else schema


def _given(field: Field) -> JsonSchema:
    if field.choices:
        plain: JsonSchema = {"enum": list(field.choices)}
        return {"anyOf": [plain, {"type": "null"}]} if field.nullable else plain
    schema = _schema_of(field.given_type)
    if not _is_text(field):
        return schema
    plain = {**_without_null(schema), "pattern": _NO_NUL}
    return {"anyOf": [plain, {"type": "null"}]} if field.nullable else plain


@functools.lru_cache(maxsize=1000)
def _schema_of(annotation: Any) -> JsonSchema:
    """Of a type of a field: there are few, and models have many fields."""
    (schema,), _ = msgspec.json.schema_components([annotation])
    return schema


def _is_text(field: Field) -> bool:
    return field.kind is Kind.TEXT and not field.choices


def _without_null(schema: JsonSchema) -> JsonSchema:
    rest = [one for one in schema.get("anyOf", (schema,)) if one != {"type": "null"}]
    return rest[0] if len(rest) == 1 else {"anyOf": rest}


def _filter_name(model: Model) -> str:
    return f"{model.name}Filter"


def _reference(name: str) -> JsonSchema:
    return {"$ref": f"#/$defs/{name}"}


def _filter_schema(model: Model) -> JsonSchema:
    """The grammar of docs/filters.md over the fields of one model."""
    itself = _reference(_filter_name(model))
    several = {"type": "array", "items": itself, "minItems": 1}
    fields = {name: _tested(model, field) for name, field in model.fields.items()}
    related = {name: {"type": "object"} for name in model.related.settled(model)}
    schema: JsonSchema = {
        "type": "object",
        "description": f"Which {model.route}: MongoDB's grammar. Several names must all hold.",
        "properties": {
            **fields,
            **related,
            **dict.fromkeys(("$and", "$or", "$nor"), several),
            "$not": itself,
        },
        "additionalProperties": False,
    }
    open_names = [*related, *(name for name, field in model.fields.items() if field.kind is Kind.JSON)]
    if open_names:
        schema["patternProperties"] = {f"^({'|'.join(open_names)})\\.[^.]+": {}}
    example = next(iter(model.fields.values())) if len(model.fields) == 1 else list(model.fields.values())[1]
    schema["examples"] = [{example.name: {"$null": False}}]
    return schema


def _tests_name(model: Model, field: Field) -> str:
    """Tests are the same for all fields of a kind, but for those that hold one of a few values."""
    kind = field.kind.value.capitalize()
    return f"{model.name}{field.name.title().replace('_', '')}Tests" if field.choices else f"{kind}Tests"


def _tests_of(model: Model) -> dict[str, JsonSchema]:
    fields = [field for field in model.fields.values() if field.kind is not Kind.JSON]
    return {_tests_name(model, field): _tests_schema(field) for field in fields}


def _tested(model: Model, field: Field) -> JsonSchema:
    """A value to be equal to, or operators."""
    if field.kind is Kind.JSON:
        return {"description": "A value to be equal to, or to have among its elements, or operators"}
    return {"anyOf": [_value_schema(field), {"type": "null"}, _reference(_tests_name(model, field))]}


def _tests_schema(field: Field) -> JsonSchema:
    return _tests_of_values(field) if field.choices else _tests_of_kind(field.kind, field.annotation)


@functools.lru_cache(maxsize=100)
def _tests_of_kind(kind: Kind, annotation: Any) -> JsonSchema:
    """One for all models: there are few, and each is large."""
    return _tests_of_values(Field("", kind, annotation))


def _tests_of_values(field: Field) -> JsonSchema:
    value = _value_schema(field)
    optional = {"anyOf": [value, {"type": "null"}]} if value else {}
    several, flag = {"type": "array", "items": optional}, {"type": "boolean"}
    operators: JsonSchema = {
        **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), optional),
        **dict.fromkeys(("$in", "$nin"), several),
        **dict.fromkeys(("$exists", "$null"), flag),
        "$between": {"type": "array", "items": value, "minItems": 2, "maxItems": 2},
        "$not": {
            "description": "A value, or operators",
            "anyOf": [value, {"type": "null"}, {"type": "object"}],
        },
    }
    if _is_text(field):
        text = {"type": "string", "pattern": _NO_NUL}
        operators |= dict.fromkeys(("$like", "$ilike", "$startswith", "$endswith", "$contains"), text)
        operators["$regex"] = {**text, "description": "A pattern of the subset in docs/filters.md"}
        operators["$options"] = {"type": "string", "pattern": "^[imsx]*$"}
    tests = _object(operators, 1)
    return {**tests, "dependentRequired": {"$options": ["$regex"]}} if "$options" in operators else tests


def _value_schema(field: Field) -> JsonSchema:
    """What the field can be compared with."""
    if field.choices:
        return {"enum": list(field.choices)}
    if field.kind is Kind.JSON:
        return {}
    if field.kind is Kind.INTEGER:
        return {"type": "number", "minimum": INT_MIN, "maximum": INT_MAX}
    if field.kind is Kind.FLOAT:
        return {"type": "number"}
    if field.kind is Kind.TEXT:
        return {"type": "string", "pattern": _NO_NUL}
    if field.kind is Kind.DATETIME:
        return {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
    return _schema_of(field.annotation)


def _order_schema(model: Model) -> JsonSchema:
    """Names, each once, ascending or with a '-' descending."""
    names = [name for name, field in model.fields.items() if field.kind is not Kind.JSON]
    return _some_of([spelt for name in names for spelt in (name, f"-{name}")])


def _include_schema(model: Model) -> JsonSchema | bool:
    names = list(_paths(model, _DEEPEST_INCLUDE))
    return _some_of(names) if names else False


def _paths(model: Model, depth: int) -> list[str]:
    found: list[str] = []
    for name, relation in model.related.settled(model).items():
        found.append(name)
        if depth > 1:
            found += [f"{name}.{below}" for below in _paths(relation.target, depth - 1)]
    return found


def _some_of(names: list[str], *, shortest: int = 0) -> JsonSchema:
    schema: JsonSchema = {
        "type": "array",
        "items": {"type": "string", "enum": names},
        "uniqueItems": True,
    }
    return {**schema, "minItems": shortest} if shortest else schema
