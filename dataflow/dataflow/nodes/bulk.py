"""Create, update and delete many records: all of a call, or none."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.assignments import Assignment, parse_assignments
from dataflow.bulk import CHUNK, Batch, Bulk, Key, chunks
from dataflow.columns import ColumnReader
from dataflow.fields import INT_MAX
from dataflow.model import Model
from dataflow.nodes.at_once import AtOnce, Changed
from dataflow.nodes.items import Item, ItemFailure, Items, OnItemError
from dataflow.nodes.parts import (
    FieldsArgument,
    SoftDeleteArgument,
    about_deleted,
    arguments_of,
    beside,
    counts_deleted,
    placed,
    records_of,
)
from dataflow.nodes.rows import Many, Rows, match_fields, row_reader
from dataflow.query import Where
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import ConfirmationRequired, InvalidArguments, NotFound, Problem
from nexus.operation import Effect, Operation

_MOST_AT_ONCE = 100_000
_Change: TypeAlias = "tuple[Key, tuple[Assignment, ...]]"

RowsArgument = Annotated[
    list[Any],  # of objects, which is found when they are read: to look at all of them twice takes its time
    Meta(description="The records; a field given beside counts for each that does not name it"),
]
BatchSize = (
    Annotated[int, Meta(ge=1, le=_MOST_AT_ONCE, description="At most this many records in one statement")]
    | UnsetType
)
Resolution = Annotated[
    Literal["error", "skip", "ignore", "update", "upsert"],
    Meta(description="What becomes of a record that is there already"),
]
MatchFields = Annotated[
    list[str] | UnsetType, Meta(description="The fields by which a record is known; by default its id")
]
ReturnIds = Annotated[bool, Meta(description="Answer with the ids, too")]
Everything = Annotated[
    dict[str, Any], Meta(description="Which records; {} means all of them, and must be said")
]
Limit = Annotated[int, Meta(ge=1, le=INT_MAX, description="At most this many records, by id")] | UnsetType
ConfirmationRequiredArgument = Annotated[
    bool, Meta(description="Do nothing, and say how many records match, unless it is confirmed")
]
Confirmed = Annotated[bool, Meta(description="Go ahead where a confirmation is required")]


class BulkResult(msgspec.Struct, kw_only=True):
    """`execution_time` is in seconds. Nothing is half done: `failure_count` is 0, or the call raised, unless
    it was told to go on: then `failures` say which records were not kept, and why, and `ids` have null there.
    """

    success_count: int
    failure_count: int = 0
    records_processed: int
    execution_time: float
    ids: list[Any] | UnsetType = UNSET
    created: int | UnsetType = UNSET
    updated: int | UnsetType = UNSET
    deleted: int | UnsetType = UNSET
    skipped: int | UnsetType = UNSET
    failures: list[ItemFailure] | UnsetType = UNSET


def bulk_operations(model: Model, bulk: Bulk) -> list[Operation]:
    return [_update(model, bulk), _delete(model, bulk)]


_SAFETY: list[Any] = [
    ("confirmation_required", ConfirmationRequiredArgument, False),
    ("confirmed", Confirmed, False),
]


def _update(model: Model, bulk: Bulk) -> Operation:
    own: list[Any] = [
        ("filter", Everything | UnsetType, UNSET),
        ("data", RowsArgument | UnsetType, UNSET),
        ("update", FieldsArgument, UNSET),
        ("updates", dict[str, Any] | list[dict[str, Any]] | UnsetType, UNSET),
        ("fields", FieldsArgument, UNSET),
        ("match_fields", MatchFields, UNSET),
        ("limit", Limit, UNSET),
        ("batch_size", BatchSize, UNSET),
        ("return_ids", ReturnIds, False),
        ("on_item_error", OnItemError, "fail"),
        *_SAFETY,
        *about_deleted(model),
    ]
    flat = beside(model, own)
    names = tuple(field[0] for field in flat)
    columns = ColumnReader(model)
    reader = functools.cache(functools.partial(row_reader, model, "bulk_update"))

    async def bulk_update(call: Call, arguments: Any) -> BulkResult:
        began = time.perf_counter()
        rows = arguments.updates if isinstance(arguments.updates, list) else arguments.data
        plain = {name: v for name in names if (v := getattr(arguments, name)) is not UNSET}
        failures: list[ItemFailure] = []
        if rows is not UNSET:
            count, ids, failures = await _update_rows(
                call, model, bulk, columns, reader, rows, plain, arguments
            )
        else:
            if arguments.on_item_error != "fail":
                raise _refused(model, "on_item_error", "'on_item_error' is for a list of records")
            changes = _changes(call, model, plain, arguments)
            count, ids = await _on_matching(call, model, bulk, arguments, changes)
        return BulkResult(
            success_count=count,
            failure_count=len(failures),
            records_processed=count + len(failures),
            execution_time=time.perf_counter() - began,
            updated=count,
            failures=failures if arguments.on_item_error == "continue" else UNSET,
            ids=ids if arguments.return_ids else UNSET,
        )

    return placed(
        model,
        "bulk_update",
        "BulkUpdate",
        Effect.UPDATE,
        f"Change all {records_of(model)} that match a filter, or each of a list in its own way.",
        handler=bulk_update,
        input=arguments_of(model, "BulkUpdate", [*own, *flat]),
        output=BulkResult,
    )


def _delete(model: Model, bulk: Bulk) -> Operation:
    soft: list[Any] = [("soft_delete", SoftDeleteArgument, True)] if model.soft_delete else []
    own: list[Any] = [
        ("filter", Everything),
        ("limit", Limit, UNSET),
        ("batch_size", BatchSize, UNSET),
        ("return_ids", ReturnIds, False),
        *_SAFETY,
        *about_deleted(model),
        *soft,
    ]

    async def bulk_delete(call: Call, arguments: Any) -> BulkResult:
        began = time.perf_counter()
        count, ids = await _on_matching(call, model, bulk, arguments, None)
        return BulkResult(
            success_count=count,
            records_processed=count,
            execution_time=time.perf_counter() - began,
            deleted=count,
            ids=ids if arguments.return_ids else UNSET,
        )

    return placed(
        model,
        "bulk_delete",
        "BulkDelete",
        Effect.DELETE,
        f"Delete all {records_of(model)} that match a filter.",
        handler=bulk_delete,
        input=arguments_of(model, "BulkDelete", own),
        output=BulkResult,
    )


def _changes(call: Call, model: Model, plain: Mapping[str, Any], arguments: Any) -> tuple[Assignment, ...]:
    given = [name for name in ("update", "updates", "fields") if getattr(arguments, name) is not UNSET]
    if len(given) > 1:
        raise _refused(model, given[1], f"'{given[0]}' and '{given[1]}' say the same thing: give one")
    if arguments.match_fields is not UNSET:
        raise _refused(model, "match_fields", "'match_fields' belongs to 'data'")
    changes = parse_assignments(model, plain)
    for name in given:
        changes += parse_assignments(
            model, getattr(arguments, name), pointer(name), in_process=call.in_process
        )
    twice = [change.field for change in changes if [c.field for c in changes].count(change.field) > 1]
    if twice or not changes:
        detail = f"'{twice[0]}' is given twice" if twice else "nothing to change was given"
        raise _refused(model, given[0] if given else "update", detail)
    if arguments.filter is UNSET:
        detail = "missing argument 'filter'; {} means every record"
        problem = Problem(InvalidArguments.MISSING, pointer("filter"), detail)
        raise InvalidArguments(f"{model.route}.bulk_update", [problem])
    return changes


async def _on_matching(
    call: Call, model: Model, bulk: Bulk, arguments: Any, changes: tuple[Assignment, ...] | None
) -> tuple[int, list[Any]]:
    """Update, or without changes delete, what matches: how many records, and which where that is asked for
    or needed."""
    where = model.parse_filter(arguments.filter)
    soft = bool(getattr(arguments, "soft_delete", False))
    async with bulk.batch(call, model, deleted=counts_deleted(arguments)) as batch:
        matching = await batch.matching(where)
        await _confirm(batch, matching, arguments, "deleted" if changes is None else "changed")
        # Not every database lets a statement change a table that its condition reads.
        at_once = arguments.limit is UNSET and arguments.batch_size is UNSET and not matching.crosses
        if at_once and not arguments.return_ids:
            if changes is None:
                return await batch.delete(matching, soft=soft), []
            return await batch.update(matching, changes), []
        ids = await batch.pick(matching, None if arguments.limit is UNSET else arguments.limit)
        for chunk in chunks(ids, CHUNK if arguments.batch_size is UNSET else arguments.batch_size):
            if changes is None:
                await batch.delete_ids(chunk, soft=soft)
            else:
                await batch.update_ids(chunk, changes)
        return len(ids), ids


async def _confirm(batch: Batch, matching: Where, arguments: Any, done: str) -> None:
    if not arguments.confirmation_required or arguments.confirmed:
        return
    count = await batch.count(matching)
    if arguments.limit is not UNSET:
        count = min(count, arguments.limit)
    raise ConfirmationRequired(
        f"{count} records of {batch.model.route} would be {done}.",
        remedy="Repeat the call with confirmed=true.",
    )


async def _update_rows(
    call: Call,
    model: Model,
    bulk: Bulk,
    columns: ColumnReader,
    reader: Callable[[str], Rows],
    rows: list[dict[str, Any]],
    plain: dict[str, Any],
    arguments: Any,
) -> tuple[int, list[Any], list[ItemFailure]]:
    """Change each of the records that the rows name: how many, and where asked for their ids, in the order of
    the rows."""
    for name in ("filter", "update", "fields", "limit"):
        if getattr(arguments, name) is not UNSET:
            raise _refused(model, name, f"'{name}' cannot be given beside a list of records")
    if arguments.confirmation_required and not arguments.confirmed:
        raise ConfirmationRequired(
            f"{len(rows)} records of {model.route} would be changed.",
            remedy="Repeat the call with confirmed=true.",
        )
    argument = "updates" if isinstance(arguments.updates, list) else "data"
    read = reader(argument)
    names = match_fields(model, arguments.match_fields, "bulk_update")
    size = CHUNK if arguments.batch_size is UNSET else arguments.batch_size
    deleted = counts_deleted(arguments)
    at_once = AtOnce(model, bulk, columns, names, size, arguments.return_ids, deleted)

    def parse(index: int, row: dict[str, Any]) -> Item[_Change]:
        key = read.key(index, row, names)
        rest = {name: value for name, value in {**plain, **row}.items() if name not in names}
        changes = parse_assignments(model, rest, pointer(argument, index), in_process=call.in_process)
        if not changes:
            raise _refused(model, argument, f"the record {index} has nothing to change", index)
        return index, (key, changes)

    async def update(call: Call, items: Sequence[Item[Any]]) -> Changed:
        if isinstance(items, Many):
            if (done := await at_once.change(call, items)) is not None:
                return done
            items = [parse(place, rows[place]) for place in items.places]
        async with bulk.batch(call, model, deleted=deleted) as batch:
            found = await batch.find(names, [key for _, (key, _) in items])
            for index, (key, _) in items:
                if key not in found:
                    raise _missing(model, names, key, argument, index)
            each = [(identity, changes) for _, (key, changes) in items for identity in found[key]]
            for chunk in chunks(each, size):
                await batch.update_each(chunk)
            return Changed(len(each), {index: found[key] for index, (key, _) in items})

    work = Items(argument, update, arguments.on_item_error == "continue")
    items: Sequence[Item[Any]] | None = at_once.changes(rows, plain)
    if items is None:
        rows = read.objects(rows)
        items = list(_parsed(work, parse, rows))
    done = await work.run(call, items, rows)
    count = sum(one.count for one in done)
    if not arguments.return_ids:
        return count, [], work.failures
    ids = {place: each for one in done for place, each in one.ids.items()}
    wrong = {failure.index for failure in work.failures}
    of_rows = ([None] if index in wrong else ids[index] for index in range(len(rows)))
    return count, [identity for each in of_rows for identity in each], work.failures


def _parsed(
    work: Items[Any, Any],
    parse: Callable[[int, dict[str, Any]], Item[_Change]],
    rows: list[dict[str, Any]],
) -> Iterator[Item[_Change]]:
    """What the rows say, but for those that are wrong."""
    for index, row in enumerate(rows):
        try:
            yield parse(index, row)
        except InvalidArguments as failure:
            work.failed(index, failure, row)


def _missing(model: Model, names: Sequence[str], key: Key, argument: str, index: int) -> NotFound:
    shown = ", ".join(f"{name} {value!r}"[:60] for name, value in zip(names, key, strict=True))
    detail = f"{model.route} has no record with the {shown} ({argument} {index})."
    return NotFound(detail, problems=(Problem(NotFound.code, pointer(argument, index), detail),))


def _refused(model: Model, name: str, detail: str, *steps: int) -> InvalidArguments:
    problem = Problem(InvalidArguments.TYPE, pointer(name, *steps), detail)
    return InvalidArguments(f"{model.route}.bulk_update", [problem])
