"""Create, get, list, update, delete and count: one record or one query at a time."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from dataflow.assignments import parse_assignments
from dataflow.model import VERSION, Model
from dataflow.nodes.parts import (
    FieldsArgument,
    FilterArgument,
    SoftDeleteArgument,
    VersionArgument,
    a_record,
    about_deleted,
    arguments_of,
    counts_deleted,
    created_fields,
    given_values,
    key_argument,
    optional_fields,
    placed,
    records_of,
)
from dataflow.store import Store
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import InvalidArguments, Problem
from nexus.operation import Effect, Operation


class CountResult(msgspec.Struct):
    count: int


def crud_operations(model: Model, store: Store) -> list[Operation]:
    return [make(model, store) for make in (_create, _get, _update, _delete, _count)]


def _create(model: Model, store: Store) -> Operation:
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
    )


def _get(model: Model, store: Store) -> Operation:
    async def get(call: Call, arguments: Any) -> msgspec.Struct:
        return await store.get(call, model, arguments.id, deleted=counts_deleted(arguments))

    return placed(
        model,
        "get",
        "Read",
        Effect.READ,
        f"Read {a_record(model)} by id.",
        handler=get,
        input=arguments_of(model, "Get", [key_argument(model), *about_deleted(model)]),
        output=model.record,
        on_record=True,
    )


def _update(model: Model, store: Store) -> Operation:
    optional = optional_fields(model)
    names = tuple(field[0] for field in optional)

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
            deleted=counts_deleted(arguments),
        )

    document: list[Any] = [("fields", FieldsArgument, UNSET), *about_deleted(model)]
    if model.versioned:
        document.append((VERSION, VersionArgument, UNSET))
    return placed(
        model,
        "update",
        "Update",
        Effect.UPDATE,
        f"Change fields of {a_record(model)}; the others stay.",
        handler=update,
        input=arguments_of(model, "Update", [key_argument(model), *optional, *document]),
        output=model.record,
        on_record=True,
    )


def _delete(model: Model, store: Store) -> Operation:
    hard: list[Any] = [("soft_delete", SoftDeleteArgument, True)] if model.soft_delete else []

    async def delete(call: Call, arguments: Any) -> msgspec.Struct:
        soft = getattr(arguments, "soft_delete", None)
        await store.delete(call, model, arguments.id, soft=soft, deleted=counts_deleted(arguments))
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
        input=arguments_of(model, "Delete", [key_argument(model), *about_deleted(model), *hard]),
        output=result,
        on_record=True,
    )


def _count(model: Model, store: Store) -> Operation:
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
