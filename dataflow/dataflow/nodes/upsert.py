"""Create records that may be there already: one, or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.assignments import Assignment, parse_assignments
from dataflow.bulk import CHUNK, Batch, Bulk, Key
from dataflow.columns import ColumnReader
from dataflow.model import Model
from dataflow.nodes.at_once import AtOnce, Merged, in_their_places, only
from dataflow.nodes.bulk import (
    BatchSize,
    BulkResult,
    MatchFields,
    Resolution,
    ReturnIds,
    RowsArgument,
)
from dataflow.nodes.items import Item, Items, OnItemError
from dataflow.nodes.parts import (
    FieldsArgument,
    a_record,
    about_deleted,
    arguments_of,
    beside,
    counts_deleted,
    placed,
    records_of,
)
from dataflow.nodes.rows import Many, Rows, match_fields, new_row_reader, row_reader
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import InvalidArguments, Problem
from nexus.operation import Effect, Operation

Where = Annotated[dict[str, Any], Meta(description="The fields that say which record is meant")]
Create = Annotated[dict[str, Any] | UnsetType, Meta(description="The record to make, where there is none")]
ConflictOn = Annotated[
    list[str] | UnsetType,
    Meta(description="The fields that make it the same record; by default those of 'where'"),
]


def upsert_operations(model: Model, bulk: Bulk) -> list[Operation]:
    return [
        _upsert(model, bulk),
        _many(
            model, bulk, "bulk_create", "BulkCreate", Effect.CREATE, "error", "Create many {records} at once."
        ),
        _many(
            model,
            bulk,
            "bulk_upsert",
            "BulkUpsert",
            Effect.UPDATE,
            "update",
            "Create many {records}, or change those that are there already.",
        ),
    ]


def _upsert(model: Model, bulk: Bulk) -> Operation:
    verb = "upsert"
    result = msgspec.defstruct(
        f"{model.name}Upserted",
        [("created", bool), ("action", Literal["created", "updated"]), ("record", model.record)],
        module="dataflow.results",
    )
    partial, whole = row_reader(model, verb, "where"), new_row_reader(model, verb, "create")

    async def upsert(call: Call, arguments: Any) -> msgspec.Struct:
        names = _known_by(model, arguments)
        made = {} if arguments.create is UNSET else arguments.create
        if differs := [
            n for n in names if n in made and n in arguments.where and made[n] != arguments.where[n]
        ]:
            raise _refused(model, verb, "create", f"'{differs[0]}' in 'create' is another than in 'where'")
        known = {**{name: made[name] for name in names if name in made}, **arguments.where}
        key = partial.one_key(known, names)
        changes = (
            () if arguments.update is UNSET else parse_assignments(model, arguments.update, pointer("update"))
        )
        record = {**made, **known}
        values = None if arguments.create is UNSET else whole.one(record)
        async with bulk.batch(call, model, deleted=counts_deleted(arguments)) as batch:
            await batch.lock(names, [key])
            found = (await batch.find(names, [key])).get(key)
            if found is None:
                (identity,) = await batch.insert_any([whole.one(record) if values is None else values])
            else:
                identity = only(model, found)
                if changes:
                    await batch.update_ids([identity], changes)
            created = found is None
            return result(created, "created" if created else "updated", await batch.read(identity))

    return placed(
        model,
        verb,
        "Upsert",
        Effect.UPDATE,
        f"Change {a_record(model)}, or create it where there is none.",
        handler=upsert,
        input=arguments_of(
            model,
            "Upsert",
            [
                ("where", Where),
                ("create", Create, UNSET),
                ("update", FieldsArgument, UNSET),
                ("conflict_on", ConflictOn, UNSET),
                *about_deleted(model),
            ],
        ),
        output=result,
        asks_match=lambda arguments: arguments.update is not UNSET,
    )


def _known_by(model: Model, arguments: Any) -> tuple[str, ...]:
    if not arguments.where:
        raise _refused(model, "upsert", "where", "'where' takes the fields that say which record is meant")
    given = list(arguments.where) if arguments.conflict_on is UNSET else arguments.conflict_on
    names = match_fields(model, given, "upsert", "where" if arguments.conflict_on is UNSET else "conflict_on")
    if other := [name for name in arguments.where if name not in names]:
        detail = f"'where' has '{other[0][:80]}', and 'conflict_on' has not"
        raise _refused(model, "upsert", "where", detail)
    return names


def _many(
    model: Model, bulk: Bulk, verb: str, node: str, effect: Effect, resolution: str, summary: str
) -> Operation:
    own: list[Any] = [
        ("data", RowsArgument),
        ("conflict_resolution", Resolution, resolution),
        ("match_fields", MatchFields, UNSET),
        ("batch_size", BatchSize, UNSET),
        ("return_ids", ReturnIds, False),
        ("on_item_error", OnItemError, "fail"),
        *(about_deleted(model) if effect is Effect.UPDATE else []),
    ]
    flat = beside(model, own)
    names = tuple(field[0] for field in flat)
    partial, whole = row_reader(model, verb, "data"), new_row_reader(model, verb, "data")
    columns = ColumnReader(model)

    async def handler(call: Call, arguments: Any) -> BulkResult:
        began = time.perf_counter()
        plain = {name: v for name in names if (v := getattr(arguments, name)) is not UNSET}
        rows = arguments.data
        if plain:
            rows = [{**plain, **row} for row in whole.objects(rows)]
        size = CHUNK if arguments.batch_size is UNSET else arguments.batch_size
        deleted = counts_deleted(arguments)
        creates = arguments.conflict_resolution == "error"
        keep = arguments.conflict_resolution in ("skip", "ignore")
        keyless = arguments.match_fields is UNSET and model.generates_id
        if creates and arguments.match_fields is not UNSET:
            raise _refused(model, verb, "match_fields", "'match_fields' needs a 'conflict_resolution'")
        known_by = match_fields(model, arguments.match_fields, verb)
        at_once = AtOnce(model, bulk, columns, known_by, size, arguments.return_ids, deleted)

        async def attempt(call: Call, items: Sequence[Item[dict[str, Any]]]) -> Merged:
            if creates:
                async with bulk.batch(call, model, deleted=deleted) as batch:
                    if isinstance(items, Many):
                        return await at_once.create(batch, items)
                    ids = await batch.insert_any([values for _, values in items], size)
                return Merged([index for index, _ in items], ids, created=len(ids))
            if isinstance(items, Many):
                async with bulk.batch(call, model, deleted=deleted) as batch:
                    done = await at_once.merge(batch, items, keep=keep, keyless=keyless)
                if done is not None:
                    return done
                items = [(place, rows[place]) for place in items.places]
            merge = _collected(model, known_by, items, partial, whole, keep=keep, keyless=keyless)
            async with bulk.batch(call, model, deleted=deleted) as batch:
                return await merge.run(batch, size)

        work = Items("data", attempt, arguments.on_item_error == "continue")
        read = columns.read(rows)
        if read is not None and creates:
            read = columns.completed(read)
        items: Sequence[Item[dict[str, Any]]]
        if read is not None:
            items = Many(read)
        else:
            rows = whole.objects(rows)
            items = list(_read(work, whole, rows) if creates else enumerate(rows))
        done = await work.run(call, items, rows)
        created = sum(one.created for one in done)
        updated = sum(one.updated for one in done)
        return BulkResult(
            success_count=created + updated,
            failure_count=len(work.failures),
            records_processed=len(rows),
            execution_time=time.perf_counter() - began,
            created=created,
            updated=updated,
            skipped=sum(one.skipped for one in done),
            ids=in_their_places(len(rows), done) if arguments.return_ids else UNSET,
            failures=work.failures if work.go_on else UNSET,
        )

    return placed(
        model,
        verb,
        node,
        effect,
        summary.format(records=records_of(model)),
        handler=handler,
        input=arguments_of(model, node, [*own, *flat]),
        output=BulkResult,
        asks_match=lambda arguments: arguments.conflict_resolution in ("update", "upsert"),
    )


@dataclass(slots=True)
class _Entry:
    """All rows about one record, as one: what comes later counts."""

    key: Key | None
    row: dict[str, Any]
    places: list[int] = field(default_factory=list)


def _read(work: Items[Any, Any], whole: Rows, rows: list[dict[str, Any]]) -> Iterator[Item[dict[str, Any]]]:
    """The rows as records, but for those that are none."""
    for index, row in enumerate(rows):
        try:
            yield index, whole.values(index, row)
        except InvalidArguments as failure:
            work.failed(index, failure, row)


def _collected(
    model: Model,
    names: tuple[str, ...],
    items: Sequence[Item[dict[str, Any]]],
    partial: Rows,
    whole: Rows,
    *,
    keep: bool,
    keyless: bool,
) -> _Merge:
    entries: dict[object, _Entry] = {}
    for index, row in items:
        is_new = keyless and row.get("id", UNSET) is UNSET
        key = None if is_new else partial.key(index, row, names)
        entry = entries.setdefault(("row", index) if key is None else key, _Entry(key, {}))
        if not entry.places or not keep:
            entry.row |= row
        entry.places.append(index)
    return _Merge(model, names, keep, list(entries.values()), partial.values, whole.values)


@dataclass(slots=True)
class _Merge:
    """Rows to be created, or to change what is there."""

    model: Model
    names: tuple[str, ...]
    keep: bool
    entries: list[_Entry]
    partial: Callable[[int, Mapping[str, Any]], dict[str, Any]]
    whole: Callable[[int, Mapping[str, Any]], dict[str, Any]]

    async def run(self, batch: Batch, size: int) -> Merged:
        keys = [entry.key for entry in self.entries if entry.key is not None]
        await batch.lock(self.names, keys)
        found = await batch.find(self.names, keys)
        places: list[int] = []
        ids: list[Any] = []
        done = Merged(places, ids)
        new = [entry for entry in self.entries if entry.key is None or entry.key not in found]
        values = [self.whole(entry.places[0], entry.row) for entry in new]
        for entry, identity in zip(new, await batch.insert_any(values, size), strict=True):
            places += entry.places
            ids += [identity] * len(entry.places)
            done.created += 1
            again = len(entry.places) - 1
            done.updated += 0 if self.keep else again
            done.skipped += again if self.keep else 0
        changed: list[tuple[Any, tuple[Assignment, ...]]] = []
        for entry in self.entries:
            if entry.key is None or entry.key not in found:
                continue
            identity = only(self.model, found[entry.key])
            places += entry.places
            ids += [identity] * len(entry.places)
            changes = () if self.keep else self._changes(entry)
            if changes:
                changed.append((identity, changes))
                done.updated += len(entry.places)
            else:
                done.skipped += len(entry.places)
        for start in range(0, len(changed), size):
            await batch.update_each(changed[start : start + size])
        return done

    def _changes(self, entry: _Entry) -> tuple[Assignment, ...]:
        values = self.partial(entry.places[0], entry.row)
        return tuple(
            Assignment(name, "set", value)
            for name, value in values.items()
            if name != "id" and name not in self.names
        )


def _refused(model: Model, verb: str, name: str, detail: str) -> InvalidArguments:
    return InvalidArguments(f"{model.route}.{verb}", [Problem(InvalidArguments.TYPE, pointer(name), detail)])
