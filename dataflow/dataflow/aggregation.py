"""Aggregations: what is asked for, read once. The database groups; what follows a group runs over the groups.

The meaning is MongoDB's, with NULL as an absent field: sums and averages leave it out, the sum of nothing is
0, its average and its extremes are null, NULL is a group of its own, and no records make no group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dataflow.comparison import comparable
from dataflow.fields import INT_MAX, Kind
from dataflow.grouped import Compare, Groups, Limit, Outputs, Project, Skip, directions
from dataflow.model import Model
from nexus.errors import InvalidFilter, did_you_mean
from nexus.filters import EVERYTHING, All, Filter

Shaped: TypeAlias = Literal["beside", "alone", "object", "none"]
Order: TypeAlias = tuple[tuple[str, bool], ...]

_ACCUMULATORS = ("$sum", "$avg", "$min", "$max", "$count")
_LATER = frozenset({"$first", "$last", "$push", "$addToSet", "$stdDevPop", "$stdDevSamp", "$top", "$median"})
_STAGES = ("$match", "$group", "$sort", "$limit", "$skip", "$project", "$count")
_STAGES_LATER = frozenset(
    {"$lookup", "$unwind", "$facet", "$bucket", "$addFields", "$set", "$unset", "$sample", "$sortByCount"}
)
_ORDERED = frozenset({("$skip", "$sort"), ("$limit", "$sort"), ("$limit", "$skip")})
_UNGROUPED = frozenset({Kind.JSON})
_NOT_ORDERED = frozenset({"json", "uuid", "bytes"})


@dataclass(frozen=True, slots=True)
class Accumulator:
    """`op` is sum, avg, min, max or count. Without a field: `value` for each record."""

    name: str
    op: str
    field: str | None
    value: int | float = 1


@dataclass(frozen=True, slots=True)
class Group:
    """`keys` are (name in the result, field). `shape` says where the keys go: beside the accumulators, alone
    as `_id`, as an object `_id`, or `_id` is null."""

    keys: tuple[tuple[str, str], ...]
    accumulators: tuple[Accumulator, ...]
    shape: Shaped


@dataclass(frozen=True, slots=True)
class Aggregation:
    """First `where`, `order`, `skip` and `limit` on the records, then `group`, then `after` on its groups."""

    where: Filter
    group: Group
    after: tuple[Groups, ...]
    order: Order = ()
    skip: int = 0
    limit: int | None = None


def from_node(
    model: Model,
    where: Filter,
    group_by: Sequence[str],
    aggregate: Mapping[str, object],
    having: object,
    order: object,
    limit: int | None,
    skip: int,
) -> Aggregation:
    """What an AggregateNode asks for. Raises InvalidFilter."""
    keys = tuple((name, _key(model, name)) for name in group_by)
    if len(set(group_by)) < len(keys):
        raise InvalidFilter(f"{model.route}: 'group_by' names a field twice.")
    accumulators = tuple(_accumulator(model, name, given) for name, given in aggregate.items())
    if taken := [a.name for a in accumulators if a.name in group_by]:
        raise InvalidFilter(f"{model.route}: '{taken[0]}' is the name of a field and of an aggregate.")
    if not keys and not accumulators:
        raise InvalidFilter(
            f"{model.route}: nothing to aggregate.", remedy='As in {"total": {"$sum": "price"}}.'
        )
    group = Group(keys, accumulators, "beside")
    after: list[Groups] = []
    if having is not None:
        after.append(_outputs(model, group).match(having))
    if order:
        after.append(_outputs(model, group).sort(order))
    if skip:
        after.append(Skip(skip))
    if limit is not None:
        after.append(Limit(limit))
    return Aggregation(where, group, tuple(after))


def from_pipeline(model: Model, where: Filter, stages: Sequence[object]) -> Aggregation:
    """What MongoDB's pipeline asks for. Raises InvalidFilter."""
    before: list[tuple[str, object]] = []
    rest = [_stage(model, stage) for stage in stages]
    while rest and rest[0][0] not in ("$group", "$count"):
        before.append(rest.pop(0))
    if not rest:
        raise InvalidFilter(
            f"{model.route}: a pipeline without '$group' or '$count' is not available yet.",
            remedy="Use filter, order_by, fields and limit.",
        )
    parts, order, skip, limit = _before(model, where, before)
    name, given = rest.pop(0)
    if name == "$count":
        group = Group((), (_counted(model, given),), "none")
        return Aggregation(parts, group, (Project(((str(given), str(given)),)),), order, skip, limit)
    group = _group(model, given)
    outputs = _outputs(model, group)
    after: list[Groups] = []
    for name, given in rest:
        match name:
            case "$match":
                after.append(outputs.match(given))
            case "$sort":
                after.append(outputs.sort(given))
            case "$limit":
                after.append(Limit(_whole(model, name, given, 1)))
            case "$skip":
                after.append(Skip(_whole(model, name, given, 0)))
            case "$project":
                after.append(project := outputs.project(given))
                outputs = outputs.after(project)
            case _:
                raise InvalidFilter(f"{model.route}: '{name}' after '$group' is not available yet.")
    return Aggregation(parts, group, tuple(after), order, skip, limit)


def _before(
    model: Model, where: Filter, stages: Iterable[tuple[str, object]]
) -> tuple[Filter, Order, int, int | None]:
    """The records that a group is made of: matched, then sorted, then skipped and limited."""
    parts: list[Filter] = [] if where is EVERYTHING else [where]
    order: Order = ()
    skip, limit = 0, None
    done = ""
    for name, given in stages:
        if name == "$project":
            raise InvalidFilter(f"{model.route}: '$project' before '$group' is not available yet.")
        if done and (name, done) not in _ORDERED:
            raise InvalidFilter(
                f"{model.route}: '{name}' between '{done}' and '$group' is not available yet."
            )
        if name == "$match":
            if not isinstance(given, Mapping):
                raise InvalidFilter(f"{model.route}: '$match' takes a filter.")
            parts.append(model.parse_filter(given))
            continue
        done = name
        if name == "$sort":
            order = model.parse_order(
                [("-" if down else "") + key for key, down in directions(model.route, given)]
            )
        elif name == "$skip":
            skip = _whole(model, name, given, 0)
        else:
            limit = _whole(model, name, given, 1)
    whole = parts[0] if len(parts) == 1 else All(tuple(parts)) if parts else EVERYTHING
    return whole, order, skip, limit


def _stage(model: Model, stage: object) -> tuple[str, object]:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise InvalidFilter(f"{model.route}: a stage is an object with one key, such as '$match'.")
    ((name, given),) = stage.items()
    if name in _STAGES_LATER:
        raise InvalidFilter(f"{model.route}: the stage '{name}' is not available yet.")
    if name not in _STAGES:
        raise InvalidFilter(f"There is no stage '{str(name)[:80]}'.", remedy=did_you_mean(str(name), _STAGES))
    return name, given


def _group(model: Model, given: object) -> Group:
    if not isinstance(given, Mapping) or "_id" not in given:
        raise InvalidFilter(f"{model.route}: '$group' needs '_id': a field, an object of fields, or null.")
    accumulators = tuple(_accumulator(model, n, v, dollar=True) for n, v in given.items() if n != "_id")
    key = given["_id"]
    if key is None:
        return Group((), accumulators, "none")
    if isinstance(key, Mapping):
        keys = tuple((_name(model, name), _key(model, _path(model, path))) for name, path in key.items())
        return Group(keys, accumulators, "object")
    return Group((("_id", _key(model, _path(model, key))),), accumulators, "alone")


def _counted(model: Model, given: object) -> Accumulator:
    if not isinstance(given, str):
        raise InvalidFilter(f"{model.route}: '$count' takes the name of the result.")
    return Accumulator(_name(model, given), "count", None)


def _accumulator(model: Model, name: str, given: object, *, dollar: bool = False) -> Accumulator:
    """`{"$sum": "price"}`; in a pipeline `{"$sum": "$price"}`. Both spellings are understood in both."""
    _name(model, name)
    if not isinstance(given, Mapping) or len(given) != 1:
        raise InvalidFilter(f'\'{name}\': an aggregate is an object such as {{"$sum": "price"}}.')
    ((op, what),) = given.items()
    if op in _LATER:
        raise InvalidFilter(f"'{name}': '{op}' is not available yet.")
    if op not in _ACCUMULATORS:
        raise InvalidFilter(
            f"'{name}': there is no aggregate '{str(op)[:80]}'.", remedy=did_you_mean(str(op), _ACCUMULATORS)
        )
    if op == "$count" and what in ("*", "", None, {}):
        return Accumulator(name, "count", None)
    if op in ("$sum", "$avg") and isinstance(what, int | float) and not isinstance(what, bool):
        if abs(what) > INT_MAX:
            raise InvalidFilter(f"'{name}': the number is too large.")
        return Accumulator(name, op[1:], None, what)
    if not isinstance(what, str):
        raise InvalidFilter(f"'{name}': '{op}' takes the name of a field.")
    field = model.fields.get(what.removeprefix("$"))
    if field is None:
        raise _no_field(model, what.removeprefix("$"))
    if op in ("$sum", "$avg") and field.kind is Kind.DECIMAL:
        raise InvalidFilter(f"'{name}': '{op}' of the decimal field '{field.name}' is not available yet.")
    if op in ("$sum", "$avg") and field.kind not in (Kind.INTEGER, Kind.FLOAT):
        raise InvalidFilter(f"'{name}': '{op}' takes a number field, and '{field.name}' is none.")
    if op in ("$min", "$max") and field.kind.value in _NOT_ORDERED:
        raise InvalidFilter(f"'{name}': '{op}' takes a field with an order, and '{field.name}' has none.")
    return Accumulator(name, op[1:], field.name)


def _name(model: Model, name: str) -> str:
    if not name or name.startswith("$") or "." in name or "\0" in name or len(name) > 100:
        raise InvalidFilter(f"{model.route}: '{name[:80]}' cannot be the name of a result.")
    return name


def _path(model: Model, path: object) -> str:
    if not isinstance(path, str) or not path.startswith("$"):
        raise InvalidFilter(
            f"{model.route}: '_id' takes fields, as in \"$name\"; expressions are not available yet."
        )
    return path[1:]


def _key(model: Model, name: str) -> str:
    field = model.fields.get(name)
    if field is None:
        raise _no_field(model, name)
    if field.kind in _UNGROUPED:
        raise InvalidFilter(f"{model.route}: grouping by the JSON field '{name}' is not available yet.")
    return name


def _no_field(model: Model, name: str) -> InvalidFilter:
    return InvalidFilter(
        f"{model.route} has no field '{name[:80]}'.", remedy=did_you_mean(name, model.fields)
    )


def _whole(model: Model, name: str, given: object, least: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= INT_MAX:
        raise InvalidFilter(f"{model.route}: '{name}' takes a whole number of at least {least}.")
    return given


def _outputs(model: Model, group: Group) -> Outputs:
    compare = {accumulator.name: _comparison(model, accumulator) for accumulator in group.accumulators}
    keys: dict[str, Compare] = {name: _as_field(model, field) for name, field in group.keys}
    match group.shape:
        case "beside" | "alone":
            return Outputs(model.route, keys | compare, {})
        case "object":
            return Outputs(model.route, {"_id": _as_number, **compare}, keys)
        case "none":
            return Outputs(model.route, {"_id": _as_number, **compare}, {})


def _comparison(model: Model, accumulator: Accumulator) -> Compare:
    if accumulator.op in ("min", "max") and accumulator.field is not None:
        return _as_field(model, accumulator.field)
    return _as_number


def _as_field(model: Model, name: str) -> Compare:
    return lambda value: comparable(model.route, model.fields[name], value)


def _as_number(value: object) -> object:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise InvalidFilter(f"A number cannot be compared with {repr(value)[:60]}.")
