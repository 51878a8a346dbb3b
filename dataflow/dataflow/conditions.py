"""From a filter to a condition, on behalf of a call: there is no other way."""

from __future__ import annotations

from dataflow.database import Database
from dataflow.model import Model
from dataflow.query import Where
from dataflow.scope import reached, visible
from nexus.call import Call
from nexus.filters import EVERYTHING, Filter


async def condition(
    call: Call, database: Database, model: Model, wanted: Filter = EVERYTHING, *, deleted: bool = False
) -> Where:
    """The condition that finds those of the wanted records that exist for the caller; `deleted`: softly
    deleted ones exist, too. The tables that it needs are there from then on. Raises Forbidden when the filter
    looks at records of another model, which the caller may not list."""
    table = await database.table(model)
    others = set(reached(model, wanted))
    for other in others:
        may_list(call, other)
    tables = {other: await database.table(other) for other in others}
    tree = visible(call.session, model, wanted, deleted=deleted)
    return Where(tree, table, database.dialect, tables)


def may_list(call: Call, model: Model) -> None:
    """Raises Forbidden."""
    runtime = call.runtime
    runtime.policy.check(call.session, runtime.registry[f"{model.route}.list"])
