"""What can be said about a declaration that works: VAL-codes, as warnings or as errors.

VAL-002 no field `id` (only in strict mode: an automatic one is what most models want)
VAL-003 what looks like the primary key is not named `id`
VAL-004 a timestamp that the platform manages is declared
VAL-005 a type that no column can have (always an error)
VAL-006 a field with a reserved name
VAL-007 a name that is not in the usual case
VAL-008 models that require each other, so that neither can have a first record
VAL-009 a relation to a model that is not registered (else an error when it is used)
VAL-010 a relation whose parts do not fit (always an error)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from dataflow.naming import snake_case
from dataflow.warnings import ModelWarning, warn_caller
from nexus.errors import RegistrationError

if TYPE_CHECKING:
    from dataflow.model import Model

_RESERVED = frozenset({"type"})  # and the words of Python's grammar, which are always refused
_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
_KEYS = ("pk", "key", "uuid", "guid", "primary_key")


class Mode(Enum):
    """What becomes of a finding: nothing, a warning, or an error."""

    SKIP = "skip"
    WARN = "warn"
    STRICT = "strict"


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    detail: str
    remedy: str
    strict_only: bool = False


class ModelValidationError(RegistrationError):
    """A declaration that strict mode refuses. `findings` are all there are."""

    def __init__(self, model: str, findings: list[Finding]) -> None:
        shown = "; ".join(f"[{finding.code}] {finding.detail}" for finding in findings)
        super().__init__(f"{model}: {shown}.", remedy=findings[0].remedy)
        self.findings = tuple(findings)


def validate(model: Model, declared: frozenset[str], known: Mapping[str, Model], mode: Mode) -> None:
    """Judge a model, whose class declares the fields `declared`, among the `known` ones.

    Raises ModelValidationError in strict mode; warns of what was probably not meant otherwise."""
    if mode is Mode.SKIP:
        return
    findings = [*_keys(model, declared), *_names(model, declared), *_targets(model, known)]
    if mode is Mode.STRICT:
        if findings:
            raise ModelValidationError(model.name, findings)
        return
    for finding in findings:
        if not finding.strict_only:
            warn_caller(f"{finding.code}: {model.name}: {finding.detail}. {finding.remedy}", ModelWarning)


def validate_cycle(model: Model, mode: Mode) -> None:
    """The same for what shows only among all models: a model that, over fields which must be given, leads
    back to itself."""
    if mode is Mode.SKIP:
        return
    path = _cycle(model, (model.name,))
    if not path:
        return
    finding = Finding(
        "VAL-008",
        f"{' → '.join(path)}: each needs a record of the next before it can have one",
        "Make one of the relations optional.",
    )
    if mode is Mode.STRICT:
        raise ModelValidationError(model.name, [finding])
    warn_caller(f"{finding.code}: {model.name}: {finding.detail}. {finding.remedy}", ModelWarning)


def _keys(model: Model, declared: frozenset[str]) -> Iterator[Finding]:
    if "id" in declared:
        return
    names = (*_KEYS, f"{snake_case(model.name)}_id")
    looks_like = [name for name in names if name in declared and not model.fields[name].nullable]
    if looks_like:
        yield Finding(
            "VAL-003",
            f"the primary key is 'id', and '{looks_like[0]}' is a field like others",
            "Rename it to 'id' if it is to be the key.",
        )
    yield Finding("VAL-002", "primary key 'id' is required", "Add a field 'id'.", strict_only=True)


def _names(model: Model, declared: frozenset[str]) -> Iterator[Finding]:
    if not _PASCAL.fullmatch(model.name):
        yield Finding("VAL-007", f"'{model.name}' is not in PascalCase", "Rename the class.")
    for name in sorted(declared):
        if name in model.managed:
            yield Finding(
                "VAL-004", f"'{name}' is filled by the platform; it need not be declared", "Remove it."
            )
        elif name in _RESERVED:
            yield Finding("VAL-006", f"'{name}' is a word of Python's own", "Choose another name.")
        elif not _SNAKE.fullmatch(name):
            yield Finding("VAL-007", f"'{name}' is not in snake_case", f"As in '{snake_case(name)}'.")


def _targets(model: Model, known: Mapping[str, Model]) -> Iterator[Finding]:
    for relation in model.declared_relations:
        if relation.model not in known and relation.model != model.name:
            yield Finding(
                "VAL-009",
                f"the relation '{relation.name}' is to '{relation.model}', which is not registered",
                "Register it first.",
                strict_only=True,
            )


def _cycle(model: Model, path: tuple[str, ...]) -> tuple[str, ...]:
    for relation in model.related.settled(model).values():
        required = not relation.many and relation.source.fields[relation.field].required
        if required and relation.target.name == path[0]:
            return (*path, path[0])
        if required and relation.target.name not in path:
            found = _cycle(relation.target, (*path, relation.target.name))
            if found:
                return found
    return ()
