"""What several tests of workflows need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nexus import LOCAL, Call, Nexus, NexusError
from nexus_workflows import WorkflowBuilder
from nexus_workflows.runner import run_plan


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.errors: dict[str, NexusError] = {}

    def node_started(self, node: str) -> None:
        self.started.append(node)

    def node_ended(self, node: str, status: str, seconds: float, error: NexusError | None = None) -> None:
        assert seconds >= 0
        self.ended.append((node, status))
        if error is not None:
            self.errors[node] = error


async def run(app: Nexus, workflow: WorkflowBuilder | Any, **inputs: object) -> dict[str, Any]:
    """Each node's result, of a workflow that is registered for this once."""
    app.register("once", workflow, replace=True)
    made = await app.runtime.invoke("once", inputs, LOCAL, channel="test")
    results: dict[str, Any] = made.results
    return results


async def count(app: Nexus) -> int:
    counted = await app.runtime.invoke("products.count", {}, LOCAL, channel="test")
    return int(counted.count)


def nodes(*declared: tuple[str, str, Mapping[str, Any]]) -> WorkflowBuilder:
    workflow = WorkflowBuilder()
    for node in declared:
        workflow.add_node(*node)
    return workflow


__all__ = ["Call", "Heard", "count", "nodes", "run", "run_plan"]
