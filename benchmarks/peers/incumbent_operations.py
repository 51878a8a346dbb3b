"""The same operations with kailash-dataflow: workflows of one node, run by its asynchronous runtime.

    PYTHON-OF-ITS-OWN benchmarks/peers/incumbent_operations.py URL

Reads lines such as `get 100` and answers with µs each.
"""

import asyncio
import itertools
import json
import logging
import os
import sys
import time

logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the libraries print goes elsewhere

from dataflow import DataFlow
from kailash.runtime import AsyncLocalRuntime
from kailash.workflow.builder import WorkflowBuilder

db = DataFlow(sys.argv[1], auto_migrate=True, pool_size=10, max_overflow=20)
numbers = itertools.count(1)


@db.model
class BenchmarkIncumbent:
    name: str
    price: float = 0.0
    stock: int = 0
    active: bool = True
    note: str = ""


def parameters(verb: str) -> dict:
    return {
        "get": {"id": 1},
        "list": {"limit": 20, "order_by": ["id"]},
        "create": {"name": f"new {next(numbers)}", "price": 1.5, "stock": 2},
        "update": {"filter": {"id": 1}, "fields": {"stock": next(numbers)}},
    }[verb]


NODES = {"get": "Read", "list": "List", "create": "Create", "update": "Update"}


async def main() -> None:
    runtime = AsyncLocalRuntime()

    async def run(verb: str) -> dict:
        workflow = WorkflowBuilder()
        workflow.add_node(f"BenchmarkIncumbent{NODES[verb]}Node", "run", parameters(verb))
        found = await runtime.execute_workflow_async(workflow.build(), inputs={})
        return (found["results"] if "results" in found else found[0])["run"]

    for _ in range(30):
        await run("create")
    if (await run("get"))["id"] != 1 or len((await run("list"))["records"]) != 20:
        raise SystemExit("it answers wrongly")
    while line := await asyncio.to_thread(sys.stdin.readline):
        verb, _, times = line.strip().partition(" ")
        if verb == "ready":
            print(json.dumps("ready"), file=answers, flush=True)
            continue
        begun, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(times)):
            await run(verb)
        taken, used = time.perf_counter() - begun, time.process_time() - cpu
        each = {"µs": taken / int(times) * 1e6, "µs CPU": used / int(times) * 1e6}
        print(json.dumps(each), file=answers, flush=True)


asyncio.run(main())
