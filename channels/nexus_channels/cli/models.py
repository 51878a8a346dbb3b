"""The models of an application, as its attached contributors describe them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from nexus import Nexus
from nexus.errors import InvalidInput, did_you_mean
from nexus.ports import DescribedField, DescribedModel, Modelled
from nexus_channels.cli.options import type_name
from nexus_channels.cli.output import show, write
from nexus_channels.cli.program import State


def show_models(state: State) -> None:
    """Write them: as JSON with their fields inside, as a table with a row for each field."""
    found = [model for source in _sources(state) for model in source.models.values()]
    if state.output == "table" or (state.output is None and sys.stdout.isatty()):
        rows = [
            {"model": model.name, "table": model.table_name, **_field(field)}
            for model in found
            for field in model.fields.values()
        ]
        show(rows, state)
    else:
        show([_model(model) for model in found], state)


def print_sql(state: State, wanted: Iterable[str]) -> None:
    """Write the statements, each ended by a semicolon. Raises InvalidInput for a model that there is not."""
    sources = _sources(state)
    if not wanted:
        statements = [statement for source in sources for statement in source.install_sql()]
    else:
        named = {name: (source, model.name) for source in sources for name, model in _names(source)}
        statements = []
        for name in wanted:
            if name not in named:
                raise InvalidInput(f"There is no model '{name}'.", remedy=did_you_mean(name, named))
            source, model_name = named[name]
            statements += source.install_sql(model_name)
    # Two models of one database begin with the same statements: those of its change log.
    for statement in dict.fromkeys(statements):
        write(statement.strip().rstrip(";").encode() + b";\n\n")


def install_models(state: State) -> None:
    """Make the tables of all models, and write their names."""
    show({"installed": asyncio.run(_install(state.application(), _sources(state)))}, state)


async def _install(application: Nexus, sources: list[Modelled]) -> list[str]:
    async with application.running():
        return [table for source in sources for table in await source.install()]


def _sources(state: State) -> list[Modelled]:
    return [source for source in state.application().contributors if isinstance(source, Modelled)]


def _names(source: Modelled) -> list[tuple[str, DescribedModel]]:
    tables = [(model.table_name, model) for model in source.models.values()]
    return [*tables, *((model.name, model) for model in source.models.values())]


def _model(model: DescribedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "table": model.table_name,
        "route": model.route,
        "fields": [_field(field) for field in model.fields.values()],
    }


def _field(field: DescribedField) -> dict[str, Any]:
    stored = field.stored_type
    described: dict[str, Any] = {
        "field": field.name,
        "type": type_name(stored).lower(),
        "null": _nullable(stored),
        "required": field.required,
        "automatic": field.automatic,
    }
    if field.default is not msgspec.NODEFAULT:
        described["default"] = field.default() if callable(field.default) else field.default
    return described


def _nullable(wanted: Any) -> bool:
    try:
        msgspec.convert(None, wanted)
    except msgspec.ValidationError:
        return False
    return True
