"""The query of an address as arguments, and short forms of a filter in it.

`price[gte]=10&status[in]=a,b&name=x` is `filter={"price": {"$gte": 10}, "status": {"$in": ["a", "b"]},
"name": {"$eq": "x"}}`. The name of an argument is that argument; with an operator behind it is a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.types import Scope

from nexus.arguments import UNREADABLE, malformed, pointer, read_text
from nexus.errors import InvalidArguments, Problem, did_you_mean
from nexus.operation import Operation
from nexus_channels.asgi import Header, query_pairs

_SHORT = re.compile(r"(?P<field>[^\[\]]+)\[(?P<op>[a-z]+)\]")
_VALUE = ("eq", "ne", "gt", "gte", "lt", "lte")
_LISTS = ("in", "nin", "between", "overlap")
_TEXTS = ("regex", "options", "like", "ilike", "startswith", "endswith")
_FLAGS = ("exists", "null")
_JSON = ("contains", "any", "size")
_OPERATORS = (*_VALUE, *_LISTS, *_TEXTS, *_FLAGS, *_JSON)
_FILTER = "filter"


def arguments_from(
    operation: Operation, pairs: Iterable[tuple[str, str]], given: dict[str, object]
) -> dict[str, object]:
    """`given`, and what the pairs of a query say. Raises InvalidArguments for a name that is given twice, or
    that nothing has, Malformed for a value that is not JSON where it must be."""
    tests: dict[str, dict[str, object]] = {}
    shortens = bool(operation.details.fields) and _FILTER in operation.arguments.fields
    seen = set(given)
    for name, text in pairs:
        if name in seen:
            raise _refused(operation, InvalidArguments.TYPE, name, f"'{name[:80]}' is given more than once")
        seen.add(name)
        if name in operation.arguments.fields or not shortens or operation.on_record:
            given[name] = operation.arguments.from_text(name, text)
        else:
            field, op, value = _short(operation, name, text)
            if op in tests.setdefault(field, {}):
                raise _refused(
                    operation, InvalidArguments.TYPE, name, f"'{field}' is tested by '{op}' more than once"
                )
            tests[field][op] = value
    if tests:
        whole = given.get(_FILTER)
        given[_FILTER] = {"$and": [whole, tests]} if whole else tests
    return given


def next_page(scope: Scope, resource: str, cursor: str) -> Header:
    """The Link to the page after this one (RFC 8288)."""
    pairs = [(name, text) for name, text in query_pairs(scope["query_string"]) if name != "cursor"]
    address = quote(f"{scope.get('root_path', '')}/{resource}")
    return b"link", f'<{address}?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'.encode()


def _short(operation: Operation, name: str, text: str) -> tuple[str, str, object]:
    """The field, the operator and the value of a short form."""
    match = _SHORT.fullmatch(name)
    field, op = (match["field"], match["op"]) if match else (name, "eq")
    fields = operation.details.fields
    known = [*operation.arguments.fields, *fields]
    if "[" in name and match is None:
        detail = f"'{name[:80]}' is no short form of a filter, as in price[gte]"
        raise _refused(operation, InvalidArguments.UNKNOWN, name, detail)
    if name in operation.arguments.refused:
        raise _refused(operation, InvalidArguments.UNKNOWN, name, operation.arguments.refusal(name))
    if field not in fields and "." not in field:
        detail = f"unknown argument '{name[:80]}'. {did_you_mean(field[:80], known)}".rstrip()
        raise _refused(operation, InvalidArguments.UNKNOWN, name, detail)
    if op not in _OPERATORS:
        detail = f"there is no operator '{op[:80]}' for '{field[:80]}'. {did_you_mean(op, _OPERATORS)}"
        raise _refused(operation, InvalidArguments.UNKNOWN, name, f"{detail} All else: filter=…".strip())
    try:
        return field, f"${op}", _value(fields.get(field, Any), op, text)
    except msgspec.ValidationError as failure:
        reason = str(failure).replace("`", "")
        raise _refused(
            operation, InvalidArguments.TYPE, name, f"'{name[:80]}': {reason[:1].lower()}{reason[1:]}"
        ) from None
    except UNREADABLE as failure:
        raise malformed(failure, of=f"{operation.name}: '{name[:80]}'") from None


def _value(annotation: Any, op: str, text: str) -> object:
    """What a text means to an operator: a value of the field, or what the operator itself takes."""
    if op in _FLAGS:
        return msgspec.convert(text, bool, strict=False)
    if op in _TEXTS:
        return text
    if op == "size":
        return msgspec.convert(text, int, strict=False)
    if op in _LISTS:
        if text.startswith("["):
            return msgspec.json.decode(text, type=list[Any])
        return [_one(annotation, part) for part in text.split(",")] if text else []
    return _loose(text) if op in _JSON else _one(annotation, text)


def _one(annotation: Any, text: str) -> object:
    """A value of the field; below a JSON field, or beyond a relation, what it looks like."""
    if annotation is Any:
        return _loose(text)
    return msgspec.to_builtins(read_text(annotation, text))


def _loose(text: str) -> object:
    """JSON if it is JSON, else itself."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return text


def _refused(operation: Operation, code: str, name: str, detail: str) -> InvalidArguments:
    return InvalidArguments(operation.name, [Problem(code, pointer(name), detail)])
