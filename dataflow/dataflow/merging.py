"""Patches that are merged into what a JSON field holds (RFC 7396).

They are merged in Python, into what was read under a lock: so they mean the same on every database, and what
comes of them is checked as anything that is written is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from dataflow.assignments import Assignment
from dataflow.model import Model
from nexus.arguments import pointer
from nexus.errors import InvalidArguments, Problem

Changes: TypeAlias = tuple[Assignment, ...]


def merges(changes: Iterable[Assignment]) -> bool:
    return any(change.op == "merge" for change in changes)


def merged_fields(changes: Iterable[Assignment]) -> tuple[str, ...]:
    return tuple(change.field for change in changes if change.op == "merge")


def merge_patch(target: Any, patch: Any) -> Any:
    """The algorithm of the RFC; the target stays as it is."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def settled(model: Model, stored: Mapping[str, Any], changes: Changes) -> Changes:
    """The changes with the values that patches come to. Raises InvalidArguments for one that the field cannot
    hold."""
    return tuple(
        Assignment(change.field, "set", _held(model, change.field, stored[change.field], change.value))
        if change.op == "merge"
        else change
        for change in changes
    )


def apart(changed: Sequence[tuple[Any, Changes]]) -> Iterator[list[tuple[Any, Changes]]]:
    """Runs of changes in which each record is changed once: a second patch is merged into what the first has
    made."""
    run: list[tuple[Any, Changes]] = []
    seen: set[Any] = set()
    for key, changes in changed:
        if key in seen:
            yield run
            run, seen = [], set()
        run.append((key, changes))
        seen.add(key)
    if run:
        yield run


def _held(model: Model, name: str, stored: Any, patch: Any) -> Any:
    field = model.fields[name]
    merged = merge_patch(stored, patch)
    try:
        return field.check(model.route, msgspec.convert(merged, field.given_type))
    except msgspec.ValidationError as failure:
        message = str(failure).replace("`", "")
        detail = f"'{name}', merged: {message[0].lower()}{message[1:]}"
    except InvalidArguments as failure:
        detail = f"{failure.problems[0].detail}, merged into what is stored"
    raise InvalidArguments(
        f"{model.route}.update", [Problem(InvalidArguments.TYPE, pointer(name), detail)]
    ) from None
