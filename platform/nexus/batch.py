"""Several operations as one: all of them are kept, in one transaction, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from nexus.arguments import pointer
from nexus.call import Call
from nexus.demands import Demands, check_demands, check_matched
from nexus.errors import InvalidInput, NexusError, Problem, Retryable
from nexus.operation import Effect, Operation
from nexus.policy import ANYONE

BATCH = "batch"
MOST = 100


class OneOfBatch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An operation by any of its names, and its arguments."""

    operation: Annotated[str, msgspec.Meta(description="By any of its names, as in products.create")]
    arguments: Annotated[dict[str, Any], msgspec.Meta(description="What it is given")] = {}
    if_match: Annotated[
        str | None, msgspec.Meta(description="Only if the record is still in the state with this tag")
    ] = None


class Batch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    operations: Annotated[
        list[OneOfBatch],
        msgspec.Meta(min_length=1, max_length=MOST, description="What is done, in this order"),
    ]


class BatchResult(msgspec.Struct, kw_only=True):
    """`run_id` is the `run` of all the changes that it made."""

    run_id: str
    results: list[Any]


def batch_operation() -> Operation:
    """Whoever may use the operations in it may use it: each is checked as if it came alone."""
    return Operation(
        BATCH,
        _batch,
        Batch,
        BatchResult,
        Effect.RUN,
        "Do several operations one after the other, in one transaction: all of them, or none.",
        permission=ANYONE,
        platform=True,
    )


async def _batch(call: Call, given: Batch) -> BatchResult:
    """Raises InvalidInput, before anything is done, for an operation that cannot be undone together with
    others. What an operation raises says which one it was."""
    found = []
    for index, one in enumerate(given.operations):
        with _placed(index, "operation"):
            found.append(_found(call, one.operation))
            check_demands(found[-1], Demands(if_match=one.if_match), None)
    results = []
    for index, (operation, one) in enumerate(zip(found, given.operations, strict=True)):
        with _placed(index, "arguments"):
            results.append(await _run(call, operation, one))
            _check_one_resource(call)
    return BatchResult(run_id=call.run_id or "", results=results)


async def _run(call: Call, operation: Operation, one: OneOfBatch) -> Any:
    demands = Demands(if_match=one.if_match)
    if operation.asks_match is not None and not call.in_process:
        check_matched(operation, operation.arguments.accept(one.arguments), demands)
    call.match = demands.match
    try:
        return await call.run(operation, one.arguments)
    finally:
        call.match = None


def _found(call: Call, name: str) -> Operation:
    operation = call.runtime.registry.outside(name)
    if operation.platform and operation.name == BATCH:
        raise InvalidInput("A batch cannot be a part of another.", remedy="Put its operations in its place.")
    if operation.effect is not Effect.READ and not operation.undoable:
        raise InvalidInput(
            f"'{operation.name}' cannot be a part of a batch: not all that it does can be rolled back.",
            remedy="Run it by itself.",
        )
    call.runtime.policy.check(call.session, operation)
    return operation


def _check_one_resource(call: Call) -> None:
    """Two databases commit one after the other, and the second may fail."""
    if len(call.written) > 1:
        raise InvalidInput(
            "The operations of a batch write to more than one database: they cannot be kept together.",
            remedy="Make a batch for each database.",
        )


@contextmanager
def _placed(index: int, part: str) -> Iterator[None]:
    """A failure with the place of its operation."""
    try:
        yield
    except Retryable:
        raise
    except NexusError as failure:
        at = pointer("operations", index)
        failure.problems = tuple(
            dataclasses.replace(problem, pointer=f"{at}/{part}{problem.pointer}")
            for problem in failure.problems
        ) or (Problem(failure.code, f"{at}/operation" if part == "operation" else at, failure.detail),)
        raise
