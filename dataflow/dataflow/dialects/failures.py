"""Failures that several databases report, told alike."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dataflow.model import TENANT
from nexus.errors import Conflict, SchemaMismatch

_COLUMN = re.compile(r"""\bcolumn(?: named)?:? ["'`]?(?:[\w-]+\.)*(\w+)""", re.I)
_TABLE = re.compile(r"""\b(?:table|relation):? ["'`]?(?:[\w-]+\.)*(\w+)""", re.I)


def duplicate(fields: Iterable[str]) -> Conflict:
    """What is unique is so for each tenant: that goes without saying."""
    names = [field.strip() for field in fields]
    said = [name for name in names if name != TENANT] or names
    return Conflict(f"There is another record with the same {', '.join(said) or 'key'}.")


def gone(message: str) -> SchemaMismatch:
    """A table or a column that is not there, whose name the database's message has."""
    found = _COLUMN.search(message) or _TABLE.search(message)
    name = f" '{found[1][:80]}'" if found else ""
    return SchemaMismatch(
        f"The database has no table or column{name}.",
        remedy="Another program may have removed it; db.install() makes what the models need.",
    )
