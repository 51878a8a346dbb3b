"""Create, get, list, update, delete and count: one record or one query at a time."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.assignments import Assignment, parse_assignments
from dataflow.bulk import Bulk
from dataflow.etags import Tags
from dataflow.includes import including, one_state, parse_include
from dataflow.model import VERSION, Model
from dataflow.nodes.meant import (
    delete_meant,
    meant,
    nobody,
    null_record,
    record_or_nulls,
    update_meant,
    which,
)
from dataflow.nodes.parts import (
    FieldsArgument,
    FilterArgument,
    FlatValues,
    IncludeArgument,
    OnlyId,
    SoftDeleteArgument,
    VersionArgument,
    a_record,
    about_deleted,
    arguments_of,
    beside,
    counts_deleted,
    created_fields,
    given_values,
    older,
    placed,
    records_of,
)
from dataflow.store import Store
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import InvalidArguments, InvalidInput, NotFound, Problem
from nexus.operation import Effect, Operation

RaiseArgument = Annotated[
    bool | UnsetType, Meta(description="No such record is an error; by id it is one anyway")
]
NullArgument = Annotated[bool | UnsetType, Meta(description="No such record is a record of nulls")]


class CountResult(msgspec.Struct):
    count: int


def crud_operations(model: Model, store: Store, bulk: Bulk) -> list[Operation]:
    return [make(model, store, bulk) for make in (_create, _get, _update, _delete, _count)]


def _create(model: Model, store: Store, bulk: Bulk) -> Operation:
    async def create(call: Call, arguments: Any) -> msgspec.Struct:
        return await store.create(call, model, given_values(model, arguments))

    summary = f"Create {a_record(model)}." + (f" {model.description}" if model.description else "")
    return placed(
        model,
        "create",
        "Create",
        Effect.CREATE,
        summary,
        handler=create,
        input=arguments_of(model, "Create", created_fields(model)),
        output=model.record,
        tag=Tags(model),
    )


def _get(model: Model, store: Store, bulk: Bulk) -> Operation:
    own: list[Any] = [
        *which(model),
        ("raise_on_not_found", RaiseArgument, UNSET),
        ("return_null_if_not_found", NullArgument, UNSET),
        ("include", IncludeArgument, None),
        *about_deleted(model),
    ]
    flat = beside(model, own)
    flat_values = FlatValues(flat)
    takes = arguments_of(model, "Get", [*own, *flat])
    only_id = OnlyId(takes)
    tags = Tags(model)

    async def get(call: Call, arguments: Any) -> Any:
        match = call.match
        if match is None and only_id(arguments):
            return await store.get(call, model, arguments.id, deleted=counts_deleted(arguments))
        if arguments.include is None:
            record = await found(call, arguments)
            if match is not None:
                match.check("What was read", tags(record, msgspec.json.encode(record)))
            return record
        if match is not None:
            raise InvalidInput(
                "With 'include' there is no 'if_match': what is read is more than a record, its tag is weak.",
                remedy="Read the record without 'include'.",
            )
        included = parse_include(model, arguments.include)
        async with one_state(call, store, model, included) as reading:
            row = msgspec.structs.asdict(await found(reading, arguments))
            await including(reading, store, [row], included, deleted=counts_deleted(arguments))
        return row

    async def found(call: Call, arguments: Any) -> msgspec.Struct:
        deleted = counts_deleted(arguments)
        where = meant(model, "get", arguments, flat_values(arguments))
        try:
            if where is None:
                return await store.get(call, model, arguments.id, deleted=deleted)
            records = await store.list(call, model, where, model.parse_order("id"), 1, 0, deleted=deleted)
            if records:
                return records[0]
            raise nobody(model)
        except NotFound:
            if _raises(model, arguments, by_id=where is None):
                raise
            return null_record(model)

    return placed(
        model,
        "get",
        "Read",
        Effect.READ,
        f"Read {a_record(model)} by id, or the first that matches.",
        handler=get,
        input=takes,
        output=record_or_nulls(model),
        on_record=True,
        tag=tags,
        matches=True,
    )


def _raises(model: Model, arguments: Any, *, by_id: bool) -> bool:
    raises, null = arguments.raise_on_not_found, arguments.return_null_if_not_found
    if raises is not UNSET and null is not UNSET and raises == null:
        detail = "'raise_on_not_found' and 'return_null_if_not_found' contradict each other"
        problem = Problem(InvalidArguments.TYPE, pointer("raise_on_not_found"), detail)
        raise InvalidArguments(f"{model.route}.get", [problem])
    if raises is not UNSET:
        return bool(raises)
    return by_id if null is UNSET else not null


def _update(model: Model, store: Store, bulk: Bulk) -> Operation:
    own: list[Any] = [
        *which(model),
        ("fields", FieldsArgument, UNSET),
        ("updates", older(FieldsArgument, "fields"), UNSET),
        *about_deleted(model),
    ]
    if model.versioned:
        own.append((VERSION, VersionArgument, UNSET))
    flat = beside(model, own)
    flat_values = FlatValues(flat)

    async def update(call: Call, arguments: Any) -> msgspec.Struct:
        where = meant(model, "update", arguments, {})
        changes = _changes(call, model, flat_values(arguments), arguments)
        version = getattr(arguments, VERSION, UNSET) if model.versioned else UNSET
        about: dict[str, Any] = {
            "version": None if version is UNSET else version,
            "match": call.match,
            "deleted": counts_deleted(arguments),
        }
        if where is not None:
            return await update_meant(call, model, bulk, where, changes, **about)
        return await store.update(call, model, arguments.id, changes, **about)

    return placed(
        model,
        "update",
        "Update",
        Effect.UPDATE,
        f"Change fields of {a_record(model)}; the others stay.",
        handler=update,
        input=arguments_of(model, "Update", [*own, *flat]),
        output=model.record,
        on_record=True,
        tag=Tags(model),
        matches=True,
        asks_match=lambda arguments: getattr(arguments, VERSION, UNSET) is UNSET,
    )


def _changes(call: Call, model: Model, plain: dict[str, Any], arguments: Any) -> tuple[Assignment, ...]:
    changes = parse_assignments(model, plain)
    for name in ("fields", "updates"):
        if (document := getattr(arguments, name)) is not UNSET:
            changes += parse_assignments(model, document, pointer(name), in_process=call.in_process)
    names = [change.field for change in changes]
    twice = sorted(name for name in set(names) if names.count(name) > 1)
    if not changes and any(
        isinstance(document, dict) and document.get("$merge") == {}
        for document in (arguments.fields, arguments.updates)
    ):
        return ()
    if twice or not changes:
        detail = f"'{twice[0]}' is given twice" if twice else "nothing to change was given"
        problem = Problem(InvalidArguments.TYPE, pointer("fields"), detail)
        raise InvalidArguments(f"{model.route}.update", [problem])
    return changes


def _delete(model: Model, store: Store, bulk: Bulk) -> Operation:
    hard: list[Any] = [("soft_delete", SoftDeleteArgument, True)] if model.soft_delete else []

    async def delete(call: Call, arguments: Any) -> msgspec.Struct:
        soft, deleted = getattr(arguments, "soft_delete", None), counts_deleted(arguments)
        where = meant(model, "delete", arguments, {})
        match = call.match
        if where is not None:
            key = await delete_meant(call, model, bulk, where, soft=bool(soft), match=match, deleted=deleted)
            return result(1, key)
        await store.delete(call, model, arguments.id, soft=soft, match=match, deleted=deleted)
        return result(1, arguments.id)

    result = msgspec.defstruct(
        f"{model.name}Deleted",
        [("deleted", int), ("id", model.fields["id"].stored_type)],
        module="dataflow.results",
    )
    return placed(
        model,
        "delete",
        "Delete",
        Effect.DELETE,
        f"Delete {a_record(model)}.",
        handler=delete,
        input=arguments_of(model, "Delete", [*which(model), *about_deleted(model), *hard]),
        output=result,
        on_record=True,
        matches=True,
    )


def _count(model: Model, store: Store, bulk: Bulk) -> Operation:
    async def count(call: Call, arguments: Any) -> CountResult:
        where = model.parse_filter(arguments.filter)
        return CountResult(await store.count(call, model, where, deleted=counts_deleted(arguments)))

    return placed(
        model,
        "count",
        "Count",
        Effect.READ,
        f"Count {records_of(model)}: all, or those that match a filter.",
        handler=count,
        input=arguments_of(model, "Count", [("filter", FilterArgument, None), *about_deleted(model)]),
        output=CountResult,
    )
