"""SQL of one's own: parameters are always bound, and it is a part of the call that it runs in."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from dataflow.database import Database
from dataflow.dialects import Dialect
from dataflow.fields import Field, Kind
from dataflow.schema import SchemaMode
from nexus.call import Call
from nexus.errors import InvalidInput, did_you_mean

_BEFORE = re.compile(r"(?:\s+|--[^\n]*\n?|/\*.*?\*/|\()*", re.S)
_WORD = re.compile(r"[A-Za-z]+")
_VERBS = frozenset(
    {"SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "EXPLAIN", "SHOW", "TABLE"}
)
_KINDS: dict[type, Kind] = {
    bool: Kind.BOOLEAN,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    str: Kind.TEXT,
    bytes: Kind.BYTES,
    datetime.datetime: Kind.DATETIME,
    datetime.date: Kind.DATE,
    datetime.time: Kind.TIME,
    Decimal: Kind.DECIMAL,
    uuid.UUID: Kind.UUID,
    dict: Kind.JSON,
}


async def query(
    call: Call, database: Database, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run one statement in the transaction of `call`; the rows that it gives, by the names of their columns.

    `:name` in it stands for a value of `parameters`, on every database; a list is written as `IN :names`, and
    `\\:` is a colon. It sees whatever the database holds: neither tenants nor deletions restrict it. Raises
    InvalidInput for another kind of statement, as COMMIT or CREATE, and for parameters that do not fit;
    WriteInRead in an operation that is declared as reading."""
    _check(sql)
    if call.demands.max_affected is not None:
        raise InvalidInput(
            "How many records a statement of one's own writes is not known.",
            remedy="Run it without a limit to the records that are written.",
        )
    text, values = _bound(sql, {} if parameters is None else parameters, database.dialect)
    if database.mode is SchemaMode.AUTO:
        for model in database.changes.models():
            await database.table(model)
    async with call.connection(database, write=True, statements="many") as connection:
        rows: list[dict[str, Any]] = await connection.query(text, values)
    return rows


def _check(sql: str) -> None:
    if not isinstance(sql, str):
        raise InvalidInput(f"A statement is a text, not {type(sql).__name__}.")
    start = _BEFORE.match(sql)
    word = _WORD.match(sql, start.end() if start else 0)
    if word is None or word[0].upper() not in _VERBS:
        shown = word[0][:40].upper() if word else "nothing"
        raise InvalidInput(
            f"A statement of one's own reads or writes records; this one begins with {shown}.",
            remedy="Transactions are those of the call, and tables are made by models.",
        )


def _bound(sql: str, given: Mapping[str, Any], dialect: Dialect) -> tuple[str, list[Any]]:
    if not isinstance(given, Mapping):
        raise InvalidInput(
            f"The parameters of a statement are a dict, not {type(given).__name__}.",
            remedy='Write :name in the statement, and give {"name": value}.',
        )
    clause = sa.text(sql)
    wanted = set(clause._bindparams)
    if missing := sorted(wanted - given.keys()):
        raise InvalidInput(
            f"The statement has ':{missing[0][:60]}', for which there is no value.",
            remedy="Give it; or write \\: for a colon that means no parameter.",
        )
    if unknown := sorted(given.keys() - wanted):
        name = str(unknown[0])[:60]
        raise InvalidInput(f"The statement has no ':{name}'.", remedy=did_you_mean(name, wanted))
    binds = [_bind(name, value, dialect) for name, value in given.items()]
    compiled = clause.bindparams(*binds).compile(
        dialect=dialect.compiler, compile_kwargs={"render_postcompile": True}
    )
    names = getattr(compiled, "positiontup", None) or ()
    return str(compiled), [compiled.params[name] for name in names]


def _bind(name: str, value: object, dialect: Dialect) -> sa.BindParameter[Any]:
    kind = sa.types.NullType()  # of any other the dialect would write a cast
    if not isinstance(value, (list, tuple, set, frozenset)):
        return sa.bindparam(name, _encoded(name, value, dialect), type_=kind)
    if not value:
        raise InvalidInput(
            f"The list ':{name}' is empty, and there is no SQL for that.", remedy="Ask before."
        )
    return sa.bindparam(name, [_encoded(name, each, dialect) for each in value], kind, expanding=True)


def _encoded(name: str, value: object, dialect: Dialect) -> object:
    """A value as a field of its type would keep it."""
    if value is None:
        return None
    kind = _KINDS.get(type(value))
    if kind is None:
        raise InvalidInput(f"The parameter ':{name}' cannot be a {type(value).__name__}.")
    field = Field(name, kind, type(value))
    encode = dialect.codec(field).encode
    checked = field.check("a statement", value)
    return checked if encode is None else encode(checked)
