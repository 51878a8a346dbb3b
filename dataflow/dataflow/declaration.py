"""From a class to a model. What cannot be is refused, naming the field or the option."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import re
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dataflow.annotations import field_from
from dataflow.arrays import with_arrays
from dataflow.fields import MISSING, Field, Kind
from dataflow.indexes import KEY_LENGTH, Index, declared_indexes, index_on
from dataflow.keys import uuid7
from dataflow.model import DELETED_AT, TENANT, VERSION, Model
from dataflow.naming import plural, snake_case
from dataflow.relations import Declared, Relations, declared_relations
from dataflow.validation import Mode, validate
from nexus.errors import RegistrationError, did_you_mean

_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_OWN_TABLES = ("dataflow_", "nexus_")
_ARGUMENTS = frozenset({"fields", "filter", "if_match", "include_deleted", "soft_delete"})
_TIMESTAMPS = ("created_at", "updated_at")
_KEYS = (Kind.INTEGER, Kind.TEXT, Kind.UUID)
_SWITCHES = frozenset({"multi_tenant", "require_if_match", "soft_delete", "versioned"})
_OPTIONS: dict[str, type] = {
    "route": str,
    "foreign_keys": bool,
    "changes": bool,
    "use_native_arrays": bool,
    **dict.fromkeys(_SWITCHES, bool),
}
_LATER_OPTIONS = {
    "audit_log": "",
    "encryption": "",
    "database": "Register the model with the DataFlow of that database.",
    "indexes": "Write them as __indexes__.",
    "relations": "Write them as __relations__.",
}


def model_from(
    cls: type,
    beside: Relations | None = None,
    *,
    mode: Mode = Mode.WARN,
    defaults: Mapping[str, bool] = MappingProxyType({}),
) -> Model:
    """Read a class, to be registered among the models whose relations are `beside`. `defaults` are options
    of models that say nothing of them.

    Raises RegistrationError naming the field or the option that cannot be, and its ModelValidationError for
    what strict mode refuses; warns of the same in the mode WARN."""
    related = Relations({}) if beside is None else beside
    name = cls.__name__
    options = {**defaults, **_options(cls, name)}
    table = getattr(cls, "__tablename__", None) or plural(snake_case(name))
    _check_table(name, table)
    declared = _declared(cls, name)
    foreign_keys = bool(options.get("foreign_keys", False))
    relations = declared_relations(name, getattr(cls, "__relations__", {}))
    switches = {option: bool(options.get(option)) for option in _SWITCHES}
    fields = _fields(name, declared, switches)
    if options.get("use_native_arrays"):
        fields = with_arrays(name, fields)
    within = (TENANT,) if switches["multi_tenant"] else ()
    indexes = declared_indexes(name, table, getattr(cls, "__indexes__", ()), fields, within)
    if within:
        indexes = (*indexes, index_on(table, (TENANT, "id")))
    if foreign_keys:
        indexes = _with_foreign(table, indexes, fields, relations)
    model = Model(
        name=name,
        table_name=table,
        route=str(options.get("route", table)),
        fields=_bounded(fields, indexes),
        generates_id=fields["id"].kind is Kind.INTEGER and fields["id"].factory is None,
        description=" ".join((cls.__doc__ or "").split()),
        managed=frozenset(_TIMESTAMPS),
        indexes=indexes,
        declared_relations=relations,
        foreign_keys=foreign_keys,
        changes=bool(options.get("changes", True)),
        related=related,
        **switches,
    )
    for relation in relations:
        if relation.name in fields:
            raise RegistrationError(f"[VAL-010] {name}: '{relation.name}' is both a field and a relation.")
    validate(model, frozenset(declared), related.models, mode)
    return model


def refuse_instances(cls: type) -> None:
    """Let calling the class say what to do instead."""

    def refuse(owner: type, *_: object, **__: object) -> typing.NoReturn:
        raise TypeError(
            f"{owner.__name__} is a model: a schema, not an object. Use its operations instead, such as"
            f" '{plural(snake_case(owner.__name__))}.create' or the node {owner.__name__}CreateNode."
        )

    cls.__new__ = refuse  # type: ignore[assignment,method-assign]


def _fields(name: str, declared: Mapping[str, Field], switches: Mapping[str, bool]) -> dict[str, Field]:
    automatic = _automatic(switches)
    for field_name in automatic:
        if field_name in declared and field_name not in _TIMESTAMPS:
            raise RegistrationError(f"{name}: '{field_name}' cannot be a field: an option makes it.")
    fields = {"id": _identity(name, declared.get("id"))}
    fields |= {key: field for key, field in declared.items() if key != "id" and key not in automatic}
    return fields | automatic


def _automatic(switches: Mapping[str, bool]) -> dict[str, Field]:
    made: list[Field] = []
    if switches["multi_tenant"]:
        made.append(Field(TENANT, Kind.TEXT, str, automatic=True))
    if switches["versioned"]:
        made.append(Field(VERSION, Kind.INTEGER, int, automatic=True))
    if switches["soft_delete"]:
        made.append(Field(DELETED_AT, Kind.DATETIME, datetime.datetime, nullable=True, automatic=True))
    made += [Field(stamp, Kind.DATETIME, datetime.datetime, automatic=True) for stamp in _TIMESTAMPS]
    return {field.name: field for field in made}


def _identity(name: str, given: Field | None) -> Field:
    """The primary key: numbered by the database, a UUID made here, or given at each create."""
    if given is None:
        return Field("id", Kind.INTEGER, int, automatic=True)
    if given.kind not in _KEYS or given.choices:
        raise RegistrationError(
            f"{name}: an id of type '{given.kind.value}' is not available; use int, str or UUID."
        )
    if given.default is not MISSING and given.default is not None:
        raise RegistrationError(
            f"{name}: all records would have the same id.", remedy="Give a function as its default."
        )
    factory = given.factory
    if given.kind is Kind.UUID and factory is None:
        factory = uuid7
    automatic = given.kind is Kind.INTEGER and factory is None
    return Field("id", given.kind, given.annotation, automatic=automatic, factory=factory)


def _declared(cls: type, name: str) -> dict[str, Field]:
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, SyntaxError) as failure:
        raise RegistrationError(f"{name}: an annotation cannot be resolved: {failure}.") from failure
    fields: dict[str, Field] = {}
    for field_name, annotation in hints.items():
        if field_name.startswith("__") or typing.get_origin(annotation) is typing.ClassVar:
            continue
        if field_name in _ARGUMENTS:
            raise RegistrationError(f"{name}: '{field_name}' cannot be a field: it is an argument's name.")
        fields[field_name] = field_from(name, field_name, annotation, _given(cls, field_name))
    folded = {field_name.casefold() for field_name in fields}
    if len(folded) < len(fields):
        raise RegistrationError(f"{name}: two fields differ only in case; not every database allows that.")
    return fields


def _given(cls: type, name: str) -> Any:
    """The default as it was written: a function in a class is not bound to anything."""
    for owner in cls.__mro__:
        if name in vars(owner):
            return vars(owner)[name]
    return MISSING


def _with_foreign(
    table: str, indexes: tuple[Index, ...], fields: Mapping[str, Field], relations: tuple[Declared, ...]
) -> tuple[Index, ...]:
    """An index for each field that may refer to another table: servers look there when the other changes."""
    names = [relation.field or f"{relation.name}_id" for relation in relations if not relation.many]
    names += [name for name in fields if name.endswith("_id") and name not in names]
    leading = {index.fields[0] for index in indexes}
    wanted = [name for name in names if name in fields and fields[name].kind in _KEYS]
    return (*indexes, *(index_on(table, (name,)) for name in wanted if name not in leading))


def _bounded(fields: Mapping[str, Field], indexes: tuple[Index, ...]) -> dict[str, Field]:
    indexed = {"id"}.union(*(index.fields for index in indexes))
    return {
        name: dataclasses.replace(field, length=KEY_LENGTH)
        if name in indexed and field.kind is Kind.TEXT
        else field
        for name, field in fields.items()
    }


def _options(cls: type, name: str) -> dict[str, object]:
    options: dict[str, object] = copy.copy(getattr(cls, "__dataflow__", {}))
    for option, value in options.items():
        if option in _LATER_OPTIONS:
            raise RegistrationError(
                f"{name}: the option '{option}' is not available yet.", remedy=_LATER_OPTIONS[option]
            )
        if option not in _OPTIONS:
            raise RegistrationError(
                f"{name}: there is no option '{option}' in __dataflow__.",
                remedy=did_you_mean(option, _OPTIONS),
            )
        if _OPTIONS[option] is bool:
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
    if table.casefold().startswith(_OWN_TABLES):
        raise RegistrationError(f"{name}: tables that begin with {_OWN_TABLES} are the platform's own.")
