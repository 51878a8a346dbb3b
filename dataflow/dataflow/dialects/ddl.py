"""What the installation of a table has in common on every database."""

from __future__ import annotations

import sqlalchemy as sa

from dataflow.model import Model
from nexus.errors import RegistrationError


def create_table(table: sa.Table, compiler: sa.engine.Dialect) -> str:
    return str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=compiler)).strip()


def check_columns(model: Model, present: set[str]) -> None:
    """Raises RegistrationError when an existing table lacks columns that the model has."""
    missing = [name for name in model.fields if name not in present]
    if missing:
        raise RegistrationError(
            f"The table '{model.table_name}' exists and has no column {', '.join(missing)}.",
            remedy="Changing existing tables is not available yet: add the columns yourself.",
        )
