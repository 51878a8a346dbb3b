"""Rows that are alike, written all at once: as columns, with no look at each of them.

Each of these does nothing and gives None where there is more to be said of the rows: then the other way, one
row after the other, says it. What is written, and what the answer is, is the same on both ways.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow.bulk import Batch, Bulk
from dataflow.columns import ColumnReader, Columns
from dataflow.fields import Kind
from dataflow.model import Model
from dataflow.nodes.items import is_its_own
from dataflow.nodes.rows import Many
from nexus.call import Call
from nexus.errors import Conflict, NexusError


@dataclass(slots=True)
class Merged:
    """What became of the rows at these `places`; `ids` stand in the same order, where they are asked for."""

    places: Sequence[int]
    ids: Sequence[Any]
    created: int = 0
    updated: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Changed:
    """How many records were changed, and where asked for which, by the places of the rows."""

    count: int
    ids: dict[int, list[Any]]


@dataclass(frozen=True, slots=True)
class AtOnce:
    """`names` are the fields by which records are known; `ids` says that they are asked for, `size` is for
    statements, `deleted` says that soft-deleted records count."""

    model: Model
    bulk: Bulk
    reader: ColumnReader
    names: tuple[str, ...]
    size: int
    ids: bool
    deleted: bool = False

    def changes(self, rows: Sequence[Mapping[str, Any]], plain: Mapping[str, Any]) -> Many | None:
        """Rows that say how records are to be changed, by plain values only. What is `plain` counts for all
        that do not name it."""
        if plain and set(map(type, rows)) == {dict}:
            rows = [{**plain, **row} for row in rows] if plain.keys().isdisjoint(self.names) else []
        columns = self.reader.read(rows)
        if columns is None or not self._known(columns) or not self._changed(columns):
            return None
        if "id" in columns.each and "id" not in self.names:
            return None
        if any(_has_operators(self.model, name, columns.each[name]) for name in self._changed(columns)):
            return None
        return Many(columns)

    async def change(self, call: Call, rows: Many) -> Changed | None:
        columns = rows.columns
        if self.names == ("id",) and await self._change_unseen(call, columns):
            keys = columns.each["id"] if self.ids else ()
            return Changed(
                columns.count, {place: [key] for place, key in zip(rows.places, keys, strict=False)}
            )
        async with self.bulk.batch(call, self.model, deleted=self.deleted) as batch:
            keys = columns.rows(self.names)
            found = await batch.find(self.names, keys)
            if any(key not in found for key in keys):
                return None
            each = [found[key] for key in keys]
            places = [place for place, ids in enumerate(each) for _ in ids]
            await self._change(batch, columns, places, [identity for ids in each for identity in ids])
            return Changed(len(places), dict(zip(rows.places, each, strict=True)) if self.ids else {})

    async def create(self, batch: Batch, rows: Many) -> Merged:
        made = await batch.insert(rows.columns, self.size, ids=self.ids)
        return Merged(rows.places, made, created=rows.columns.count)

    async def merge(self, batch: Batch, rows: Many, *, keep: bool, keyless: bool) -> Merged | None:
        """Create records, or unless they are to be kept change those that are there already. `keyless` rows
        need not say which they are: those that do not make a record each."""
        columns = rows.columns
        whole = self.reader.completed(columns)
        if keyless and "id" not in columns.each:
            return None if whole is None else await self.create(batch, Many(whole, rows.places.start))
        if not self._known(columns):
            return None
        changed = () if keep else self._changed(columns)
        alone = self.names == ("id",) and batch.by_id
        if whole is not None and alone and batch.sets_at_once(columns.only({"id", *changed})):
            return await self._merge_by_id(batch, rows, whole, changed)
        keys = columns.rows(self.names)
        if len(set(keys)) < columns.count:
            return None
        await batch.lock(self.names, keys)
        found = await batch.find(self.names, keys)
        new = [place for place, key in enumerate(keys) if key not in found]
        if new and whole is None:
            return None
        old = [place for place, key in enumerate(keys) if key in found]
        made = await batch.insert(whole.at(new), self.size, ids=self.ids) if whole is not None and new else []
        known = [only(self.model, found[keys[place]]) for place in old]
        if changed and old:
            await self._change(batch, columns, old, known)
        return _merged([rows.places[place] for place in (*new, *old)], [*made, *known], len(new), changed)

    async def _merge_by_id(
        self, batch: Batch, rows: Many, whole: Columns, changed: tuple[str, ...]
    ) -> Merged:
        keys = rows.columns.each["id"]
        await batch.lock(self.names, ((key,) for key in keys))
        created = await batch.upsert(whole, changed, self.size)
        return _merged(rows.places, keys, created, changed)

    async def _change_unseen(self, call: Call, columns: Columns) -> bool:
        """Change records by their ids without looking for them first. False where not all are there, or
        something else is in the way: then nothing is done."""
        part = await call.inside()
        try:
            async with self.bulk.batch(part, self.model, deleted=self.deleted) as batch:
                done = batch.by_id and batch.sets_at_once(columns)
                done = done and await batch.change_at_once(columns, self.size) == columns.count
        except BaseException as failure:
            await part.rollback()
            if isinstance(failure, NexusError) and is_its_own(failure):
                return False
            raise
        await (part.commit() if done else part.rollback())
        return done

    async def _change(self, batch: Batch, columns: Columns, places: list[int], ids: list[Any]) -> None:
        values = columns.only(self._changed(columns)).at(places)
        await batch.change(Columns(len(ids), {"id": ids, **values.each}, values.same), self.size)

    def _known(self, columns: Columns) -> bool:
        return all(name in columns.each and None not in columns.each[name] for name in self.names)

    def _changed(self, columns: Columns) -> tuple[str, ...]:
        return tuple(name for name in columns.names if name != "id" and name not in self.names)


def only(model: Model, found: Sequence[Any]) -> Any:
    """Raises Conflict for more than one."""
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} records of {model.route} match, and it must be one.",
            remedy="Match by fields that are unique, or use bulk_update.",
        )
    return found[0]


def _merged(places: Sequence[int], ids: Sequence[Any], created: int, changed: Collection[str]) -> Merged:
    others = len(places) - created
    return Merged(places, ids, created, others if changed else 0, 0 if changed else others)


def in_their_places(count: int, done: Iterable[Merged]) -> list[Any]:
    """The ids of all rows; None for those that were not kept."""
    ids: list[Any] = [None] * count
    for one in done:
        if isinstance(one.places, range):
            ids[one.places.start : one.places.stop] = one.ids
        else:
            for place, identity in zip(one.places, one.ids, strict=True):
                ids[place] = identity
    return ids


def _has_operators(model: Model, name: str, values: Sequence[Any]) -> bool:
    """Whether a value is not to be stored as it is: an object may be one, or say what to do."""
    if model.fields[name].kind is not Kind.JSON:
        return False
    return any(
        isinstance(value, Mapping) and any(str(key).startswith("$") for key in value) for value in values
    )
