"""A small shop: one model and one workflow, on four channels.

Serve it with `nexus serve` in this folder, or with `scripts/serve` from the root of the project.
"""

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from dataflow import DataFlow
from nexus import Nexus
from nexus_workflows import WorkflowBuilder

here = Path(__file__).parent
db = DataFlow(os.environ.get("DATABASE_URL", f"sqlite:///{here / 'shop.db'}"))


@db.model
class Product:
    """Something that the shop sells."""

    name: str
    price: float
    stock: int = 0
    on_sale: bool = False


restock = WorkflowBuilder("Add what has arrived to a product's stock.")
restock.add_input("product_id", int, "Which product")
restock.add_input("quantity", Annotated[int, Meta(gt=0)], "How many have arrived")
restock.add_node(
    "ProductUpdateNode",
    "add",
    {"id": "{{product_id}}", "fields": {"stock": {"$inc": "{{quantity}}"}}},
)

app = Nexus(db, title="Shop")
app.register("restock", restock)
