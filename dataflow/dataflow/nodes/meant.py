"""Which one record an operation is about: by its id, by a filter, or by some of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.assignments import Assignment
from dataflow.bulk import Batch, Bulk
from dataflow.model import VERSION, Model
from dataflow.nodes.parts import key_type, older
from dataflow.store import called
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import Conflict, InvalidArguments, NotFound, Problem
from nexus.etag import Match
from nexus.filters import All, Filter

WhichArgument = Annotated[
    dict[str, Any] | UnsetType, Meta(description="Which record, where not by id: a filter that one matches")
]


def which(model: Model) -> list[Any]:
    """The arguments that say it. `conditions` is another word for `filter`."""
    return [
        ("id", key_type(model) | UnsetType, UNSET),
        ("filter", WhichArgument, UNSET),
        ("conditions", older(WhichArgument, "filter"), UNSET),
    ]


def meant(model: Model, verb: str, arguments: Any, flat: Mapping[str, Any]) -> Filter | None:
    """The filter, or None where the id says it. Raises InvalidArguments where nothing does, or two do."""
    if arguments.filter is UNSET and arguments.conditions is UNSET and not flat and arguments.id is not UNSET:
        return None
    given = [name for name in ("id", "filter", "conditions") if getattr(arguments, name) is not UNSET]
    given += ["fields"] if flat else []
    if not given:
        raise _refused(model, verb, InvalidArguments.MISSING, "id", "missing argument 'id'")
    if len(given) > 1:
        first, second = (f"'{name}'" if name != "fields" else "the fields" for name in given[:2])
        detail = f"{first} and {second} both say which record: give one"
        raise _refused(model, verb, InvalidArguments.TYPE, given[0], detail)
    if flat:
        return All(tuple(model.parse_filter({name: value}) for name, value in flat.items()))
    document = getattr(arguments, given[0])
    if not document:
        raise _refused(
            model, verb, InvalidArguments.TYPE, given[0], f"'{given[0]}' says which record, and is empty"
        )
    return model.parse_filter(document)


def nobody(model: Model) -> NotFound:
    return NotFound(f"No record of {model.route} matches.")


def null_record(model: Model) -> msgspec.Struct:
    """What a reader who wants no error is given."""
    return model.record(*[None] * len(model.fields))


def record_or_nulls(model: Model) -> type[msgspec.Struct]:
    """The type of what a reader is given."""
    fields = [(field.name, field.stored_type | None) for field in model.fields.values()]
    return msgspec.defstruct(f"{model.name}OrNulls", fields, module="dataflow.results")


async def update_meant(
    call: Call,
    model: Model,
    bulk: Bulk,
    where: Filter,
    changes: tuple[Assignment, ...],
    *,
    version: int | None,
    match: Match | None,
    deleted: bool,
) -> msgspec.Struct:
    """Raises NotFound; PreconditionFailed where it is not in the state that `match` says; Conflict where
    several match, or the one is at another version."""
    async with bulk.batch(call, model, deleted=deleted) as batch:
        key = await _one(batch, where, "bulk_update")
        if match is not None:
            await _check(batch, key, match)
        if version is not None and getattr(await batch.read(key), VERSION) != version:
            raise Conflict(
                f"{called(model, key)} is not at version {version} any more.",
                remedy="Read it again and repeat the change.",
            )
        await batch.update_ids([key], changes)
        return await batch.read(key)


async def delete_meant(
    call: Call, model: Model, bulk: Bulk, where: Filter, *, soft: bool, match: Match | None, deleted: bool
) -> Any:
    """The id of the record that was deleted. Raises NotFound; PreconditionFailed where it is not in the state
    that `match` says; Conflict where several match."""
    async with bulk.batch(call, model, deleted=deleted) as batch:
        key = await _one(batch, where, "bulk_delete")
        if match is not None:
            await _check(batch, key, match)
        await batch.delete_ids([key], soft=soft)
        return key


async def _check(batch: Batch, key: Any, match: Match) -> None:
    match.check(called(batch.model, key), batch.table.tags.of(await batch.read(key)))


async def _one(batch: Batch, where: Filter, many: str) -> Any:
    route = batch.model.route
    found = await batch.pick(await batch.matching(where), 2)
    if not found:
        raise nobody(batch.model)
    if len(found) > 1:
        raise Conflict(
            f"More than one record of {route} matches.", remedy=f"Narrow it, or use {route}.{many}."
        )
    return found[0]


def _refused(model: Model, verb: str, code: str, name: str, detail: str) -> InvalidArguments:
    return InvalidArguments(f"{model.route}.{verb}", [Problem(code, pointer(name), detail)])
