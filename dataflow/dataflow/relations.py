"""How models belong together: by a field `<name>_id`, or as `__relations__` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataflow.fields import Kind
from dataflow.naming import plural, snake_case
from nexus.errors import RegistrationError, did_you_mean

if TYPE_CHECKING:
    from dataflow.model import Model

_KEY = "id"
_SUFFIX = "_id"
_NO_KEYS = (Kind.JSON, Kind.FLOAT)
_PARTS = frozenset({"model", "field", "key", "many", "reverse"})


@dataclass(frozen=True, slots=True)
class Declared:
    """One entry of `__relations__`. Empty texts stand for what follows from the names."""

    name: str
    model: str
    field: str = ""
    key: str = _KEY
    many: bool = False
    reverse: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """From one model to another: those records of `target` whose `key` is what `field` holds here; one of
    them, unless `many`."""

    name: str
    source: Model
    field: str
    target: Model
    key: str
    many: bool = False


class Relations:
    """The relations between the models of one DataFlow, resolved when they are asked for: a model may be
    declared before the one that it refers to. Models are added, and the latest of them may be taken away."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.models = models
        self._resolved: dict[str, dict[str, Relation]] = {}
        self._failures: dict[str, RegistrationError] = {}
        self._of: tuple[int, Model | None] = (0, None)

    def of(self, model: Model) -> Mapping[str, Relation]:
        """By name. Raises RegistrationError for a declared relation that cannot be."""
        found = self.settled(model)
        if model.name in self._failures:
            raise self._failures[model.name]
        return found

    def settled(self, model: Model) -> Mapping[str, Relation]:
        """The same without those that cannot be, or cannot be yet."""
        count, latest = self._of
        newest = next(reversed(self.models.values()), None)
        if count != len(self.models) or latest is not newest:
            self._resolve()
            self._of = (len(self.models), newest)
        return self._resolved[model.name]

    def _resolve(self) -> None:
        found: dict[str, dict[str, Relation]] = {name: {} for name in self.models}
        self._failures = {}
        by_name = {snake_case(name): target for name, target in self.models.items()}
        for model in self.models.values():
            for relation in self._forward(model, by_name):
                found[model.name][relation.name] = relation
        for model in self.models.values():
            for relation, reverse in list(self._reversed(found[model.name], model)):
                others = found[relation.target.name]
                if reverse not in relation.target.fields and reverse not in others:
                    others[reverse] = Relation(
                        reverse, relation.target, relation.key, model, relation.field, many=True
                    )
        self._resolved = found

    def _forward(self, model: Model, by_name: Mapping[str, Model]) -> Iterator[Relation]:
        for declared in model.declared_relations:
            try:
                yield self._declared(model, declared)
            except RegistrationError as failure:
                self._failures[model.name] = failure
        explicit = {declared.name for declared in model.declared_relations}
        used = {d.field or d.name + _SUFFIX for d in model.declared_relations if not d.many}
        for field in model.fields.values():
            name = field.name.removesuffix(_SUFFIX)
            target = by_name.get(name)
            if name == field.name or target is None or field.name in used or name in explicit:
                continue
            if field.kind is target.fields[_KEY].kind and name not in model.fields:
                yield Relation(name, model, field.name, target, _KEY)

    def _declared(self, model: Model, declared: Declared) -> Relation:
        where = f"{model.name}: the relation '{declared.name}'"
        target = self.models.get(declared.model)
        if target is None:
            raise RegistrationError(
                f"[VAL-009] {where} is to the model '{declared.model}', which is not registered here.",
                remedy=did_you_mean(declared.model, self.models),
            )
        owner = target if declared.many else model
        other = model if declared.many else target
        stem = snake_case(model.name) if declared.many else declared.name
        column = declared.field or stem + _SUFFIX
        for name, holder in ((column, owner), (declared.key, other)):
            if name not in holder.fields:
                raise RegistrationError(
                    f"[VAL-010] {where}: {holder.name} has no field '{name[:80]}'.",
                    remedy=did_you_mean(name, holder.fields),
                )
        if owner.fields[column].kind is not other.fields[declared.key].kind:
            raise RegistrationError(
                f"[VAL-010] {where}: '{column}' and '{declared.key}' are of different types."
            )
        if owner.fields[column].kind in _NO_KEYS:
            raise RegistrationError(f"[VAL-010] {where}: no record is found by a field such as '{column}'.")
        if declared.many:
            return Relation(declared.name, model, declared.key, target, column, many=True)
        return Relation(declared.name, model, column, target, declared.key)

    def _reversed(self, found: Mapping[str, Relation], model: Model) -> Iterator[tuple[Relation, str]]:
        """The relations of a model to one record, and what the other side calls them: by the plural, or
        where there are several, by the plural the one that is named as its target."""
        names = {declared.name: declared.reverse for declared in model.declared_relations}
        single = [relation for relation in found.values() if not relation.many and relation.source is model]
        for relation in single:
            rivals = sum(other.target is relation.target for other in single)
            own = rivals == 1 or relation.name == snake_case(relation.target.name)
            word = plural(snake_case(model.name))
            yield relation, names.get(relation.name) or (word if own else f"{relation.name}_{word}")


def declared_relations(owner: str, given: Any) -> tuple[Declared, ...]:
    """`{"author": "User"}`, or with `{"model": …, "field": …, "key": …, "many": …, "reverse": …}` instead of
    the model's name. Raises RegistrationError."""
    if not isinstance(given, Mapping):
        raise RegistrationError(
            f"[VAL-010] {owner}: __relations__ must be a dict.", remedy='As in {"author": "User"}.'
        )
    return tuple(_declaration(owner, str(name), value) for name, value in given.items())


def _declaration(owner: str, name: str, value: Any) -> Declared:
    where = f"[VAL-010] {owner}: the relation '{name[:80]}'"
    parts = dict(value) if isinstance(value, Mapping) else {"model": value}
    for part in parts:
        if part not in _PARTS:
            raise RegistrationError(
                f"{where} has no part '{str(part)[:80]}'.", remedy=did_you_mean(str(part), _PARTS)
            )
    model = parts.get("model")
    parts["model"] = model.__name__ if isinstance(model, type) else model
    many = parts.pop("many", False)
    if not isinstance(many, bool) or not all(isinstance(part, str) and part for part in parts.values()):
        raise RegistrationError(f"{where} needs the name of a model, and names for its parts.")
    if not name.isidentifier() or name.startswith("_"):
        raise RegistrationError(f"{where} must be named as a field is.")
    return Declared(name=name, many=many, **parts)
