"""A model: what a class declares, read once into plain values."""

from __future__ import annotations

import copy
import datetime
import functools
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dataflow.comparison import filter_fields
from dataflow.fields import MISSING, Field, Kind, field_from
from dataflow.naming import plural, snake_case
from dataflow.ordering import Order, parse_order
from nexus.errors import RegistrationError, did_you_mean
from nexus.filters import EVERYTHING, Fields, Filter, parse

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_OWN_TABLES = ("dataflow_", "nexus_")
_ARGUMENTS = frozenset({"fields", "filter", "include_deleted", "soft_delete"})
_TIMESTAMPS = ("created_at", "updated_at")
TENANT = "tenant_id"
DELETED_AT = "deleted_at"
VERSION = "version"
_SWITCHES = frozenset({"multi_tenant", "soft_delete", "versioned"})
_OPTIONS = frozenset({"route"}) | _SWITCHES
_LATER_OPTIONS = frozenset(
    {
        "audit_log",
        "use_native_arrays",
        "foreign_keys",
        "indexes",
        "relations",
    }
)


@dataclass(frozen=True, eq=False)
class Model:
    """A name, a table, a route and its fields, in the order of the columns: id first, timestamps last.

    Records of a `multi_tenant` model belong to a tenant each, those of a `soft_delete` model are marked when
    they are deleted, those of a `versioned` model count their changes; each has an automatic field for it.
    """

    name: str
    table_name: str
    route: str
    fields: Mapping[str, Field]
    generates_id: bool
    description: str = ""
    multi_tenant: bool = False
    soft_delete: bool = False
    versioned: bool = False

    @functools.cached_property
    def record(self) -> type[msgspec.Struct]:
        """What reading gives: one attribute for each field."""
        fields = [(field.name, field.stored_type) for field in self.fields.values()]
        return msgspec.defstruct(self.name, fields, module="dataflow.records")

    @functools.cached_property
    def filter_fields(self) -> Fields:
        return filter_fields(self.route, self.fields)

    def parse_filter(self, given: object) -> Filter:
        return EVERYTHING if given is None else parse(given, self.filter_fields)

    def parse_order(self, order_by: object = None, sort: object = None) -> Order:
        return parse_order(self.route, self.fields, order_by, sort)

    def writable(self) -> list[Field]:
        """The fields that a caller may give."""
        return [field for field in self.fields.values() if not field.automatic]


def model_from(cls: type) -> Model:
    """Read a class; raises RegistrationError naming the field or the option that cannot be."""
    name = cls.__name__
    options = _options(cls, name)
    table = getattr(cls, "__tablename__", None) or plural(snake_case(name))
    _check_table(name, table)
    declared = _declared(cls, name)
    identity = declared.pop("id", None)
    if identity is not None and identity.kind not in (Kind.INTEGER, Kind.TEXT):
        raise RegistrationError(
            f"{name}: an id of type '{identity.kind.value}' is not available; use int or str."
        )
    generates_id = identity is None or identity.kind is Kind.INTEGER
    key = Field(
        "id",
        Kind.INTEGER if generates_id else Kind.TEXT,
        int if generates_id else str,
        automatic=generates_id,
    )
    switches = {option: bool(options.get(option)) for option in _SWITCHES}
    automatic = _automatic_fields(switches)
    for field_name in set(automatic) - set(_TIMESTAMPS):
        if field_name in declared:
            raise RegistrationError(f"{name}: '{field_name}' cannot be a field: an option makes it.")
    fields = {"id": key, **{n: field for n, field in declared.items() if n not in automatic}, **automatic}
    return Model(
        name=name,
        table_name=table,
        route=str(options.get("route", table)),
        fields=fields,
        generates_id=generates_id,
        description=" ".join((cls.__doc__ or "").split()),
        **switches,
    )


def refuse_instances(cls: type) -> None:
    """Let calling the class say what to do instead."""

    def refuse(owner: type, *_: object, **__: object) -> typing.NoReturn:
        raise TypeError(
            f"{owner.__name__} is a model: a schema, not an object. Use its operations instead, such as"
            f" '{plural(snake_case(owner.__name__))}.create' or the node {owner.__name__}CreateNode."
        )

    cls.__new__ = refuse  # type: ignore[assignment,method-assign]


def _automatic_fields(switches: Mapping[str, bool]) -> dict[str, Field]:
    made: list[Field] = []
    if switches["multi_tenant"]:
        made.append(Field(TENANT, Kind.TEXT, str, automatic=True))
    if switches["versioned"]:
        made.append(Field(VERSION, Kind.INTEGER, int, automatic=True))
    if switches["soft_delete"]:
        made.append(Field(DELETED_AT, Kind.DATETIME, datetime.datetime, nullable=True, automatic=True))
    made += [Field(stamp, Kind.DATETIME, datetime.datetime, automatic=True) for stamp in _TIMESTAMPS]
    return {field.name: field for field in made}


def _declared(cls: type, name: str) -> dict[str, Field]:
    hints: dict[str, Any] = {}
    try:
        hints = typing.get_type_hints(cls)
    except NameError as failure:
        raise RegistrationError(f"{name}: an annotation cannot be resolved: {failure}.") from failure
    fields: dict[str, Field] = {}
    for field_name, annotation in hints.items():
        if field_name.startswith("__"):
            continue
        if field_name in _ARGUMENTS:
            raise RegistrationError(f"{name}: '{field_name}' cannot be a field: it is an argument's name.")
        default = copy.deepcopy(getattr(cls, field_name, MISSING))
        fields[field_name] = field_from(name, field_name, annotation, default)
    folded = {field_name.casefold() for field_name in fields}
    if len(folded) < len(fields):
        raise RegistrationError(f"{name}: two fields differ only in case; not every database allows that.")
    return fields


def _options(cls: type, name: str) -> dict[str, object]:
    if getattr(cls, "__indexes__", None):
        raise RegistrationError(f"{name}: __indexes__ is not available yet.")
    options: dict[str, object] = dict(getattr(cls, "__dataflow__", {}))
    for option, value in options.items():
        if option in _LATER_OPTIONS:
            raise RegistrationError(f"{name}: the option '{option}' is not available yet.")
        if option not in _OPTIONS:
            raise RegistrationError(
                f"{name}: there is no option '{option}' in __dataflow__.",
                remedy=did_you_mean(option, _OPTIONS),
            )
        if option in _SWITCHES:
            if not isinstance(value, bool):
                raise RegistrationError(f"{name}: '{option}' is True or False, not {value!r}.")
        elif not isinstance(value, str) or not _TABLE.fullmatch(value):
            raise RegistrationError(f"{name}: '{option}' must be a name, not {value!r}.")
    return options


def _check_table(name: str, table: object) -> None:
    if not isinstance(table, str) or not _TABLE.fullmatch(table):
        raise RegistrationError(
            f"{name}: {table!r} cannot be the name of a table.",
            remedy="Use at most 63 letters, digits and '_', beginning with a letter.",
        )
    if table.startswith(_OWN_TABLES):
        raise RegistrationError(f"{name}: tables that begin with {_OWN_TABLES} are the platform's own.")
