"""Filters: parsed once into a small tree, which runs here as a predicate over records and in `dataflow` as
SQL. The grammar and its meaning are MongoDB's, where a NULL is an absent field; docs/filters.md describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any as Object

from nexus.errors import InvalidFilter, did_you_mean
from nexus.filters.relations import MOST_RELATIONS, Across, Beyond, joined
from nexus.filters.targets import ELEMENT, MOST_STEPS, Column, Target, place, shown
from nexus.filters.tree import (
    EVERYTHING,
    NOTHING,
    All,
    Any,
    Filter,
    Not,
)
from nexus.patterns.match import Pattern, like

Convert = Callable[[str, object], Object]

# How deep a filter may go, in weights: a parser that reads SQL with a stack of 100 places must read it too.
_DEEPEST = 60
_WEIGHTS = {"$not": 1, "$and": 3, "$or": 3, "$nor": 4}
_SIDE_BY_SIDE = 3
_ACROSS = 12
_MOST_TESTS = 2000
_LOGIC = frozenset(_WEIGHTS)
_OF_RELATIONS = frozenset({"$not", "$exists", "$null", "$any", "$elemMatch"})


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that a filter may name, and how a value given for one becomes a value to compare with.
    `convert` raises InvalidFilter for a value that the field cannot hold. `texts` are those that hold any
    text, `json` those into which a filter can look. `relations` gives those to other records."""

    owner: str
    names: frozenset[str]
    convert: Convert
    texts: frozenset[str] = frozenset()
    json: frozenset[str] = frozenset()
    relations: Callable[[], Mapping[str, Across]] = dict

    def target(self, name: str) -> Target | Across:
        """What a name in a filter means. Raises InvalidFilter."""
        base, _, path = name.partition(".")
        if base not in self.names:
            return self._beyond(base, path, name)
        if base in self.json:
            if name.endswith("."):
                raise InvalidFilter(f"'{name[:80]}': a path does not end with a dot.")
            return place(base, path)
        if path or name != base:
            raise InvalidFilter(f"'{name[:80]}': '{base}' holds no JSON, and nothing can be looked up in it.")
        return Column(base, self.convert, base in self.texts)

    def _beyond(self, base: str, path: str, name: str) -> Target | Across:
        relations = self.relations()
        if base not in relations:
            raise InvalidFilter(
                f"{self.owner} has no field '{base[:80]}'.",
                remedy=did_you_mean(base[:80], [*self.names, *relations]),
            )
        if name == base:
            return relations[base]
        if path.count(".") > MOST_STEPS + MOST_RELATIONS:
            raise InvalidFilter(f"'{name[:80]}…': the path has too many steps.")
        return joined(relations[base], relations[base].fields.target(path))


def parse(given: object, fields: Fields) -> Filter:
    """The tree of a filter document; raises InvalidFilter naming the field, the operator or the value."""
    return EVERYTHING if given is None else _Grammar(fields.target).document(given, 0)


def _member(name: str) -> Target:
    """What a name means in the filter of an element: a member of it."""
    if not name or name.endswith("."):
        raise InvalidFilter(f"'{name[:80]}' is no path.")
    return place("", name)


class _Grammar:
    """`resolve` says what a name that is no operator means. `tests` counts, `within` is how many relations
    lead to the records that the filter is about."""

    def __init__(self, resolve: Callable[[str], Target | Across], tests: int = 0, within: int = 0) -> None:
        self._resolve = resolve
        self._tests = tests
        self._within = within

    def document(self, given: object, depth: int) -> Filter:
        _check_depth(depth)
        if not isinstance(given, Mapping):
            raise InvalidFilter(
                f"A filter must be an object, not {shown(given)}.", remedy='As in {"name": "x"}.'
            )
        parts: list[Filter] = []
        depth += _SIDE_BY_SIDE if len(given) > 1 else 0
        for name, value in given.items():
            if not isinstance(name, str):
                raise InvalidFilter(f"The names in a filter are texts, not {shown(name)}.")
            if name in _LOGIC:
                parts.append(self._logic(name, value, depth + _WEIGHTS[name]))
            elif name.startswith("$"):
                raise _unknown_operator(name, _LOGIC if name not in _OPERATORS else frozenset())
            elif isinstance(target := self._resolve(name), Across):
                parts.append(self._related(target, value, depth))
            else:
                weight = _ACROSS * len(target.across.relations) if isinstance(target, Beyond) else 0
                parts.append(self._field(target, value, depth + weight))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _logic(self, name: str, value: object, depth: int) -> Filter:
        if name == "$not":
            return Not(self.document(value, depth))
        if not isinstance(value, (list, tuple)) or not value:
            raise InvalidFilter(f"'{name}' takes a non-empty list of filters, not {shown(value)}.")
        parts = tuple([self.document(part, depth) for part in value])
        if name == "$and":
            return All(parts)
        return Any(parts) if name == "$or" else Not(Any(parts))

    def _field(self, target: Target, value: object, depth: int) -> Filter:
        if isinstance(value, Mapping) and value:
            operators = sum(str(key).startswith("$") for key in value)
            if operators == len(value):
                return self._operators(target, value, depth)
            if operators:
                raise InvalidFilter(f"'{target.shown}': operators and names cannot stand side by side.")
        self._count()
        return _equal(target, value)

    def _operators(self, target: Target, given: Mapping[str, object], depth: int) -> Filter:
        depth += _SIDE_BY_SIDE if len(given) > 1 else 0
        _check_depth(depth)
        parts = []
        for op, operand in given.items():
            self._count()
            if op == "$regex":
                parts.append(target.pattern("regex", _pattern(target, operand, given.get("$options", ""))))
            elif op == "$options":
                if "$regex" not in given:
                    raise InvalidFilter(f"'{target.shown}': '$options' belongs to a '$regex'.")
            elif op == "$not":
                parts.append(Not(self._field(target, operand, depth + 1)))
            elif op in ("$elemMatch", "$any"):
                parts.append(target.element(op[1:], self._element(target, op, operand, depth + 1)))
            elif (meaning := _OPERATORS.get(op)) is not None:
                parts.append(meaning(target, op, operand))
            else:
                raise _unknown_operator(op, frozenset(_OPERATORS), field=target.shown)
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _related(self, across: Across, value: object, depth: int) -> Filter:
        """A filter of the related records, or whether there are any, and whether not."""
        self._count()
        if value is None:
            return Not(across.some())
        if not isinstance(value, Mapping):
            raise InvalidFilter(
                f"'{across.shown[:80]}' is a relation and takes a filter of its records, not {shown(value)}.",
                remedy=f'As in {{"{across.shown[:80]}": {{"id": …}}}}.',
            )
        depth += _SIDE_BY_SIDE if len(value) > 1 else 0
        parts = [self._related_by(across, str(op), value[op], depth) for op in value if op in _OF_RELATIONS]
        others = {name: part for name, part in value.items() if name not in _OF_RELATIONS}
        if others or not parts:
            parts.append(across.some(self._document_of(across, others, depth)))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _related_by(self, across: Across, op: str, operand: object, depth: int) -> Filter:
        if op == "$not":
            return Not(self._related(across, operand, depth + 1))
        if op in ("$exists", "$null"):
            if not isinstance(operand, bool):
                raise InvalidFilter(f"'{across.shown}': '{op}' takes true or false, not {shown(operand)}.")
            return across.some() if operand is (op == "$exists") else Not(across.some())
        if not across.many:
            raise InvalidFilter(
                f"'{across.shown}': '{op}' works on many, and this relation leads to one record.",
                remedy="Leave it out.",
            )
        return across.some(self._document_of(across, operand, depth))

    def _document_of(self, across: Across, given: object, depth: int) -> Filter:
        within = self._within + len(across.relations)
        if within > MOST_RELATIONS:
            raise InvalidFilter(f"A filter looks through at most {MOST_RELATIONS} relations in a row.")
        inner = _Grammar(across.fields.target, self._tests, within)
        done = inner.document(given, depth + _ACROSS * len(across.relations))
        self._tests = inner._tests
        return done

    def _element(self, target: Target, op: str, operand: object, depth: int) -> Filter:
        _check_depth(depth)
        if not isinstance(operand, Mapping) or not operand:
            if op == "$any" and not isinstance(operand, Mapping):
                return _equal(ELEMENT, operand)
            raise InvalidFilter(
                f"'{target.shown}': '{op}' takes tests for an element, not {shown(operand)}.",
                remedy=f'As in {{"{op}": {{"$gte": 90}}}} or {{"{op}": {{"name": "x"}}}}.',
            )
        inner = _Grammar(_member, self._tests)
        alone = all(str(key) in _OPERATORS for key in operand) and not (_LOGIC - {"$not"}) & set(operand)
        done = inner._operators(ELEMENT, operand, depth) if alone else inner.document(operand, depth)
        self._tests = inner._tests
        return done

    def _count(self) -> None:
        self._tests += 1
        if self._tests > _MOST_TESTS:
            raise InvalidFilter(
                f"The filter has more than {_MOST_TESTS} tests.", remedy="Use '$in' for many values."
            )


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidFilter(
            "The filter is nested too deeply.",
            remedy="Alternatives and conditions within each other go 15 to 20 levels deep.",
        )


def _equal(target: Target, value: object) -> Filter:
    return target.null() if value is None else target.equal(value)


def _comparison(target: Target, op: str, operand: object) -> Filter:
    if op == "$eq":
        return _equal(target, operand)
    if op == "$ne":
        return Not(_equal(target, operand))
    if operand is None:  # MongoDB: null is only ever as large as null.
        return target.null() if op in ("$gte", "$lte") else NOTHING
    return target.ordered(op[1:], operand)


def _membership(target: Target, op: str, operand: object) -> Filter:
    test = target.one_of(_list_of(target, op, operand))
    return Not(test) if op == "$nin" else test


def _presence(target: Target, op: str, operand: object) -> Filter:
    if not isinstance(operand, bool):
        raise InvalidFilter(f"'{target.shown}': '{op}' takes true or false, not {shown(operand)}.")
    absent = target.null()
    if operand is (op == "$null"):
        return absent
    return absent.part if isinstance(absent, Not) else Not(absent)


def _between(target: Target, op: str, operand: object) -> Filter:
    bounds = _list_of(target, op, operand)
    if len(bounds) != 2 or None in bounds:
        raise InvalidFilter(f"'{target.shown}': '$between' takes two values, a lower and an upper one.")
    return All((target.ordered("gte", bounds[0]), target.ordered("lte", bounds[1])))


def _ends(target: Target, op: str, operand: object) -> Filter:
    return target.text(op[1:], _text(target, op, operand))


def _like(target: Target, op: str, operand: object) -> Filter:
    pattern = like(_text(target, op, operand), "i" if op == "$ilike" else "")
    return target.pattern(op[1:], _checked(target, pattern))


def _pattern(target: Target, source: object, options: object) -> Pattern:
    pattern = Pattern(_text(target, "$regex", source), _text(target, "$options", options))
    return _checked(target, pattern)


def _checked(target: Target, pattern: Pattern) -> Pattern:
    try:
        pattern.check()
    except InvalidFilter as failure:
        raise InvalidFilter(f"'{target.shown}': {failure.detail}", remedy=failure.remedy) from None
    return pattern


def _contains(target: Target, op: str, operand: object) -> Filter:
    if operand is None:
        raise InvalidFilter(f"'{target.shown}': '{op}' takes a value, not null.")
    return target.contains(operand)


def _overlap(target: Target, op: str, operand: object) -> Filter:
    return target.element("overlap", ELEMENT.one_of(_list_of(target, op, operand)))


def _size(target: Target, op: str, operand: object) -> Filter:
    if not isinstance(operand, int) or isinstance(operand, bool) or not 0 <= operand < 2**31:
        raise InvalidFilter(f"'{target.shown}': '{op}' takes a number of elements, not {shown(operand)}.")
    return target.size(operand)


def _by_grammar(target: Target, op: str, operand: object) -> Filter:
    raise AssertionError(op)  # these hold filters, or belong to another operator


_OPERATORS: dict[str, Callable[[Target, str, object], Filter]] = {
    **dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), _comparison),
    **dict.fromkeys(("$in", "$nin"), _membership),
    **dict.fromkeys(("$exists", "$null"), _presence),
    **dict.fromkeys(("$startswith", "$endswith"), _ends),
    **dict.fromkeys(("$like", "$ilike"), _like),
    **dict.fromkeys(("$regex", "$options", "$not", "$elemMatch", "$any"), _by_grammar),
    "$between": _between,
    "$contains": _contains,
    "$overlap": _overlap,
    "$size": _size,
}


def _text(target: Target, op: str, operand: object) -> str:
    if not isinstance(operand, str):
        raise InvalidFilter(f"'{target.shown}': '{op}' takes a text, not {shown(operand)}.")
    return operand


def _list_of(target: Target, op: str, operand: object) -> list[object]:
    if not isinstance(operand, (list, tuple)):
        raise InvalidFilter(f"'{target.shown}': '{op}' takes a list, not {shown(operand)}.")
    return list(operand)


def _unknown_operator(op: str, known: frozenset[str], field: str = "") -> InvalidFilter:
    where = f"'{field}': " if field else ""
    if not known:
        return InvalidFilter(f"'{op}' belongs to a field.", remedy=f'As in {{"name": {{"{op}": …}}}}.')
    if field and op in _LOGIC:
        return InvalidFilter(
            f"{where}'{op}' stands beside fields, not below one.",
            remedy=f'As in {{"{op}": [{{"{field}": …}}, …]}}.',
        )
    return InvalidFilter(f"{where}There is no operator '{op[:80]}'.", remedy=did_you_mean(op[:80], known))
