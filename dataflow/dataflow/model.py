"""A model: what a class declares, as plain values."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member

import msgspec

from dataflow.comparison import filter_fields
from dataflow.fields import Field
from dataflow.indexes import Index
from dataflow.ordering import BY_ID, Order, parse_order
from dataflow.relations import Declared, Relation, Relations
from nexus.filters import EVERYTHING, Across, Fields, Filter, parse

TENANT = "tenant_id"
DELETED_AT = "deleted_at"
VERSION = "version"


@dataclass(frozen=True, eq=False)
class Model:
    """A name, a table, a route and its fields, in the order of the columns: id first, timestamps last.

    `managed` are the fields that the platform fills at each write. `generates_id` says that the database
    numbers the records.

    Records of a `multi_tenant` model belong to a tenant each, those of a `soft_delete` model are marked when
    they are deleted, those of a `versioned` model count their changes; each has an automatic field for it.
    `changes` says that what happens to the records is logged, and can be followed; `require_if_match` that
    whoever changes or deletes one from outside must say in which state it is.
    """

    name: str
    table_name: str
    route: str
    fields: Mapping[str, Field]
    generates_id: bool
    description: str = ""
    managed: frozenset[str] = frozenset()
    indexes: tuple[Index, ...] = ()
    declared_relations: tuple[Declared, ...] = ()
    foreign_keys: bool = False
    multi_tenant: bool = False
    soft_delete: bool = False
    versioned: bool = False
    changes: bool = True
    require_if_match: bool = False
    related: Relations = member(default_factory=lambda: Relations({}), repr=False)

    @functools.cached_property
    def record(self) -> type[msgspec.Struct]:
        """What reading gives: one attribute for each field."""
        fields = [(field.name, field.stored_type) for field in self.fields.values()]
        # What a record holds never refers to the record: there is no circle for the collector to look for.
        return msgspec.defstruct(self.name, fields, module="dataflow.records", gc=False)

    @property
    def shape(self) -> str:
        """The same for two models whose tables are alike."""
        fields = [(f.name, f.kind.value, f.nullable, f.length, f.choices) for f in self.fields.values()]
        return repr((self.table_name, fields, self.multi_tenant, self.soft_delete, self.versioned))

    @property
    def relations(self) -> Mapping[str, Relation]:
        """Those of all models that are registered by now. Raises RegistrationError for a declared one that
        cannot be."""
        return self.related.of(self)

    @property
    def constrained(self) -> list[Relation]:
        """The relations that the database itself is to hold to."""
        if not self.foreign_keys:
            return []
        return [one for one in self.relations.values() if not one.many and one.key == "id"]

    @property
    def has_arrays(self) -> bool:
        """Whether a database must have arrays of its own for it."""
        return any(field.elements for field in self.fields.values())

    @functools.cached_property
    def filter_fields(self) -> Fields:
        return filter_fields(self.route, self.fields, self._across)

    def parse_filter(self, given: object) -> Filter:
        return EVERYTHING if given is None else parse(given, self.filter_fields)

    def parse_order(self, order_by: object = None, sort: object = None) -> Order:
        if order_by is None and sort is None:
            return BY_ID
        return parse_order(self.route, self.fields, order_by, sort)

    def writable(self) -> list[Field]:
        """The fields that a caller may give."""
        return [field for field in self.fields.values() if not field.automatic]

    def _across(self) -> Mapping[str, Across]:
        return {
            name: Across((name,), relation.target.filter_fields, relation.many)
            for name, relation in self.relations.items()
        }
