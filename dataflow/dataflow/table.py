"""A model as a SQLAlchemy table, and its rows as records."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from dataflow.columns import Columns
from dataflow.dialects.base import Codec, Dialect
from dataflow.etags import Tags
from dataflow.fields import Kind
from dataflow.indexes import index_on
from dataflow.model import Model

_KEYS: dict[Kind, Callable[[str], Any]] = {Kind.INTEGER: int, Kind.UUID: uuid.UUID}

Change = Callable[[Any], Any]


class ModelTable:
    """What a model is in one database: columns, and how values go in and come out."""

    def __init__(self, model: Model, dialect: Dialect) -> None:
        self.model = model
        self.codecs: dict[str, Codec] = {f.name: dialect.codec(f) for f in model.fields.values()}
        self.columns = tuple(model.fields)
        self.parameters = {name: f"v_{name}" for name in self.columns}
        """What the value of a column is called in a statement that writes it."""
        metadata = sa.MetaData()
        self.table = sa.Table(
            model.table_name,
            metadata,
            *(
                sa.Column(
                    field.name,
                    dialect.column_type(field),
                    primary_key=field.name == "id",
                    autoincrement=field.name == "id" and model.generates_id,
                    nullable=field.nullable,
                )
                for field in model.fields.values()
            ),
            *self._constraints(metadata, dialect),
            **dialect.table_options(),
        )
        quote = dialect.compiler.identifier_preparer.quote
        self._names = {name: quote(name).replace(":", "\\:") for name in self.columns}
        self._called = quote(model.table_name)
        self.tags = Tags(model)
        self.records = _reader(model, list(self.codecs.values()))
        """Rows of all columns, in their order, as records."""
        self._from_log: dict[str, Change] = {
            name: codec.from_log for name, codec in self.codecs.items() if codec.from_log is not None
        }

    def record(self, row: Sequence[Any]) -> msgspec.Struct:
        """What else a statement that writes may return stands behind the columns."""
        return self.records((row[: len(self.columns)],))[0]

    def reference(self, name: str, alias: str = "") -> str:
        """A column as it is written in a condition that is text, where the table may have an alias."""
        return f"{alias or self._called}.{self._names[name]}"

    def _constraints(self, metadata: sa.MetaData, dialect: Dialect) -> list[sa.ForeignKeyConstraint]:
        """Nothing cascades: not every database would tell the change log of what a cascade does."""
        made = []
        for relation in self.model.constrained:
            target = relation.target
            if target is not self.model and target.table_name not in metadata.tables:
                key = sa.Column("id", dialect.column_type(target.fields["id"]), primary_key=True)
                sa.Table(target.table_name, metadata, key)
            made.append(
                sa.ForeignKeyConstraint(
                    [relation.field],
                    [f"{target.table_name}.id"],
                    name=index_on(self.model.table_name, (relation.field, "fk")).name,
                )
            )
        return made

    def encode(self, name: str, value: object) -> object:
        if value is None:
            return None
        encode = self.codecs[name].encode
        return value if encode is None else encode(value)

    def encoded(self, columns: Columns) -> Columns:
        each = {name: _encoded(self.codecs[name].encode, values) for name, values in columns.each.items()}
        same = {name: self.encode(name, value) for name, value in columns.same.items()}
        return Columns(columns.count, each, same)

    def logged(self, text: str | None) -> dict[str, Any] | None:
        """A record as the change log holds it."""
        if text is None:
            return None
        record: dict[str, Any] = msgspec.json.decode(text)
        for name, decode in self._from_log.items():
            if record.get(name) is not None:
                with contextlib.suppress(
                    ValueError, TypeError, ArithmeticError
                ):  # by another program; the rest of the record still counts
                    record[name] = decode(record[name])
        return record

    def key(self, text: str) -> Any:
        """The key of a record, from the text of it that the change log holds."""
        return _KEYS.get(self.model.fields["id"].kind, str)(text)


def _encoded(encode: Change | None, values: list[Any]) -> list[Any]:
    if encode is None:
        return values
    if None in values:
        return [None if value is None else encode(value) for value in values]
    return list(map(encode, values))


def _reader(model: Model, codecs: list[Codec]) -> Callable[[Iterable[Sequence[Any]]], list[msgspec.Struct]]:
    """A function from rows to records, written out column by column: half the cost of a loop over them."""
    known: dict[str, Any] = {"record": model.record}
    values: list[str] = []
    for index, (field, codec) in enumerate(zip(model.fields.values(), codecs, strict=True)):
        value = f"v{index}"
        if codec.decode is not None:
            known[f"decode{index}"] = codec.decode
            decoded = f"decode{index}({value})"
            value = f"None if {value} is None else {decoded}" if field.nullable else decoded
        values.append(value)
    # The text is made of numbers only; no name of a field is in it.
    row = "".join(f"v{index}," for index in range(len(values)))
    reader: Callable[[Iterable[Sequence[Any]]], list[msgspec.Struct]] = eval(  # noqa: S307
        f"lambda rows: [record({', '.join(values)}) for {row} in rows]", known
    )
    return reader
