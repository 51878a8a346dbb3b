"""The shape of an operation's arguments: checked here once, for every channel.

The good path is one msgspec call. Only when that fails are the arguments looked at again, slowly, to name
everything that is wrong with them and not just the first thing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from nexus.errors import InvalidArguments, InvalidInput, Malformed, Problem, did_you_mean
from nexus.warnings import warn_managed

Given: TypeAlias = "Mapping[str, object] | bytes"

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a JSON decoder raises for something that is not JSON; ValidationError is to be caught before."""

NOTHING_REFUSED: Mapping[str, str] = MappingProxyType({})

_PATH = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_SHOWN = 60
_MOMENTS = (inspect.DateTimeType, inspect.DateType, inspect.TimeType, inspect.TimeDeltaType)
_STRUCTURED = (
    inspect.AnyType,
    inspect.DictType,
    inspect.ListType,
    inspect.StructType,
    inspect.SetType,
    inspect.VarTupleType,
    inspect.TupleType,
)


class Arguments:
    """What one operation accepts. `operation` is the name that its error messages begin with; `managed` are
    the arguments that it fills itself, which may be given and are dropped; `refused` those that are
    documented and cannot be given, with the rest of a sentence that says why."""

    def __init__(
        self,
        operation: str,
        struct: type[msgspec.Struct],
        managed: frozenset[str] = frozenset(),
        refused: Mapping[str, str] = NOTHING_REFUSED,
    ) -> None:
        self.operation = operation
        self.struct = struct
        self.managed = managed
        self.refused = refused
        self.fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        self._decode = msgspec.json.Decoder(struct).decode
        self._readers: dict[str, Callable[[str], object]] = {}

    def accept(self, given: Given, *, in_process: bool = False) -> Any:
        """Validated arguments from a mapping or from a JSON object in bytes. A caller in process is told
        what was dropped, by a warning.

        Raises Malformed or InvalidArguments."""
        try:
            if isinstance(given, bytes):
                return self._decode(given)
            return msgspec.convert(given, self.struct)
        except msgspec.ValidationError as failure:
            kept = self._without_managed(given, in_process)
            if kept is None:
                kept = self._with_integers(given)
            if kept is None:
                raise self._explain(given, failure) from None
        except UNREADABLE as failure:
            raise malformed(failure) from None
        return self.accept(kept)

    def from_text(self, name: str, text: str) -> object:
        """The value meant by `text`, as typed in a shell or a URL, for the argument `name`."""
        field = self.fields.get(name)
        if field is None:
            raise InvalidArguments(self.operation, [self._unknown(name)])
        try:
            read = self._readers.get(name)
            if read is None:
                read = self._readers[name] = text_reader(field.type)
            return read(text)
        except msgspec.ValidationError as failure:
            raise InvalidArguments(self.operation, [self._mistyped(name, failure)]) from None
        except UNREADABLE as failure:
            raise malformed(failure, of=f"{self.operation}: '{name}'") from None

    def refusal(self, name: str) -> str:
        """Why an argument that is documented cannot be given."""
        return f"'{name}' {self.refused[name]}"

    def check_names(self, names: Iterable[str]) -> None:
        """Raises InvalidArguments for those that are no arguments."""
        problems = [self._unknown(name) for name in names if name not in self.fields]
        if problems:
            raise InvalidArguments(self.operation, problems)

    def _without_managed(self, given: Given, in_process: bool) -> Given | None:
        """What is left without the managed arguments; None where there are none."""
        try:
            members = _members(given)
        except (msgspec.ValidationError, *UNREADABLE):
            return None
        dropped = self.managed.intersection(members)
        if not dropped:
            return None
        if in_process:
            warn_managed(self.operation, dropped)
        kept = {name: value for name, value in members.items() if name not in dropped}
        return msgspec.json.encode(kept) if isinstance(given, bytes) else kept

    def _with_integers(self, given: Given) -> Given | None:
        """With 3 for 3.0 where only that is taken, since to JSON Schema both are integers; None where nothing
        can be put right so."""
        try:
            members = _members(given)
        except (msgspec.ValidationError, *UNREADABLE):
            return None
        changed: dict[str, object] = {}
        for name, value in members.items():
            if (field := self.fields.get(name)) is not None and (made := _integral(field.type, value)) != []:
                changed[name] = made[0]
        if not changed:
            return None
        kept = {**members, **changed}
        return msgspec.json.encode(kept) if isinstance(given, bytes) else kept

    def _explain(self, given: Given, failure: msgspec.ValidationError) -> InvalidInput:
        if isinstance(given, bytes):
            try:
                given = msgspec.json.decode(given, type=dict[str, msgspec.Raw])
            except msgspec.ValidationError as shape:
                detail = f"the arguments: {_plain(str(shape))}"
                return InvalidArguments(self.operation, [Problem(InvalidArguments.TYPE, "", detail)])
            except UNREADABLE as unreadable:
                return malformed(unreadable)
        problems = list(self._problems(given))
        if not problems:  # a rule on the whole struct, such as its __post_init__
            problems = [Problem(InvalidArguments.TYPE, "", _plain(str(failure)))]
        return InvalidArguments(self.operation, problems)

    def _problems(self, given: Mapping[str, object]) -> Iterator[Problem]:
        for name in given:
            if name not in self.fields:
                yield self._unknown(str(name))
        for name, field in self.fields.items():
            if field.required and name not in given:
                yield Problem(InvalidArguments.MISSING, pointer(name), f"missing argument '{name}'")
        for name, field in self.fields.items():
            if name in given:
                try:
                    _as(field.type, given[name])
                except msgspec.ValidationError as failure:
                    yield self._mistyped(name, failure)

    def _unknown(self, name: str) -> Problem:
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
        if name in self.refused:
            return Problem(InvalidArguments.UNKNOWN, pointer(name), self.refusal(name))
        detail = f"unknown argument '{shown}'. {did_you_mean(name, self.fields)}".rstrip()
        return Problem(InvalidArguments.UNKNOWN, pointer(name), detail)

    def _mistyped(self, name: str, failure: msgspec.ValidationError) -> Problem:
        message = str(failure)
        path: list[str | int] = [name]
        if match := _PATH.search(message):
            message = message[: match.start()]
            path += [step or index for step, index in _STEP.findall(match["path"])]
        return Problem(InvalidArguments.TYPE, pointer(*path), f"'{name}': {_plain(message)}")


def _members(given: Given) -> Mapping[str, object]:
    """By name, not yet understood. Raises msgspec.ValidationError or one of UNREADABLE."""
    return msgspec.json.decode(given, type=dict[str, msgspec.Raw]) if isinstance(given, bytes) else given


def _integral(wanted: Any, value: object) -> list[object]:
    """The value with integers for floats, if that makes it right: in a list, since it may be anything."""
    try:
        _as(wanted, value)
    except msgspec.ValidationError:
        plain = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        try:
            made = _without_fractions(plain)
            msgspec.convert(made, wanted)
        except (msgspec.ValidationError, RecursionError):
            return []
        return [made]
    return []


def _without_fractions(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_without_fractions(part) for part in value]
    if isinstance(value, dict):
        return {name: _without_fractions(part) for name, part in value.items()}
    return value


def pointer(*steps: str | int) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def malformed(failure: Exception, of: str = "The input") -> Malformed:
    """Malformed, from what a JSON decoder said."""
    if isinstance(failure, RecursionError):
        return Malformed(f"{of} is nested too deeply.")
    reason = str(failure).removeprefix("JSON is malformed: ")
    return Malformed(f"{of} is not valid JSON: {reason}.")


def read_text(wanted: Any, text: str) -> object:
    """The value of the type `wanted` that a text from a shell or an address means: a text is itself, objects
    and lists are JSON, else it is what it looks like. Raises msgspec.ValidationError or one of UNREADABLE."""
    return text_reader(wanted)(text)


@functools.lru_cache(maxsize=4096)
def text_reader(wanted: Any) -> Callable[[str], object]:
    """`read_text` for one type. To look a type up, as by this, costs more than to read an integer."""
    if is_json_text(wanted):
        return functools.partial(msgspec.json.decode, type=wanted)
    kinds = kinds_of(wanted)
    if any(isinstance(kind, inspect.StrType) for kind in kinds):
        return functools.partial(msgspec.convert, type=wanted)
    if any(isinstance(kind, _MOMENTS) for kind in kinds):
        # Strictly, else a number would be taken for seconds.
        return lambda text: msgspec.convert(text, wanted, strict=text != "null")
    read = functools.partial(msgspec.convert, type=wanted, strict=False)
    if not any(isinstance(kind, inspect.IntType) for kind in kinds):
        return read
    digits = msgspec.json.Decoder(wanted).decode  # which knows its type already

    def read_integer(text: str) -> object:
        plain = text.isdigit() and text.isascii() and text[0] != "0"
        return digits(text) if plain else read(text)

    return read_integer


@functools.lru_cache(maxsize=4096)
def is_json_text(wanted: Any) -> bool:
    """Whether a value of this type is written as JSON, where there is only text to write it in."""
    kinds = kinds_of(wanted)
    if any(isinstance(kind, inspect.StrType) for kind in kinds):
        return False
    return any(isinstance(kind, _STRUCTURED) for kind in kinds)


@functools.lru_cache(maxsize=4096)
def kinds_of(wanted: Any) -> tuple[inspect.Type, ...]:
    """The alternatives that a type consists of: one, unless it is a union."""
    info = _bare(inspect.type_info(wanted))
    kinds = info.types if isinstance(info, inspect.UnionType) else (info,)
    return tuple(_bare(kind) for kind in kinds)


def _bare(info: inspect.Type) -> inspect.Type:
    """Without what Annotated adds, as to a union to describe it."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def _as(wanted: Any, value: object) -> object:
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value, type=wanted)
    return msgspec.convert(value, wanted)


def _plain(message: str) -> str:
    """What msgspec says, as a part of our own sentence."""
    message = message.replace("`", "")
    return message[:1].lower() + message[1:]
