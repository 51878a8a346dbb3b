"""Which other models a read looks at, as far as its arguments tell: a workflow that writes them must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dataflow.includes import Include, parse_include
from dataflow.model import Model
from nexus.errors import NexusError


class _Unknown(Exception):
    """Only a run can tell."""


def also_reads(model: Model, arguments: Mapping[str, Any]) -> frozenset[str] | None:
    """The names of the models that a read with these arguments looks at besides its own, through relations;
    None where values that come later decide it. What makes no sense looks at nothing."""
    try:
        included = _included(model, arguments.get("include"))
        filters = (arguments.get(name) for name in ("filter", "conditions"))
        return frozenset([*included, *(name for given in filters for name in _filtered(model, given))])
    except _Unknown:
        return None


def _included(model: Model, given: object) -> Iterator[str]:
    names = [given] if isinstance(given, str) else given
    if names is None:
        return
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise _Unknown
    try:
        yield from _models(parse_include(model, ",".join(names)))
    except NexusError:
        return


def _models(wanted: Mapping[str, Include]) -> Iterator[str]:
    for include in wanted.values():
        yield include.relation.target.name
        yield from _models(include.inner)


def _filtered(model: Model, given: object) -> Iterator[str]:
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise _Unknown
    for name, value in given.items():
        if str(name).startswith("$"):
            for part in value if isinstance(value, (list, tuple)) else [value]:
                yield from _filtered(model, part)
        else:
            yield from _named(model, str(name), value)


def _named(model: Model, name: str, value: object) -> Iterator[str]:
    first, dot, rest = name.partition(".")
    relation = model.relations.get(first)
    if relation is None:
        return
    yield relation.target.name
    if dot:
        yield from _named(relation.target, rest, value)
    elif isinstance(value, Mapping) and all(str(key).startswith("$") for key in value):
        for part in value.values():
            if not isinstance(part, bool):
                yield from _filtered(relation.target, part)
    else:
        yield from _filtered(relation.target, value)
