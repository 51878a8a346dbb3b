"""The body of a change of one record, as the arguments of its `update`.

PATCH application/json                 the arguments themselves: fields, and operators on what is stored
PATCH application/merge-patch+json     the record as it is to become where it differs (RFC 7396)
PUT                                    the whole record: what is left out becomes its default
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.types import Scope

from nexus.arguments import UNREADABLE, Arguments, malformed
from nexus.errors import InvalidArguments, Problem, UnsupportedMedia
from nexus.operation import Operation
from nexus_channels.rest.forms import media_of

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
ACCEPT_PATCH = (b"accept-patch", f"{JSON}, {MERGE_PATCH}".encode())

_VERSION = "version"
_WRAPPED = re.compile(r"^/fields/\$(set|merge)(?=/)")
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_READ = frozenset({"", JSON, MERGE_PATCH})


def changed(
    scope: Scope, operation: Operation, create: Operation | None, body: bytes, record: str
) -> bytes | dict[str, Any]:
    """What `operation` is to be given. `create` is the operation that makes records of the same kind; without
    one, whatever is given is changed. Raises InvalidArguments, Malformed and UnsupportedMedia."""
    identity = operation.arguments.from_text("id", record)
    media = media_of(scope)
    if body and scope["method"] == "PATCH":
        _check_media(media)
    try:
        given = _raw_object(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        if isinstance(failure, msgspec.ValidationError):
            return body  # the kernel says what is wrong with it
        raise malformed(failure) from None
    own = given.pop("id", None)
    if own is not None and _value(own) != msgspec.to_builtins(identity):
        differs = "'id' in the body is not the one in the address"
        raise InvalidArguments(operation.name, [Problem(InvalidArguments.TYPE, "/id", differs)])
    if create is not None and operation.model:
        if scope["method"] == "PUT":
            return _replaced(operation, create, given, identity)
        if media == MERGE_PATCH:
            return _merged(operation, given, identity)
    return msgspec.json.encode({**given, "id": identity})


def _replaced(
    operation: Operation, create: Operation, given: dict[str, msgspec.Raw], identity: object
) -> dict[str, Any]:
    """Every field that a caller may write, as if the record were made now."""
    arguments: dict[str, Any] = {"id": identity}
    if _VERSION in given and _VERSION in operation.arguments.fields:
        arguments[_VERSION] = _value(given.pop(_VERSION))
    made = _whole(operation.name, create.arguments).accept(msgspec.json.encode({**given, "id": identity}))
    names = [name for name in made.__struct_fields__ if name != "id"]
    values = {name: value for name in names if (value := getattr(made, name)) is not msgspec.UNSET}
    return {**arguments, "fields": {"$set": values}}


def _merged(operation: Operation, given: dict[str, msgspec.Raw], identity: object) -> dict[str, Any]:
    arguments: dict[str, Any] = {"id": identity}
    if _VERSION in given and _VERSION in operation.arguments.fields:
        arguments[_VERSION] = _value(given.pop(_VERSION))
    patch = {name: _value(value) for name, value in given.items()}
    return {**arguments, "fields": {"$merge": patch}}


@contextmanager
def as_sent(given: bytes | dict[str, Any]) -> Iterator[None]:
    """Problems with their places in the body, of what `changed` has made of it."""
    try:
        yield
    except InvalidArguments as failure:
        if isinstance(given, dict):
            failure.problems = tuple(
                dataclasses.replace(problem, pointer=_WRAPPED.sub("", problem.pointer))
                for problem in failure.problems
            )
        raise


@functools.lru_cache(maxsize=1000)
def _whole(operation: str, create: Arguments) -> Arguments:
    """A record that is made whole, in the words of the operation that changes it."""
    return Arguments(operation, create.struct, create.managed, create.refused)


def _value(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE as failure:
        raise malformed(failure) from None


def _check_media(media: str) -> None:
    if media.endswith("+json") and media not in _READ:
        raise UnsupportedMedia(
            f"A PATCH as {media[:80]} is not read.", remedy=f"Send {MERGE_PATCH} or {JSON}."
        )
