"""kailash-dataflow and kailash-nexus, as their documentation shows it: a workflow of one node each.

    PYTHON-OF-ITS-OWN benchmarks/peers/incumbent_items.py PORT URL

Without durability: with it, a request that looks like an earlier one is answered from a cache, and a second
record with the same fields is not made.
"""

import logging
import sys

logging.disable(logging.WARNING)

from dataflow import DataFlow
from kailash.workflow.builder import WorkflowBuilder
from nexus import Nexus

port, url = int(sys.argv[1]), sys.argv[2]
db = DataFlow(url, auto_migrate=True, pool_size=10, max_overflow=20)


@db.model
class BenchmarkIncumbent:
    name: str
    price: float = 0.0
    stock: int = 0
    active: bool = True
    note: str = ""


app = Nexus(api_port=port, mcp_port=port + 1, rate_limit=None, enable_durability=False, auto_discovery=False)
for name, node, parameters in (
    ("get", "Read", {"id": 1}),
    ("list", "List", {"limit": 20}),
    ("create", "Create", {"name": "x"}),
    ("update", "Update", {"filter": {"id": 1}, "fields": {"stock": 0}}),
):
    workflow = WorkflowBuilder()
    workflow.add_node(f"BenchmarkIncumbent{node}Node", "run", parameters)
    app.register(name, workflow.build())

if __name__ == "__main__":
    app.start()
