"""Related records beside the records that lead to them: one statement for each relation, however many records
there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from dataflow.bulk import chunks
from dataflow.conditions import may_list
from dataflow.model import Model
from dataflow.relations import Relation
from dataflow.store import Store
from nexus.call import Call
from nexus.errors import InvalidFilter, TooLarge, did_you_mean
from nexus.filters import Test
from nexus.ports import Terms

Row: TypeAlias = dict[str, Any]

MOST_RECORDS = 10_000
_DEEPEST = 8
_KEYS = 1000
_ONE_STATE = Terms("repeatable_read", read_only=True)


@dataclass(frozen=True, slots=True)
class Include:
    """A relation whose records are wanted, and what is wanted beside each of those."""

    relation: Relation
    inner: dict[str, Include] = field(default_factory=dict)


def parse_include(model: Model, given: str | Sequence[str] | None) -> dict[str, Include]:
    """`"customer,items.product"` or a list of such paths. Raises InvalidFilter for what is no relation."""
    wanted: dict[str, Include] = {}
    names = given.split(",") if isinstance(given, str) else given or ()
    for path in dict.fromkeys(name.strip() for name in names):
        steps = path.split(".")
        if len(steps) > _DEEPEST:
            raise InvalidFilter(f"'{path[:80]}…': at most {_DEEPEST} relations in a row can be included.")
        at, level = model, wanted
        for step in steps:
            if step not in level:
                level[step] = Include(_relation(at, step))
            at, level = level[step].relation.target, level[step].inner
    return wanted


def _relation(model: Model, name: str) -> Relation:
    relations = model.relations
    if name not in relations:
        known = f"It has {', '.join(relations)}." if relations else "It has none."
        raise InvalidFilter(
            f"{model.route} has no relation '{name[:80]}' to include.",
            remedy=did_you_mean(name[:80], relations) or known,
        )
    return relations[name]


@asynccontextmanager
async def one_state(
    call: Call, store: Store, model: Model, wanted: Mapping[str, Include]
) -> AsyncIterator[Call]:
    """Where related records are wanted, the call in which all reading sees one state of the database, so that
    what belongs together is together. Raises Forbidden for records that the caller may not list."""
    for other in _models(wanted):
        may_list(call, other)
    if not wanted or call.atomic:
        yield call
        return
    await store.prepare([model, *_models(wanted)])
    part = await call.inside(_ONE_STATE)
    try:
        yield part
    except BaseException:
        await part.rollback()
        raise
    await part.commit()


async def including(
    call: Call, store: Store, records: Iterable[Row], wanted: Mapping[str, Include], *, deleted: bool
) -> None:
    """Put related records into `records`, under the names of their relations: a record or None, or a list in
    the order of the ids. Raises TooLarge for more than can be held."""
    rows = list(records)
    for name, include in wanted.items():
        relation = include.relation
        found = await _related(call, store, relation, [row[relation.field] for row in rows], deleted=deleted)
        await including(
            call, store, (row for group in found.values() for row in group), include.inner, deleted=deleted
        )
        for row in rows:
            group = found.get(row[relation.field], [])
            row[name] = list(group) if relation.many else next(iter(group), None)


async def _related(
    call: Call, store: Store, relation: Relation, keys: Iterable[Any], *, deleted: bool
) -> dict[Any, list[Row]]:
    """The related records by the value that they are found by."""
    target, total = relation.target, 0
    found: dict[Any, list[Row]] = {}
    for chunk in chunks(list(dict.fromkeys(key for key in keys if key is not None)), _KEYS):
        among = Test(relation.key, "in", tuple(chunk))
        order = target.parse_order()
        records = await store.list(call, target, among, order, MOST_RECORDS + 1 - total, 0, deleted=deleted)
        total += len(records)
        if total > MOST_RECORDS:
            raise TooLarge(
                f"'{relation.name}' would include more than {MOST_RECORDS} records.",
                remedy=f"List fewer records at a time, or list {target.route} by themselves.",
            )
        for record in records:
            row = msgspec.structs.asdict(record)
            found.setdefault(row[relation.key], []).append(row)
    return found


def _models(wanted: Mapping[str, Include]) -> list[Model]:
    return [
        model for include in wanted.values() for model in (include.relation.target, *_models(include.inner))
    ]
