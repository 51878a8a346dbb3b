"""What the operations of a model have in common: how they are placed, and the arguments that they share."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.fields import INT_MAX, MISSING
from dataflow.model import Model
from dataflow.naming import snake_case
from dataflow.nodes.described import details_of
from dataflow.reading import also_reads
from nexus.arguments import NOTHING_REFUSED
from nexus.operation import AsksMatch, Effect, Operation

MOST_RECORDS = 1000

FilterArgument = Annotated[
    dict[str, Any] | None,
    Meta(description='Which records: MongoDB\'s grammar, as in {"price": {"$gt": 3}, "name": "Lamp"}'),
]
OrderArgument = Annotated[
    str | list[str] | None,
    Meta(description="Fields to sort by; '-' before a name for descending, as in -price,name"),
]
SortArgument = Annotated[
    str | dict[str, Any] | list[str | dict[str, Any]] | None,
    Meta(description='Fields to sort by, as in -price,name, or as in [{"price": -1}]; also called order_by'),
]
CursorArgument = Annotated[
    str | None,
    Meta(
        description="Read in pages that go on exactly where the last one ended: empty at first, then 'next'"
    ),
]
IncludeArgument = Annotated[
    str | list[str] | None,
    Meta(description="Related records beside, by the names of relations, as in customer,items.product"),
]
LimitArgument = Annotated[int, Meta(ge=1, le=MOST_RECORDS, description="At most this many records")]
OffsetArgument = Annotated[int, Meta(ge=0, le=INT_MAX, description="Leave out this many records first")]
FieldsArgument = Annotated[
    dict[str, Any] | UnsetType,
    Meta(description='New values, or operators on what is stored, as in {"stock": {"$inc": 5}}'),
]

IncludeDeletedArgument = Annotated[bool, Meta(description="Soft-deleted records count, too")]
SoftDeleteArgument = Annotated[bool, Meta(description="Mark the record as deleted; false removes it")]
VersionArgument = Annotated[
    int | UnsetType, Meta(description="The version that was read; any other is a conflict")
]


def older(argument: Any, name: str) -> Any:
    """An argument under another word than `name`, which is to be used instead."""
    described = Meta(description=f"An older word for '{name}'", extra_json_schema={"deprecated": True})
    return Annotated[argument, described]


_REFUSED = dict.fromkeys(
    ("cache_backend", "cache_invalidation", "cache_key", "cache_ttl", "cache_warm_up", "read_preference"),
    "is not available yet",
)
"""Parameters that are documented for every node, and why they are refused."""


def placed(
    model: Model,
    verb: str,
    node: str,
    effect: Effect,
    summary: str,
    *,
    input: type[msgspec.Struct],
    refused: Mapping[str, str] = NOTHING_REFUSED,
    asks_match: AsksMatch | None = None,
    **parts: Any,
) -> Operation:
    """`asks_match` tells of arguments whether they change a record without saying in which state it is;
    unless it is given, those of every update and deletion do."""
    if asks_match is None and effect in (Effect.UPDATE, Effect.DELETE):
        asks_match = _always
    return Operation(
        input=input,
        asks_match=asks_match if model.require_if_match else None,
        shows_tag=model.require_if_match and "tag" in parts,
        details=details_of(model, verb, input.__struct_fields__),
        name=f"{model.route}.{verb}",
        resource=model.route,
        verb=verb,
        node=f"{model.name}{node}Node",
        effect=effect,
        summary=summary,
        managed=model.managed if effect in (Effect.CREATE, Effect.UPDATE) else frozenset(),
        refused={name: why for name, why in {**_REFUSED, **refused}.items() if name not in model.fields},
        model=model.name,
        types={field.name: field.given_type for field in model.fields.values()},
        also_reads=functools.partial(also_reads, model) if effect is Effect.READ else None,
        **parts,
    )


def _always(arguments: Any) -> bool:
    return True


def a_record(model: Model) -> str:
    noun = snake_case(model.name).replace("_", " ")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def records_of(model: Model) -> str:
    return model.route.replace("_", " ")


def about_deleted(model: Model) -> list[Any]:
    return [("include_deleted", IncludeDeletedArgument, False)] if model.soft_delete else []


def counts_deleted(arguments: Any) -> bool:
    return bool(getattr(arguments, "include_deleted", False))


def key_type(model: Model) -> Any:
    return model.fields["id"].given_type


def key_argument(model: Model) -> tuple[str, Any]:
    return ("id", key_type(model))


def created_fields(model: Model) -> list[Any]:
    """The arguments that make a record."""
    given: list[Any] = [(f.name, f.given_type, f.given_default) for f in model.writable()]
    if model.generates_id:
        given.append(("id", key_type(model) | UnsetType, UNSET))
    return given


def given_values(model: Model, arguments: Any) -> dict[str, Any]:
    """The fields of a model that were given, or have a default."""
    names = [name for name in model.fields if hasattr(arguments, name)]
    return {name: value for name in names if (value := getattr(arguments, name)) is not UNSET}


def optional_fields(model: Model) -> list[Any]:
    """The fields of a model that a caller may write, but for the id, each of which may be left out."""
    return [
        (field.name, field.given_type | UnsetType, UNSET) for field in model.writable() if field.name != "id"
    ]


def arguments_of(model: Model, verb: str, fields: list[Any]) -> type[msgspec.Struct]:
    spelt = [field[:2] if len(field) == 3 and field[2] is MISSING else field for field in fields]
    return msgspec.defstruct(
        f"{model.name}{verb}",
        spelt,
        forbid_unknown_fields=True,
        kw_only=True,
        module="dataflow.arguments",
    )


def beside(model: Model, taken: list[Any]) -> list[Any]:
    """The fields of a model that may stand beside arguments, whose names come first."""
    names = {argument[0] for argument in taken}
    return [field for field in optional_fields(model) if field[0] not in names]


class OnlyId:
    """Tells whether a record is meant by its id and nothing else is said, as mostly it is."""

    def __init__(self, arguments: type[msgspec.Struct]) -> None:
        others = [
            field
            for field in msgspec.structs.fields(arguments)
            if field.name not in ("id", "include_deleted")
        ]
        self._others = operator.attrgetter(*[field.name for field in others])
        self._unsaid = tuple([field.default for field in others])

    def __call__(self, arguments: Any) -> bool:
        return arguments.id is not UNSET and bool(self._others(arguments) == self._unsaid)


class FlatValues:
    """Reads those of the fields beside that were given."""

    def __init__(self, flat: list[Any]) -> None:
        self._names = [field[0] for field in flat]
        # All in one call, since mostly none is given; with the other two it is always a tuple.
        self._all = operator.attrgetter(*self._names, "__class__", "__class__")

    def __call__(self, arguments: Any) -> dict[str, Any]:
        values = self._all(arguments)
        if values.count(UNSET) == len(self._names):
            return {}
        return {name: value for name, value in zip(self._names, values, strict=False) if value is not UNSET}
