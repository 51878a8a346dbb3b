"""Values that are not known yet: `{{ }}` templates and `:name` placeholders in a node's parameters.

`{{quantity}}` is an input of the run, `{{find.records.0.id}}` the output of the node `find`,
`{{find.input_data.id}}` what that node was given, `{{env.REGION}}` a variable of the environment that may be
read, `{{now}}` and `{{now + 1h}}` a moment in UTC. A value that is exactly one template keeps its type;
inside a longer text it becomes text. `:name` stands for what a connection brings to the input `name`. They
are replaced in parameters only, never in data that flows.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nexus.config import Settings
from nexus.errors import RegistrationError, did_you_mean
from nexus.results import step_into
from nexus_workflows.errors import MissingValue

Path: TypeAlias = tuple[str, ...]
Convert: TypeAlias = Callable[[Any], Any]

GIVEN = ".input_data"
"""Behind a node's name in a path: what it was given."""

_TEMPLATE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[\w$-]+)*")
_NOW = re.compile(r"now(?:\s*([+-])\s*(\d{1,9})\s*([smhdw]))?")
_PLACEHOLDER = re.compile(r":([A-Za-z_]\w*)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Template:
    """One template and nothing else: the value at `path`, of whatever type."""

    path: Path

    @property
    def source(self) -> str:
        """The node or the input that it speaks of."""
        return self.path[0].removesuffix(GIVEN)


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of its filling, and so much later."""

    later: datetime.timedelta


@dataclass(frozen=True, slots=True)
class Environment:
    """A variable of the environment."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text with templates in it."""

    parts: tuple[str | Template | Now | Environment, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """What a connection brings to the input `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Typed:
    """One of the others, whose value is to be of another type where that loses nothing."""

    value: Any
    convert: Convert


class Prepared:
    """A parameter that a kind of node reads in its own way. `templates` are those in it."""

    templates: tuple[Template, ...] = ()


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
    if ":" not in value and "{{" not in value:
        return value
    if placeholder := _PLACEHOLDER.fullmatch(value):
        return Placeholder(placeholder[1])
    parts = _parts(value)
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    return Text(parts) if any(not isinstance(part, str) for part in parts) else value


def split(value: str) -> list[str | Template]:
    """A text that is about values, such as a condition, and the templates in it. Raises RegistrationError."""
    parts = _parts(value)
    for part in parts:
        if not isinstance(part, (str, Template)):
            raise RegistrationError(f"'{value[:60]}': only inputs and nodes have a place in a condition.")
    return [part for part in parts if isinstance(part, (str, Template))]


def _parts(value: str) -> tuple[str | Template | Now | Environment, ...]:
    parts: list[str | Template | Now | Environment] = []
    end = 0
    for found in _TEMPLATE.finditer(value):
        if found.start() > end:
            parts.append(value[end : found.start()])
        parts.append(_template(found[1]))
        end = found.end()
    if end < len(value):
        parts.append(value[end:])
    return tuple(parts)


def _template(inside: str) -> Template | Now | Environment:
    if moment := _NOW.fullmatch(inside):
        sign, count, unit = moment.groups()
        if not sign:
            return Now(datetime.timedelta())
        try:
            later = datetime.timedelta(**{_UNITS[unit]: int(count)})
        except OverflowError:
            raise RegistrationError(f"'{{{{{inside}}}}}' is too far away.") from None
        return Now(later if sign == "+" else -later)
    if not _PATH.fullmatch(inside):
        raise RegistrationError(
            f"'{{{{{inside[:60]}}}}}' is not a template.",
            remedy="Write {{input}}, {{node.output}}, {{now + 1h}} or {{env.NAME}}.",
        )
    path = tuple(inside.split("."))
    if path[0] == "env" and len(path) == 2:
        return _environment(path[1])
    if len(path) > 1 and path[1] == "input_data":
        return Template((path[0] + GIVEN, *path[2:]))
    return Template(path)


def _environment(name: str) -> Environment:
    allowed = Settings.from_environment().template_env.split(",")
    if name not in (known.strip() for known in allowed):
        raise RegistrationError(
            f"'{{{{env.{name[:60]}}}}}': this variable of the environment may not be read by templates.",
            remedy="Name it in NEXUS_TEMPLATE_ENV, with commas between names.",
        )
    return Environment(name)


def templates(value: object) -> Iterator[Template]:
    """Every template in a parsed value that speaks of an input or a node."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, Text):
        for part in value.parts:
            if isinstance(part, Template):
                yield part
    elif isinstance(value, Prepared):
        yield from value.templates
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


def is_constant(value: object) -> bool:
    """Whether a parsed value is known already."""
    if isinstance(value, dict):
        return all(is_constant(item) for item in value.values())
    if isinstance(value, list):
        return all(is_constant(item) for item in value)
    return not isinstance(value, (Template, Text, Now, Environment, Placeholder, Typed))


def fill(value: Any, scope: Mapping[str, Any], brought: Mapping[str, Any]) -> Any:
    """A parsed value with everything replaced: templates from `scope`, by the first step of their paths,
    placeholders from `brought`. Raises MissingValue."""
    match value:
        case str():
            return value
        case Template():
            return look_up(scope, value.path)
        case Typed():
            return value.convert(fill(value.value, scope, brought))
        case Placeholder():
            return brought[value.name]
        case dict():
            return {key: fill(item, scope, brought) for key, item in value.items()}
        case list():
            return [fill(item, scope, brought) for item in value]
        case Text():
            return "".join(as_text(fill(part, scope, brought)) for part in value.parts)
        case Now():
            return datetime.datetime.now(datetime.UTC) + value.later
        case Environment():
            found = os.environ.get(value.name)
            if found is None:
                raise MissingValue(f"env.{value.name}", "This variable of the environment is not set.")
            return found
    return value


def as_text(value: object) -> str:
    """A value inside of a longer text."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def look_up(value: Any, path: Path) -> Any:
    """The value at `path`, whose steps are keys or numbers of items. `data` and `result`, where there is no
    such key, are a list's records, else the whole. Raises MissingValue, which says what there is."""
    for depth, step in enumerate(path):
        try:
            value = step_into(value, step)
        except KeyError:
            known = [str(key) for key in value] if isinstance(value, Mapping) else []
            raise MissingValue(".".join(path[: depth + 1]), did_you_mean(step, known)) from None
    return value
