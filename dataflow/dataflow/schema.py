"""How the tables of a database come to be what the models say: made, added to, never narrowed.

Pure but for `install`: from what was found and what is wanted follows which statements are missing.
"""

from __future__ import annotations

import datetime
from enum import Enum
from typing import Any

import sqlalchemy as sa

from dataflow.dialects.base import Dialect, Found
from dataflow.fields import MISSING, Field
from dataflow.indexes import Index
from dataflow.model import VERSION, Model
from dataflow.table import ModelTable
from nexus.errors import NexusError, SchemaMismatch


class SchemaMode(Enum):
    """What may be done to the tables of a database."""

    AUTO = "auto"
    """What is missing is made at the first use of a model."""
    FIXED = "fixed"
    """Nothing, until `DataFlow.install` is called on purpose."""
    EXISTING = "existing"
    """Nothing at all: no table, no column, no trigger."""


class SchemaCache:
    """The tables that are known to be there, and how often that was known already."""

    def __init__(self) -> None:
        self.tables: dict[Model, ModelTable] = {}
        self.uncaptured: set[Model] = set()
        self.hits = 0
        self.misses = 0

    def get(self, model: Model) -> ModelTable | None:
        found = self.tables.get(model)
        if found is not None:
            self.hits += 1
        return found

    def clear(self) -> None:
        """Look at every table again at its next use."""
        self.tables.clear()
        self.uncaptured.clear()

    def get_metrics(self) -> dict[str, float]:
        asked = self.hits + self.misses
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hits / asked if asked else 0.0,
            "cached_tables": len(self.tables),
        }


def parents_first(model: Model) -> list[Model]:
    """The models whose tables a model's constraints refer to, in the order in which they can be made, and
    the model itself. Raises RegistrationError for a declared relation that cannot be."""
    order: list[Model] = []
    _visit(model, order, ())
    return order


def _visit(model: Model, order: list[Model], path: tuple[Model, ...]) -> None:
    if model in path:
        names = " → ".join(passed.name for passed in (*path[path.index(model) :], model))
        raise SchemaMismatch(
            f"{names}: their foreign keys refer to each other, so that no table can be the first.",
            remedy='Leave out "foreign_keys" for one of them.',
        )
    for relation in model.constrained:
        if relation.target is not model:
            _visit(relation.target, order, (*path, model))
    if model not in order:
        order.append(model)


def all_sql(table: ModelTable, dialect: Dialect) -> list[str]:
    """All that an empty database needs for a model; running it again changes nothing."""
    indexes = [_index_sql(table, index, dialect, again=True) for index in table.model.indexes]
    return [*dialect.system_sql(), _create_sql(table, dialect), *indexes, *dialect.capture_sql(table.model)]


def missing_sql(table: ModelTable, found: Found, dialect: Dialect) -> list[str]:
    """What there is not yet of the table and its indexes. Raises SchemaMismatch for a column that cannot be
    added without a value for the records that are there."""
    model = table.model
    wanted = [_index_sql(table, index, dialect) for index in model.indexes if index.name not in found.indexes]
    if not found.columns:
        return [_create_sql(table, dialect), *wanted]
    missing = [field for name, field in model.fields.items() if name not in found.columns]
    return [*(_column_sql(table, field, dialect) for field in missing), *wanted]


async def install(table: ModelTable, dialect: Dialect, connection: Any) -> None:
    """Make what is missing, once, also when several processes begin together."""
    model = table.model
    found = await dialect.found(connection, model)
    if not missing_sql(table, found, dialect) and found.captured:
        return
    async with dialect.alone(connection, model):
        found = await dialect.found(connection, model)
        for sql in missing_sql(table, found, dialect):
            try:
                await connection.run(sql)
            except NexusError as failure:
                raise SchemaMismatch(
                    f"The table '{model.table_name}' cannot be made as the model '{model.name}' says:"
                    f" {failure.detail}",
                    remedy=f"The statement was: {sql}",
                ) from failure
        if not found.captured:
            for sql in dialect.capture_sql(model):
                await connection.run(sql)


def check_present(table: ModelTable, found: Found, dialect: Dialect, mode: SchemaMode) -> None:
    """For databases that are not to be touched. Raises SchemaMismatch naming what a model needs."""
    model = table.model
    missing = [name for name in model.fields if name not in found.columns]
    if not missing:
        return
    if not found.columns:
        detail = f"There is no table '{model.table_name}'"
    else:
        detail = f"The table '{model.table_name}' has no column {', '.join(repr(name) for name in missing)}"
    if mode is SchemaMode.EXISTING:
        raise SchemaMismatch(f"{detail}, and existing_schema_mode changes nothing.")
    shown = "; ".join(missing_sql(table, found, dialect))
    raise SchemaMismatch(f"{detail}, and auto_migrate is off.", remedy=f"Call db.install(), or run: {shown}")


def _create_sql(table: ModelTable, dialect: Dialect) -> str:
    create = sa.schema.CreateTable(table.table, if_not_exists=True)
    return str(create.compile(dialect=dialect.compiler)).strip()


def _index_sql(table: ModelTable, index: Index, dialect: Dialect, *, again: bool = False) -> str:
    columns = [table.table.c[name] for name in index.fields]
    options = dialect.index_options([table.model.fields[name] for name in index.fields])
    made = sa.Index(index.name, *columns, unique=index.unique, **options)
    try:
        create = sa.schema.CreateIndex(made, if_not_exists=again and dialect.repeats_indexes)
        return str(create.compile(dialect=dialect.compiler)).strip()
    finally:
        table.table.indexes.discard(made)


def _column_sql(table: ModelTable, field: Field, dialect: Dialect) -> str:
    """With the field's default for the records that are there already."""
    column = table.table.c[field.name]
    compiler = dialect.compiler.ddl_compiler(dialect.compiler, sa.schema.CreateTable(table.table))
    described = compiler.get_column_specification(column)
    quoted = dialect.compiler.identifier_preparer.format_table(table.table)
    default = _for_old_records(table.model, field)
    if default is not None:
        encoded = table.encode(field.name, field.check(table.model.name, default))
        described += f" DEFAULT {dialect.literal(field, encoded)}"
    return f"ALTER TABLE {quoted} ADD COLUMN {described}"


def _for_old_records(model: Model, field: Field) -> object:
    """None where it is to be NULL."""
    if field.nullable:
        return None if field.default is MISSING else field.default
    if field.name in model.managed:
        return datetime.datetime.now(datetime.UTC)
    if field.automatic and field.name == VERSION:
        return 1
    if field.default is MISSING or field.default is None:
        reason = "each record is to have its own" if field.factory else "it has no default"
        raise SchemaMismatch(
            f"The column '{field.name}' cannot be added to the table '{model.table_name}': the records that"
            f" are there would need a value, and {reason}.",
            remedy="Give it a default or make it Optional; or add the column yourself.",
        )
    return field.default
