"""Operations as paths and methods: the table of `nexus_channels.rest`, described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from nexus.keys import takes_key
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus_channels.openapi.arguments import accepted, alternatives, identity, query_parameters, short_forms
from nexus_channels.openapi.around import Limits, add_limits
from nexus_channels.openapi.components import ANYTHING, Components, JsonSchema, encoded
from nexus_channels.openapi.conditions import ETAG, NOT_MODIFIED, PARAMETERS
from nexus_channels.openapi.examples import example
from nexus_channels.openapi.responses import JSON, refusals
from nexus_channels.openapi.writing import PREFER, patch_of, whole_of, with_preferences
from nexus_channels.rest.forms import CSV, NDJSON, streams, takes_rows
from nexus_channels.rest.records import MERGE_PATCH

_RECORD = {"get": ("get",), "update": ("patch", "put"), "delete": ("delete",)}
_TEXT: JsonSchema = {"type": "string"}
_NEXT_LINK = {
    "description": "In lists that are read by cursor: where the next page is (RFC 8288)",
    "schema": _TEXT,
}
_KEY = "IdempotencyKey"
_PRINTABLE = "^[!-~¡-¬®-ÿ]([ -~¡-¬®-ÿ]*[!-~¡-¬®-ÿ])?$"  # of what a header can hold
_IDEMPOTENCY_KEY: JsonSchema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "What is repeated with the same key and the same body is done once, and answered as it was"
    " then. For another body the key cannot be used (422); while the first request goes on it cannot be"
    " repeated (409).",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": _PRINTABLE},
}
_REPLAYED = {
    "description": "The answer is that of the first request with this key: nothing was done",
    "schema": {"type": "string", "const": "true"},
}
_LOCATION = {"description": "Where the record is", "schema": {"type": "string", "format": "uri-reference"}}


class Paths:
    """Builds the paths of a document, each as text; `prefix` is where the channel is, `locked` that it asks
    for a credential."""

    def __init__(
        self, registry: Registry, components: Components, prefix: str, *, locked: bool, limits: Limits
    ) -> None:
        self.made: dict[str, msgspec.Raw] = {}
        self.parameters: dict[str, JsonSchema] = {}
        self._open: dict[str, JsonSchema] = {}  # those of what is being described
        self._known: dict[str, JsonSchema] = {}
        self._registry = registry
        self._components = components
        self._prefix = prefix
        self._locked = locked
        self._limits = limits

    def build(self) -> None:
        for resource in self._registry.resources():
            operations = self._registry.verbs(resource).values()
            self._components.prepare(kind for operation in operations for kind in _kinds_of(operation))
            for operation in operations:
                self._place(operation)
            self._settle()
        for operation in self._registry.standing():
            path = f"{self._prefix}/workflows/{operation.name}/execute"
            self._add(path, "post", self._with_body(operation, operation.tool))
        for operation in self._registry.public():
            if operation.platform and not operation.resource:
                self._add(
                    f"{self._prefix}/:{operation.name}", "post", self._with_body(operation, operation.tool)
                )
        self._settle()

    def _settle(self) -> None:
        add_limits(self._open, self._limits, prefix=self._prefix)
        self.made |= {path: encoded(methods) for path, methods in self._open.items()}
        self._open.clear()
        self._known.clear()
        self._components.settle()

    def _place(self, operation: Operation) -> None:
        below, verb = f"{self._prefix}/{operation.resource}", operation.verb
        if operation.on_record and verb in _RECORD:
            self._record(f"{below}/{{id}}", operation)
        elif not operation.on_record and verb in ("list", "create"):
            if verb == "list":
                self._add(below, "get", self._with_query(operation))
            else:
                self._add(below, "post", self._created(operation))
        else:
            reads = operation.effect is Effect.READ
            if reads:
                self._add(f"{below}:{verb}", "get", self._with_query(operation))
            name = f"{operation.tool}_post" if reads else operation.tool
            self._add(f"{below}:{verb}", "post", self._with_body(operation, name))

    def _record(self, path: str, operation: Operation) -> None:
        self._open.setdefault(path, {})["parameters"] = [identity(operation, self._components)]
        for method in _RECORD[operation.verb]:
            if method in ("get", "delete"):
                described = self._with_query(operation)
                if method == "get" and operation.tag is not None:
                    self._asked(described, "IfNoneMatch", PARAMETERS["IfNoneMatch"])
                    described["responses"]["304"] = NOT_MODIFIED
                self._add(path, method, described)
            else:
                self._add(path, method, self._changed(operation, method))

    def _changed(self, operation: Operation, method: str) -> JsonSchema:
        name = operation.tool if method == "patch" else f"{operation.tool}_{method}"
        described = self._with_body(operation, name)
        create = self._registry.verbs(operation.resource).get("create")
        if create is None or not operation.model:
            return described
        made, changed = self._accepted(create), self._accepted(operation)
        content = described["requestBody"]["content"]
        if method == "put":
            whole = {**whole_of(made, changed), "title": name}
            shared = self._components.add(name, whole)
            content[JSON] = {"schema": shared, "example": example(whole, self._components)}
            described["requestBody"]["required"] = "required" in whole
            described["description"] = "Replace the record: fields that are left out become their defaults."
        else:
            patch = {**patch_of(made, changed), "title": f"{name}_merge"}
            shared = self._components.add(f"{name}_merge", patch)
            content[MERGE_PATCH] = {"schema": shared, "example": {}}
        return described

    def _add(self, path: str, method: str, described: JsonSchema) -> None:
        self._open.setdefault(path, {})[method] = described

    def _created(self, operation: Operation) -> JsonSchema:
        described = self._with_body(operation, operation.tool)
        made = described["responses"].pop("200")
        made["description"] = "The record that was created."
        made["headers"] = {"Location": _LOCATION, **made.get("headers", {})}
        described["responses"].pop("204", None)
        verbs = self._registry.verbs(operation.resource)
        names = [name for name in _RECORD if name in verbs and verbs[name].on_record]
        if names:
            made["links"] = {
                name: {
                    "operationId": verbs[name].tool,
                    "parameters": {"id": "$response.body#/id"},
                    "description": verbs[name].summary or verbs[name].name,
                }
                for name in names
            }
        described["responses"] = {"201": made, **described["responses"]}
        return described

    def _with_query(self, operation: Operation) -> JsonSchema:
        schema = self._accepted(operation)
        parameters = list(query_parameters(operation, schema, self._components))
        if "filter" in schema["properties"] and not operation.on_record:
            parameters += self._short(operation)
        described = self._described(operation, operation.tool, body=False)
        if parameters:
            described["parameters"] = [*parameters, *described.get("parameters", ())]
        return described

    def _asked(self, described: JsonSchema, name: str, parameter: JsonSchema) -> None:
        """Say of an operation that it may be asked for in this way; the parameter is shared."""
        self.parameters[name] = parameter
        described.setdefault("parameters", []).append({"$ref": f"#/components/parameters/{name}"})

    def _short(self, operation: Operation) -> list[JsonSchema]:
        found: list[JsonSchema] = []
        for name, parameter in short_forms(operation, self._components):
            self.parameters[name] = parameter
            found.append({"$ref": f"#/components/parameters/{name}"})
        return found

    def _with_body(self, operation: Operation, name: str) -> JsonSchema:
        schema = self._accepted(operation)
        shapes = alternatives(operation, {"title": name, **schema})
        named = [self._components.add(one["title"], one) for one in shapes]
        shared = named[0] if len(named) == 1 else {"anyOf": named}
        described = self._described(operation, name, body=True)
        content: JsonSchema = {JSON: {"schema": shared, "example": example(shapes[0], self._components)}}
        if takes_rows(operation):
            content |= {NDJSON: {"schema": _TEXT}, CSV: {"schema": _TEXT}}
        described["requestBody"] = {
            "content": content,
            "required": any(one.get("required") or one.get("minProperties") for one in shapes),
        }
        return described

    def _accepted(self, operation: Operation) -> JsonSchema:
        """Made once for all methods of an operation."""
        if operation.name not in self._known:
            without = self._elsewhere(operation)
            self._known[operation.name] = accepted(operation, self._components, without)
        return self._known[operation.name]

    def _elsewhere(self, operation: Operation) -> set[str]:
        """The arguments that the address says, and those that say the same in another way."""
        if not operation.on_record or operation.verb not in _RECORD:
            return set()
        return {"id", *operation.details.instead_of_id}

    def _described(self, operation: Operation, name: str, *, body: bool) -> JsonSchema:
        content: JsonSchema = {JSON: {"schema": self._answer(operation)}}
        answered: JsonSchema = {"description": "Done.", "content": content}
        if streams(operation) and not body:
            content |= {NDJSON: {"schema": _TEXT}, CSV: {"schema": _TEXT}}
            answered["headers"] = {"Link": _NEXT_LINK}
        if operation.effect is not Effect.READ:
            self.parameters["Prefer"] = PREFER
        if operation.tag is not None:
            answered["headers"] = dict(ETAG)
        status = "200"
        if operation.output is None and operation.effect is Effect.DELETE and operation.on_record:
            status, answered = "204", {"description": "Done."}
        described: JsonSchema = {
            "operationId": name,
            "tags": [operation.resource or "workflows"],
            "summary": _title(operation, name),
            "description": operation.summary or f"Run {operation.name}.",
            "responses": {status: answered, **refusals(operation, locked=self._locked, body=body)},
        }
        if operation.matches:
            self._asked(described, "IfMatch", PARAMETERS["IfMatch"])
        if takes_key(operation):
            self._asked(described, _KEY, _IDEMPOTENCY_KEY)
            answered.setdefault("headers", {})["Idempotency-Replayed"] = _REPLAYED
        return with_preferences(operation, described)

    def _answer(self, operation: Operation) -> JsonSchema:
        if operation.output is Any:
            return ANYTHING
        return self._components.of_type(operation, operation.output)


def _kinds_of(operation: Operation) -> Iterator[Any]:
    """The types that are described for an operation."""
    yield operation.input
    if operation.output is not Any:
        yield operation.output
    yield from operation.details.fields.values()


def _title(operation: Operation, name: str) -> str:
    words = f"{operation.verb} {operation.resource}" if operation.resource else operation.name
    if name.endswith(("_post", "_put")):
        words += f" ({name.rsplit('_', 1)[-1].upper()})"
    words = words.replace("_", " ").replace("-", " ").replace(".", " ")
    return words[:1].upper() + words[1:]


def tags(registry: Registry) -> list[Mapping[str, str]]:
    found = [
        {"name": name, "description": f"The records of {name.replace('_', ' ')}."}
        for name in registry.resources()
    ]
    return [
        *found,
        {"name": "workflows", "description": "Operations that belong to no resource."},
        {"name": "system", "description": "The server itself."},
    ]
