"""The input of an operation as options of a command: one for each field, spelt as shells spell them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click
import msgspec
from msgspec import inspect

from nexus.arguments import kinds_of
from nexus.errors import nearest
from nexus.keys import takes_key
from nexus.operation import Effect, Operation
from nexus_channels.cli.program import output_option

ID = "id"
IF_MATCH = "if_match"
ETAG = "etag"
IDEMPOTENCY_KEY = "idempotency_key"
BACKGROUND = "background"
DRY_RUN, MAX_AFFECTED = "dry_run", "max_affected"
DEMANDS = (DRY_RUN, MAX_AFFECTED, IF_MATCH)
FLAGS = ("yes", "help", ETAG, DRY_RUN, BACKGROUND)
"""Those of the program's own options that take no value."""

_FEW = 12
_JSON_HELP = "The arguments, or some of them, as a JSON object: TEXT, @FILE, or - for stdin."

_IF_MATCH_HELP = "Only if the record is still in the state with this tag; * for any state."
_KEY_HELP = "Do it once, however often it is repeated with this key and the same arguments."
_ETAG_HELP = "Write only the record's tag, for --if-match."

_NAMES: tuple[tuple[type[inspect.Type], str], ...] = (
    (inspect.StrType, "TEXT"),
    (inspect.IntType, "INTEGER"),
    (inspect.FloatType, "NUMBER"),
    (inspect.DecimalType, "DECIMAL"),
    (inspect.BoolType, "BOOLEAN"),
    (inspect.DateTimeType, "DATETIME"),
    (inspect.DateType, "DATE"),
    (inspect.TimeType, "TIME"),
    (inspect.TimeDeltaType, "DURATION"),
    (inspect.UUIDType, "UUID"),
    (inspect.BytesType, "BASE64"),
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The field that an option is about. A switch `says` its value, any other option takes one."""

    field: str
    says: str | None


class Options:
    """How the fields of one operation are written in a terminal.

    The options of the program itself, such as `--json`, give their long form up to a field of that
    name; the short form remains. `positional` says that the record's id is shown without a name.
    """

    def __init__(self, operation: Operation, *, positional: bool) -> None:
        self.operation = operation
        self.fields = operation.arguments.fields
        self.takes_id = operation.on_record and ID in self.fields
        self.positional = positional and self.takes_id
        self.own = {"-j": "json", "-o": "output", "-y": "yes", "-h": "help"}
        self.own |= {f"--{name}": name for name in self.own.values() if name not in self.fields}
        if operation.effect is not Effect.READ:
            self.own |= {
                f"--{kebab(name)}": name for name in (DRY_RUN, MAX_AFFECTED) if name not in self.fields
            }
        if self.takes_tag:
            self.own |= {"--if-match": IF_MATCH, "--if_match": IF_MATCH}
        if operation.tag is not None and ETAG not in self.fields:
            self.own["--etag"] = ETAG
        if takes_key(operation):
            self.own["-k"] = IDEMPOTENCY_KEY
            if IDEMPOTENCY_KEY not in self.fields:
                self.own |= {"--idempotency-key": IDEMPOTENCY_KEY, "--idempotency_key": IDEMPOTENCY_KEY}
        if operation.recorded and BACKGROUND not in self.fields:
            self.own["--background"] = BACKGROUND
        self._words: dict[str, Meaning] = {}
        for name, field in self.fields.items():
            for word in (name, kebab(name)):
                self._words[word] = Meaning(name, "true" if is_switch(field.type) else None)
        for name in operation.managed:
            for word in (name, kebab(name)):
                self._words.setdefault(word, Meaning(name, None))
        for name, field in self.fields.items():
            if is_switch(field.type):
                for word in (f"no_{name}", f"no-{kebab(name)}"):
                    self._words.setdefault(word, Meaning(name, "false"))

    @property
    def takes_tag(self) -> bool:
        """Whether it changes a record, and may be told in which state."""
        return self.operation.matches and self.operation.effect is not Effect.READ

    def find(self, word: str) -> Meaning | None:
        """What the name of an option, without its dashes, means."""
        return self._words.get(word)

    def spelling(self, name: str) -> str:
        """How a field is written, in messages."""
        return "ID" if self.positional and name == ID else f"--{kebab(name)}"

    def parameters(self) -> list[click.Parameter]:
        """For the help and for completion; they parse nothing."""
        found: list[click.Parameter] = []
        if self.positional:
            found.append(click.Argument([ID], help=_help(self.fields[ID].type) or "The record's id."))
        for index, (name, field) in enumerate(self.fields.items()):
            if not (self.positional and name == ID):
                found.append(_option(f"field_{index}", name, field))
        found.append(self._own_option("json", "-j", _JSON_HELP, metavar="JSON"))
        if self.operation.effect is Effect.DELETE:
            found.append(self._own_option("yes", "-y", "Do not ask.", is_flag=True))
        if "--dry-run" in self.own:
            found.append(
                self._own_option(
                    DRY_RUN, "", "Do everything, show the result, and keep nothing.", is_flag=True
                )
            )
        if "--max-affected" in self.own:
            most = "Do nothing where more than so many records would be written."
            found.append(self._own_option(MAX_AFFECTED, "", most, metavar="INTEGER"))
        if self.takes_tag:
            found.append(click.Option(["own_if_match", "--if-match"], help=_IF_MATCH_HELP, metavar="TAG"))
        if "-k" in self.own:
            words = [word for word in ("-k", "--idempotency-key") if word in self.own]
            found.append(click.Option(["own_key", *words], help=_KEY_HELP, metavar="KEY"))
        if "--etag" in self.own:
            found.append(click.Option(["own_etag", "--etag"], help=_ETAG_HELP, is_flag=True))
        output = output_option()
        output.opts = [word for word in output.opts if word in self.own]
        return [*found, output]

    def _own_option(
        self, name: str, short: str, text: str, *, metavar: str | None = None, is_flag: bool = False
    ) -> click.Option:
        words = [word for word in (short, f"--{kebab(name)}") if word in self.own]
        return click.Option([f"own_{name}", *words], help=text, metavar=metavar, is_flag=is_flag)


def closest(word: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt option. Dashes make no two of them alike."""
    named = {name.lstrip("-"): name for name in known}
    near = nearest(word.lstrip("-"), named)
    if near is not None:
        return f"Did you mean '{named[near]}'?"
    return f"Known: {', '.join(sorted(named.values()))}." if 0 < len(named) <= _FEW else ""


def kebab(name: str) -> str:
    return name.replace("_", "-")


def is_switch(wanted: Any) -> bool:
    """Whether a field only takes yes and no."""
    return all(isinstance(kind, inspect.BoolType) for kind in kinds(wanted))


def kinds(wanted: Any) -> list[inspect.Type]:
    """What a field takes besides null, or besides nothing at all."""
    found = kinds_of(wanted)
    return [kind for kind in found if not isinstance(kind, inspect.NoneType)] or list(found)


def type_name(wanted: Any) -> str:
    """As help shows it: INTEGER, TEXT, JSON, red|green."""
    return "|".join(dict.fromkeys(_type_name(kind) for kind in kinds(wanted)))


def _type_name(kind: inspect.Type) -> str:
    choices = _choices(kind)
    if choices:
        return "|".join(choices)
    return next((name for known, name in _NAMES if isinstance(kind, known)), "JSON")


def _choices(kind: inspect.Type) -> list[str]:
    if isinstance(kind, inspect.LiteralType):
        return [str(value) for value in kind.values]
    if isinstance(kind, inspect.EnumType):
        return [str(member.value) for member in kind.cls]
    return []


def _option(identifier: str, name: str, field: msgspec.structs.FieldInfo) -> click.Option:
    word = f"--{kebab(name)}"
    if is_switch(field.type):
        return click.Option(
            [identifier, f"{word}/--no-{kebab(name)}"],
            help=_help(field.type),
            required=field.required,
            default=field.default if isinstance(field.default, bool) else None,
            show_default=isinstance(field.default, bool),
        )
    choices = [choice for kind in kinds(field.type) for choice in _choices(kind)]
    default = _default(field)
    return click.Option(
        [identifier, word],
        type=click.Choice(choices) if choices else click.STRING,
        metavar=type_name(field.type),
        help=_help(field.type),
        required=field.required,
        default=default,
        show_default=default is not None,
    )


def _help(wanted: Any) -> str:
    info: inspect.Type | None = inspect.type_info(wanted)
    while isinstance(info, inspect.Metadata):
        description = (info.extra_json_schema or {}).get("description")
        if description:
            return str(description)
        info = info.type
    return ""


def _default(field: msgspec.structs.FieldInfo) -> str | None:
    factory = field.default_factory
    if factory is not msgspec.NODEFAULT:
        if factory not in (list, dict) and not isinstance(factory, functools.partial):
            return None  # made for each call: there is none to show
        value = factory()
    else:
        value = field.default
    if value is None or value == "" or value is msgspec.NODEFAULT or value is msgspec.UNSET:
        return None
    plain = msgspec.to_builtins(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()
