"""Values that are not known yet: `{{ }}` templates and `:name` placeholders in a node's parameters.

`{{quantity}}` is an input of the run, `{{find.records.0.id}}` the output of the node `find`. A value that is
exactly one template keeps its type; inside a longer text it becomes text. `:name` stands for what a
connection brings to the input `name`. They are replaced in parameters only, never in data that flows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nexus.errors import NexusError, RegistrationError, did_you_mean
from nexus.results import step_into

Path: TypeAlias = tuple[str, ...]

_TEMPLATE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w$-]+)*")
_PLACEHOLDER = re.compile(r":([A-Za-z_]\w*)")
_LATER = frozenset({"env", "now"})


@dataclass(frozen=True, slots=True)
class Template:
    """One template and nothing else: the value at `path`, of whatever type."""

    path: Path


@dataclass(frozen=True, slots=True)
class Text:
    """A text with templates in it."""

    parts: tuple[str | Template, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What a connection brings to the input `name`."""

    name: str


def parse(value: object) -> Any:
    """The value with its templates found. Raises RegistrationError for one that cannot be meant."""
    if isinstance(value, Mapping):
        return {key: parse(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [parse(item) for item in value]
    if not isinstance(value, str):
        return value
    if "${" in value:
        raise RegistrationError(
            f"'{value[:60]}': '${{…}}' is not a template.",
            remedy="Write {{input}} or {{node.output}}.",
        )
    if placeholder := _PLACEHOLDER.fullmatch(value):
        return Placeholder(placeholder[1])
    parts = _parts(value)
    if len(parts) == 1 and isinstance(parts[0], Template):
        return parts[0]
    return Text(parts) if any(isinstance(part, Template) for part in parts) else value


def _parts(value: str) -> tuple[str | Template, ...]:
    parts: list[str | Template] = []
    end = 0
    for found in _TEMPLATE.finditer(value):
        if found.start() > end:
            parts.append(value[end : found.start()])
        parts.append(_template(found[1]))
        end = found.end()
    if end < len(value):
        parts.append(value[end:])
    return tuple(parts)


def _template(inside: str) -> Template:
    if not _PATH.fullmatch(inside):
        raise RegistrationError(
            f"'{{{{{inside[:60]}}}}}' is not a template.",
            remedy="Write {{input}} or {{node.output}}.",
        )
    path = tuple(inside.split("."))
    if path[0] in _LATER:
        raise RegistrationError(f"'{{{{{inside[:60]}}}}}': templates of '{path[0]}' are not available yet.")
    return Template(path)


def templates(value: object) -> Iterator[Template]:
    """Every template in a parsed value."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, Text):
        for part in value.parts:
            yield from templates(part)
    elif isinstance(value, dict):
        for item in value.values():
            yield from templates(item)
    elif isinstance(value, list):
        for item in value:
            yield from templates(item)


def placeholders(value: object) -> Iterator[str]:
    """The name of every placeholder in a parsed value."""
    if isinstance(value, Placeholder):
        yield value.name
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from placeholders(item)


def fill(value: Any, scope: Mapping[str, Any], brought: Mapping[str, Any]) -> Any:
    """A parsed value with everything replaced: templates from `scope`, by the first step of their paths,
    placeholders from `brought`."""
    if isinstance(value, Template):
        return look_up(scope, value.path)
    if isinstance(value, Text):
        return "".join(p if isinstance(p, str) else str(look_up(scope, p.path)) for p in value.parts)
    if isinstance(value, Placeholder):
        return brought[value.name]
    if isinstance(value, dict):
        return {key: fill(item, scope, brought) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, scope, brought) for item in value]
    return value


def look_up(value: Any, path: Path) -> Any:
    """The value at `path`, whose steps are keys or numbers of items. `data` and `result`, where there is no
    such key, are a list's records, else the whole."""
    for depth, step in enumerate(path):
        try:
            value = step_into(value, step)
        except KeyError:
            known = list(value) if isinstance(value, Mapping) else []
            raise MissingValue(".".join(path[: depth + 1]), did_you_mean(step, known)) from None
    return value


class MissingValue(NexusError):
    """A template or a connection asks for an output that the node did not give."""

    code = "DF-802"
    title = "Missing value"
    status = 422
    exit_code = 2

    def __init__(self, path: str, hint: str) -> None:
        super().__init__(f"There is no value '{path}'.", remedy=hint)
