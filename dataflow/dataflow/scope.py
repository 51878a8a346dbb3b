"""Which records of a model somebody may see at all.

A filter, which the Store adds to every statement and the change log to every subscription. A record outside
of it does not exist: it is not found, never forbidden; a filter that looks through a relation does not find
it either.
"""

from __future__ import annotations

from collections.abc import Iterator

from dataflow.model import DELETED_AT, TENANT, Model
from nexus.errors import Forbidden
from nexus.filters import EVERYTHING, All, Any, Filter, Inside, Not, Related, Test, relations_in
from nexus.session import CHOSEN_TENANT, Session


def tenant_of(session: Session, model: Model) -> str:
    """The tenant on whose behalf a session uses a multi-tenant model. Raises Forbidden when there is none,
    or when trusted code has chosen another than the session's."""
    chosen = CHOSEN_TENANT.get()
    if session.tenant is None and chosen is None:
        raise Forbidden(
            f"'{model.route}' belongs to tenants, and this session has none.",
            remedy="In a program, choose one: with db.tenant('…'):",
        )
    if None not in (session.tenant, chosen) and session.tenant != chosen:
        raise Forbidden(f"The session belongs to another tenant than '{chosen}'.")
    return session.tenant or chosen or ""


def visible(session: Session, model: Model, wanted: Filter = EVERYTHING, *, deleted: bool = False) -> Filter:
    """Of the records that are wanted, those that exist for a session. Soft-deleted ones do when `deleted`
    says so, or when the filter itself speaks of their deletion."""
    if wanted is EVERYTHING:
        if not (model.multi_tenant or model.soft_delete):
            return EVERYTHING
    elif next(relations_in(wanted), None) is not None:
        wanted = _narrowed(session, model, wanted, deleted)
    parts: list[Filter] = []
    if model.multi_tenant:
        parts.append(Test(TENANT, "eq", tenant_of(session, model)))
    if model.soft_delete and not deleted and not _mentions(wanted, DELETED_AT):
        parts.append(Test(DELETED_AT, "eq", None))
    if not parts:
        return wanted
    return All((*parts, wanted)) if wanted is not EVERYTHING else All(tuple(parts))


def reached(model: Model, wanted: Filter) -> Iterator[Model]:
    """The other models whose records a filter looks at."""
    for through in relations_in(wanted):
        target = model.relations[through.relation].target
        yield target
        yield from reached(target, through.part)


def _narrowed(session: Session, model: Model, tree: Filter, deleted: bool) -> Filter:
    """The same, where of other models, too, only those records count that exist for the session."""
    match tree:
        case All(parts) if parts:
            return All(tuple([_narrowed(session, model, part, deleted) for part in parts]))
        case Any(parts):
            return Any(tuple([_narrowed(session, model, part, deleted) for part in parts]))
        case Not(part):
            return Not(_narrowed(session, model, part, deleted))
        case Related(relation, part):
            target = model.relations[relation].target
            return Related(relation, visible(session, target, part, deleted=deleted))
    return tree


def _mentions(tree: Filter, field: str) -> bool:
    match tree:
        case All(parts) | Any(parts):
            return any(_mentions(part, field) for part in parts)
        case Not(part):
            return _mentions(part, field)
        case Test(name, _, _) | Inside(name):
            return name == field
        case Related():
            return False
