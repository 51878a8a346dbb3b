"""Create, get, list, update, delete and count: one record or one query at a time."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.assignments import parse_assignments
from dataflow.fields import INT_MAX, MISSING
from dataflow.model import VERSION, Model
from dataflow.naming import snake_case
from dataflow.ordering import after_cursor, cursor_after
from dataflow.store import Store
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import InvalidArguments, InvalidFilter, Problem
from nexus.filters import All
from nexus.operation import Effect, Operation

_MOST_RECORDS = 1000

FilterArgument = Annotated[
    dict[str, Any] | None,
    Meta(description='Which records: MongoDB\'s grammar, as in {"price": {"$gt": 3}, "name": "Lamp"}'),
]
OrderArgument = Annotated[
    str | list[str] | None,
    Meta(description="Fields to sort by; '-' before a name for descending, as in -price,name"),
]
SortArgument = Annotated[
    dict[str, Any] | list[dict[str, Any]] | None,
    Meta(description='As order_by, in another form: [{"price": -1}, {"name": 1}]'),
]
CursorArgument = Annotated[
    str | None,
    Meta(
        description="Read in pages that go on exactly where the last one ended: empty at first, then 'next'"
    ),
]
LimitArgument = Annotated[int, Meta(ge=1, le=_MOST_RECORDS, description="At most this many records")]
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


class CountResult(msgspec.Struct):
    count: int


def crud_operations(model: Model, store: Store) -> list[Operation]:
    return [make(model, store) for make in (_create, _get, _list, _update, _delete, _count)]


def _operation(model: Model, verb: str, node: str, effect: Effect, summary: str, **parts: Any) -> Operation:
    return Operation(
        name=f"{model.route}.{verb}",
        resource=model.route,
        verb=verb,
        node=f"{model.name}{node}Node",
        effect=effect,
        summary=summary,
        managed=model.managed if effect in (Effect.CREATE, Effect.UPDATE) else frozenset(),
        **parts,
    )


def _one(model: Model) -> str:
    noun = snake_case(model.name).replace("_", " ")
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _many(model: Model) -> str:
    return model.route.replace("_", " ")


def _create(model: Model, store: Store) -> Operation:
    given: list[Any] = [(f.name, f.given_type, f.given_default) for f in model.writable()]
    names = tuple(field.name for field in model.writable())
    if model.generates_id:
        given.append(("id", _key_type(model) | UnsetType, UNSET))
    struct = _struct(model, "Create", given)

    async def create(call: Call, arguments: Any) -> msgspec.Struct:
        values = {name: getattr(arguments, name) for name in names}
        if model.generates_id and arguments.id is not UNSET:
            values["id"] = arguments.id
        return await store.create(call, model, values)

    summary = f"Create {_one(model)}." + (f" {model.description}" if model.description else "")
    return _operation(
        model,
        "create",
        "Create",
        Effect.CREATE,
        summary,
        handler=create,
        input=struct,
        output=model.record,
    )


def _get(model: Model, store: Store) -> Operation:
    async def get(call: Call, arguments: Any) -> msgspec.Struct:
        return await store.get(call, model, arguments.id, deleted=_deleted(arguments))

    return _operation(
        model,
        "get",
        "Read",
        Effect.READ,
        f"Read {_one(model)} by id.",
        handler=get,
        input=_struct(model, "Get", [_key(model), *_about_deleted(model)]),
        output=model.record,
        on_record=True,
    )


def _list(model: Model, store: Store) -> Operation:
    async def list_(call: Call, arguments: Any) -> msgspec.Struct:
        where, order = (
            model.parse_filter(arguments.filter),
            model.parse_order(arguments.order_by, arguments.sort),
        )
        deleted, limit, offset = _deleted(arguments), arguments.limit, arguments.offset
        if arguments.cursor is None:
            records = await store.list(call, model, where, order, limit, offset, deleted=deleted)
            return result(records, len(records), limit, offset)
        if offset:
            raise InvalidFilter("'offset' and 'cursor' are two ways to say where a page begins.")
        wanted = where
        if arguments.cursor:
            after = after_cursor(arguments.cursor, model.route, model.fields, order, where)
            wanted = All((where, after))
        records = await store.list(call, model, wanted, order, limit + 1, 0, deleted=deleted)
        more, records = len(records) > limit, records[:limit]
        next_ = cursor_after(records[-1], order, where) if more else None
        return result(records, len(records), limit, UNSET, next_)

    parts: list[Any] = [
        ("records", list[model.record]),  # type: ignore[name-defined]
        ("count", int),
        ("limit", int),
        ("offset", int | UnsetType, UNSET),
        ("next", str | None | UnsetType, UNSET),
    ]
    result = msgspec.defstruct(f"{model.name}List", parts)
    struct = _struct(
        model,
        "List",
        [
            ("filter", FilterArgument, None),
            ("order_by", OrderArgument, None),
            ("sort", SortArgument, None),
            ("limit", LimitArgument, 100),
            ("offset", OffsetArgument, 0),
            ("cursor", CursorArgument, None),
            *_about_deleted(model),
        ],
    )
    return _operation(
        model,
        "list",
        "List",
        Effect.READ,
        f"List {_many(model)}: those that match a filter, sorted, in pages.",
        handler=list_,
        input=struct,
        output=result,
    )


def _update(model: Model, store: Store) -> Operation:
    fields = [field for field in model.writable() if field.name != "id"]
    names = tuple(field.name for field in fields)

    async def update(call: Call, arguments: Any) -> msgspec.Struct:
        plain = {n: v for n in names if (v := getattr(arguments, n)) is not UNSET}
        document = {} if arguments.fields is UNSET else arguments.fields
        changes = parse_assignments(model, plain) + parse_assignments(
            model, document, pointer("fields"), in_process=call.in_process
        )
        twice = {change.field for change in changes if change.field in plain and change.field in document}
        if twice or not changes:
            detail = f"'{min(twice)}' is given twice" if twice else "nothing to change was given"
            problem = Problem(InvalidArguments.TYPE, pointer("fields"), detail)
            raise InvalidArguments(f"{model.route}.update", [problem])
        version = getattr(arguments, VERSION, UNSET)
        return await store.update(
            call,
            model,
            arguments.id,
            changes,
            version=None if version is UNSET else version,
            deleted=_deleted(arguments),
        )

    document: list[Any] = [("fields", FieldsArgument, UNSET), *_about_deleted(model)]
    if model.versioned:
        document.append((VERSION, VersionArgument, UNSET))
    optional = [(field.name, field.given_type | UnsetType, UNSET) for field in fields]
    return _operation(
        model,
        "update",
        "Update",
        Effect.UPDATE,
        f"Change fields of {_one(model)}; the others stay.",
        handler=update,
        input=_struct(model, "Update", [_key(model), *optional, *document]),
        output=model.record,
        on_record=True,
    )


def _delete(model: Model, store: Store) -> Operation:
    hard: list[Any] = [("soft_delete", SoftDeleteArgument, True)] if model.soft_delete else []

    async def delete(call: Call, arguments: Any) -> msgspec.Struct:
        soft = getattr(arguments, "soft_delete", None)
        await store.delete(call, model, arguments.id, soft=soft, deleted=_deleted(arguments))
        return result(1, arguments.id)

    result = msgspec.defstruct(
        f"{model.name}Deleted",
        [("deleted", int), ("id", model.fields["id"].stored_type)],
        module="dataflow.results",
    )

    return _operation(
        model,
        "delete",
        "Delete",
        Effect.DELETE,
        f"Delete {_one(model)}.",
        handler=delete,
        input=_struct(model, "Delete", [_key(model), *_about_deleted(model), *hard]),
        output=result,
        on_record=True,
    )


def _count(model: Model, store: Store) -> Operation:
    async def count(call: Call, arguments: Any) -> CountResult:
        where = model.parse_filter(arguments.filter)
        return CountResult(await store.count(call, model, where, deleted=_deleted(arguments)))

    return _operation(
        model,
        "count",
        "Count",
        Effect.READ,
        f"Count {_many(model)}: all, or those that match a filter.",
        handler=count,
        input=_struct(model, "Count", [("filter", FilterArgument, None), *_about_deleted(model)]),
        output=CountResult,
    )


def _about_deleted(model: Model) -> list[Any]:
    return [("include_deleted", IncludeDeletedArgument, False)] if model.soft_delete else []


def _deleted(arguments: Any) -> bool:
    return bool(getattr(arguments, "include_deleted", False))


def _key_type(model: Model) -> Any:
    return model.fields["id"].given_type


def _key(model: Model) -> tuple[str, Any]:
    return ("id", _key_type(model))


def _struct(model: Model, verb: str, fields: list[Any]) -> type[msgspec.Struct]:
    spelt = [field[:2] if len(field) == 3 and field[2] is MISSING else field for field in fields]
    return msgspec.defstruct(
        f"{model.name}{verb}",
        spelt,
        forbid_unknown_fields=True,
        kw_only=True,
        module="dataflow.arguments",
    )
