"""Which records of a model somebody may see at all.

A filter, which the Store adds to every statement and the change log to every subscription. A record outside
of it does not exist: it is not found, never forbidden.
"""

from __future__ import annotations

from dataflow.model import DELETED_AT, TENANT, Model
from nexus.errors import Forbidden
from nexus.filters import EVERYTHING, All, Any, Filter, Inside, Not, Test
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
    parts: list[Filter] = []
    if model.multi_tenant:
        parts.append(Test(TENANT, "eq", tenant_of(session, model)))
    if model.soft_delete and not deleted and not _mentions(wanted, DELETED_AT):
        parts.append(Test(DELETED_AT, "eq", None))
    if not parts:
        return wanted
    return All((*parts, wanted)) if wanted is not EVERYTHING else All(tuple(parts))


def _mentions(tree: Filter, field: str) -> bool:
    match tree:
        case All(parts) | Any(parts):
            return any(_mentions(part, field) for part in parts)
        case Not(part):
            return _mentions(part, field)
        case Test(name, _, _) | Inside(name):
            return name == field
