"""Everything that a model offers."""

from __future__ import annotations

from dataflow.aggregates import Aggregates
from dataflow.bulk import Bulk
from dataflow.model import Model
from dataflow.nodes.aggregate import aggregate_operations
from dataflow.nodes.bulk import bulk_operations
from dataflow.nodes.crud import crud_operations
from dataflow.nodes.listing import list_operations
from dataflow.nodes.upsert import upsert_operations
from dataflow.store import Store
from nexus.operation import Operation


def model_operations(model: Model, store: Store, bulk: Bulk, aggregates: Aggregates) -> list[Operation]:
    return [
        *crud_operations(model, store, bulk),
        *list_operations(model, store, aggregates),
        *upsert_operations(model, bulk),
        *bulk_operations(model, bulk),
        *aggregate_operations(model, aggregates),
    ]
