"""Workflows of the incumbent that do nothing, run by its asynchronous runtime.

    PYTHON-OF-ITS-OWN benchmarks/peers/incumbent_workflows.py

Reads lines such as `chain 1` and answers with µs of CPU for each of 100 nodes.
"""

import asyncio
import json
import logging
import os
import sys
import time

logging.disable(logging.CRITICAL)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the libraries print goes elsewhere

from kailash.runtime import AsyncLocalRuntime
from kailash.workflow.builder import WorkflowBuilder

NODES = 100


def made(name: str):
    workflow = WorkflowBuilder()
    for number in range(NODES):
        workflow.add_node("PythonCodeNode", f"n{number}", {"code": "result = {'a': 1}"})
        if number and name != "fan":
            workflow.add_connection(f"n{number - 1}", "result", f"n{number}", "input")
    return workflow.build()


async def main() -> None:
    runtime = AsyncLocalRuntime()
    workflows = {name: made(name) for name in ("chain", "fan", "code")}
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, _, times = line.strip().partition(" ")
        if name == "ready":
            print(json.dumps("ready"), file=answers, flush=True)
            continue
        begun = time.process_time()
        for _ in range(int(times)):
            found = await runtime.execute_workflow_async(workflows[name], inputs={})
        results = found["results"] if "results" in found else found[0]
        if len(results) != NODES:
            answer = {"error": f"it ran {len(results)} nodes"}
        else:
            answer = {"µs CPU": (time.process_time() - begun) / int(times) / NODES * 1e6}
        print(json.dumps(answer), file=answers, flush=True)


asyncio.run(main())
