"""List: a query, in pages; whole records, some of their fields, or groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.aggregates import Aggregates
from dataflow.aggregation import from_pipeline
from dataflow.includes import including, one_state, parse_include
from dataflow.model import Model
from dataflow.nodes.parts import (
    CursorArgument,
    FilterArgument,
    IncludeArgument,
    LimitArgument,
    OffsetArgument,
    OrderArgument,
    SortArgument,
    about_deleted,
    arguments_of,
    counts_deleted,
    placed,
    records_of,
)
from dataflow.ordering import after_cursor, cursor_after
from dataflow.store import Store
from nexus.call import Call
from nexus.errors import InvalidFilter, did_you_mean
from nexus.filters import All, Filter
from nexus.operation import Effect, Operation
from nexus.schema import json_schema

_PAGE = 100
_STREAMS = dict.fromkeys(
    ("streaming", "batch_size"),
    "is for the node of a workflow that hands on page after page; elsewhere read pages with 'cursor' and"
    " 'limit', or over HTTP all records as NDJSON or CSV, by 'Accept'",
)

ProjectionArgument = Annotated[
    str | list[str] | None, Meta(description="Only these fields of each record, as in name,price")
]
CountArgument = Annotated[
    bool | Literal["none", "exact", "estimated"],
    Meta(description="Answer with 'total', too: how many records match, exactly (true) or by estimate"),
]
PipelineArgument = Annotated[
    list[dict[str, Any]] | None,
    Meta(description='Groups instead of records, as in [{"$group": {"_id": "$name", "n": {"$sum": 1}}}]'),
]


def list_operations(model: Model, store: Store, aggregates: Aggregates) -> list[Operation]:
    async def list_(call: Call, arguments: Any) -> msgspec.Struct:
        where = model.parse_filter(arguments.filter)
        deleted = counts_deleted(arguments)
        if arguments.aggregate is not None:
            _check_alone(model, arguments)
            wanted = from_pipeline(model, where, arguments.aggregate)
            groups = await aggregates.run(call, model, wanted, deleted=deleted)
            return result(groups, len(groups))
        fields = _projection(model, arguments.fields)
        if arguments.include is None:
            page = await _page(call, model, store, where, arguments)
            records = _projected(page.records, fields)
        else:
            included = parse_include(model, arguments.include)
            async with one_state(call, store, model, included) as reading:
                page = await _page(reading, model, store, where, arguments)
                whole = [msgspec.structs.asdict(record) for record in page.records]
                await including(reading, store, whole, included, deleted=deleted)
            names = [*(fields or model.fields), *included]
            records = [{name: row[name] for name in names} for row in whole]
        return result(records, len(records), page.limit, page.offset, page.next, page.total, page.estimated)

    parts: list[Any] = [
        ("records", _records(model)),
        ("count", int),
        ("limit", int | UnsetType, UNSET),
        ("offset", int | UnsetType, UNSET),
        ("next", str | None | UnsetType, UNSET),
        ("total", int | UnsetType, UNSET),
        ("estimated", bool | UnsetType, UNSET),
    ]
    result = msgspec.defstruct(f"{model.name}Page", parts, module="dataflow.results")
    struct = arguments_of(
        model,
        "List",
        [
            ("filter", FilterArgument, None),
            ("order_by", OrderArgument, None),
            ("sort", SortArgument, None),
            ("fields", ProjectionArgument, None),
            ("include", IncludeArgument, None),
            ("limit", LimitArgument | UnsetType, UNSET),
            ("offset", OffsetArgument, 0),
            ("cursor", CursorArgument, None),
            ("count", CountArgument, False),
            ("aggregate", PipelineArgument, None),
            *about_deleted(model),
        ],
    )
    return [
        placed(
            model,
            "list",
            "List",
            Effect.READ,
            f"List {records_of(model)}: those that match a filter, sorted, in pages.",
            handler=list_,
            input=struct,
            output=result,
            refused=_STREAMS,
        )
    ]


@dataclass(frozen=True, slots=True)
class _Page:
    """`next` is the cursor of the page after this one, None on the last. `estimated` says of a total for
    which an estimate would do whether it is one."""

    records: list[msgspec.Struct]
    limit: int
    offset: int | UnsetType
    next: str | UnsetType | None
    total: int | UnsetType
    estimated: bool | UnsetType


async def _page(call: Call, model: Model, store: Store, where: Filter, arguments: Any) -> _Page:
    order = model.parse_order(arguments.order_by, arguments.sort)
    limit = _PAGE if arguments.limit is UNSET else arguments.limit
    offset, deleted = arguments.offset, counts_deleted(arguments)
    if arguments.cursor is not None and offset:
        raise InvalidFilter("'offset' and 'cursor' are two ways to say where a page begins.")
    after = where
    if arguments.cursor:
        after = All((where, after_cursor(arguments.cursor, model.route, model.fields, order, where)))
    total: int | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET
    if arguments.count not in (False, "none"):
        total, estimated = await _total(call, model, store, where, arguments)
    if arguments.cursor is None:
        records = await store.list(call, model, where, order, limit, offset, deleted=deleted)
        return _Page(records, limit, offset, UNSET, total, estimated)
    records = await store.list(call, model, after, order, limit + 1, 0, deleted=deleted)
    more, records = len(records) > limit, records[:limit]
    following = cursor_after(records[-1], order, where) if more else None
    return _Page(records, limit, UNSET, following, total, estimated)


async def _total(
    call: Call, model: Model, store: Store, where: Filter, arguments: Any
) -> tuple[int, bool | UnsetType]:
    """How many records match, and whether that is an estimate; exact where the database has none."""
    deleted = counts_deleted(arguments)
    if arguments.count != "estimated":
        return await store.count(call, model, where, deleted=deleted), UNSET
    about = await store.estimate(call, model, where, deleted=deleted)
    if about is not None:
        return about, True
    return await store.count(call, model, where, deleted=deleted), False


def _records(model: Model) -> Any:
    """Whole records, unless fields or groups were asked for."""
    whole = json_schema(model.record)
    items = {"type": "object"} if "$defs" in whole else {"anyOf": [whole, {"type": "object"}]}
    return Annotated[list[Any], Meta(extra_json_schema={"items": items})]


def _projection(model: Model, given: str | list[str] | None) -> list[str] | None:
    if given is None:
        return None
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    for name in names:
        if name not in model.fields:
            raise InvalidFilter(
                f"{model.route} has no field '{name[:80]}' to read.", remedy=did_you_mean(name, model.fields)
            )
    if not names:
        raise InvalidFilter(f"{model.route}: 'fields' names no field.")
    return names


def _projected(records: list[msgspec.Struct], fields: list[str] | None) -> list[Any]:
    if fields is None:
        return records
    return [{name: getattr(record, name) for name in fields} for record in records]


def _check_alone(model: Model, arguments: Any) -> None:
    """A pipeline says everything but the filter itself."""
    for name in ("order_by", "sort", "fields", "include", "limit", "offset", "cursor", "count"):
        value = getattr(arguments, name)
        if value is not UNSET and value not in (None, 0, False, "none"):
            raise InvalidFilter(f"{model.route}: '{name}' belongs into 'aggregate', as a stage.")
