"""Sums, averages, extremes and counts, by groups."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from dataflow.aggregates import Aggregates
from dataflow.aggregation import from_node, from_pipeline
from dataflow.fields import INT_MAX
from dataflow.model import Model
from dataflow.nodes.parts import (
    FilterArgument,
    OffsetArgument,
    about_deleted,
    arguments_of,
    counts_deleted,
    placed,
    records_of,
)
from nexus.arguments import pointer
from nexus.call import Call
from nexus.errors import InvalidArguments, Problem
from nexus.operation import Effect, Operation

GroupBy = Annotated[str | list[str], Meta(description="The fields to group by; none for one group of all")]
AggregateArgument = Annotated[
    dict[str, Any] | list[dict[str, Any]] | UnsetType,
    Meta(description='As in {"total": {"$sum": "price"}, "n": {"$count": "*"}}; or a pipeline of stages'),
]
Having = Annotated[dict[str, Any] | None, Meta(description="Which groups: a filter over the results' names")]
GroupOrder = Annotated[
    str | list[Any] | dict[str, Any] | None,
    Meta(description='Results to sort by, as in "-total" or [{"total": -1}]; by default the groups\' fields'),
]
GroupLimit = Annotated[int, Meta(ge=1, le=INT_MAX, description="At most this many groups")]


class AggregateResult(msgspec.Struct):
    """The groups."""

    records: list[dict[str, Any]]
    count: int


def aggregate_operations(model: Model, aggregates: Aggregates) -> list[Operation]:
    async def aggregate(call: Call, arguments: Any) -> AggregateResult:
        where = model.parse_filter(arguments.filter)
        if isinstance(arguments.aggregate, list):
            _alone(model, arguments)
            wanted = from_pipeline(model, where, arguments.aggregate)
        else:
            order = arguments.order_by if arguments.sort is None else arguments.sort
            if None not in (arguments.order_by, arguments.sort):
                raise _refused(model, "sort", "'order_by' and 'sort' say the same thing: give one")
            by = arguments.group_by
            wanted = from_node(
                model,
                where,
                [name.strip() for name in by.split(",")] if isinstance(by, str) else by,
                {} if arguments.aggregate is UNSET else arguments.aggregate,
                arguments.having,
                order,
                None if arguments.limit is UNSET else arguments.limit,
                arguments.offset,
            )
        records = await aggregates.run(call, model, wanted, deleted=counts_deleted(arguments))
        return AggregateResult(records, len(records))

    return [
        placed(
            model,
            "aggregate",
            "Aggregate",
            Effect.READ,
            f"Sums, averages, extremes and counts of {records_of(model)}, by groups.",
            handler=aggregate,
            input=arguments_of(
                model,
                "Aggregate",
                [
                    ("filter", FilterArgument, None),
                    ("group_by", GroupBy, msgspec.field(default_factory=list)),
                    ("aggregate", AggregateArgument, UNSET),
                    ("having", Having, None),
                    ("order_by", GroupOrder, None),
                    ("sort", GroupOrder, None),
                    ("limit", GroupLimit | UnsetType, UNSET),
                    ("offset", OffsetArgument, 0),
                    *about_deleted(model),
                ],
            ),
            output=AggregateResult,
        )
    ]


def _alone(model: Model, arguments: Any) -> None:
    """A pipeline says everything but the filter itself."""
    given = {
        "group_by": arguments.group_by,
        "having": arguments.having,
        "order_by": arguments.order_by,
        "sort": arguments.sort,
        "limit": None if arguments.limit is UNSET else arguments.limit,
        "offset": arguments.offset,
    }
    for name, value in given.items():
        if value:
            raise _refused(model, name, f"'{name}' belongs into the pipeline, as a stage")


def _refused(model: Model, name: str, detail: str) -> InvalidArguments:
    problem = Problem(InvalidArguments.TYPE, pointer(name), detail)
    return InvalidArguments(f"{model.route}.aggregate", [problem])
