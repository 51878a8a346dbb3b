"""Runs a plan inside a call: every node is an operation, run through the call's inner door."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from nexus.call import Call
from nexus.errors import NexusError
from nexus.operation import Effect, Operation
from nexus.results import plain
from nexus_workflows.graph import ORDER, Graph, Node
from nexus_workflows.values import fill, look_up


@dataclass(frozen=True, slots=True)
class Step:
    node: Node
    operation: Operation


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a workflow in the order in which they run."""

    steps: tuple[Step, ...]
    graph: Graph

    def needs_transaction(self) -> bool:
        """Whether anything could be half done or lost between: more than one write, something that can fail
        after a write, or a read of what is written."""
        writes = [step for step in self.steps if step.operation.effect is not Effect.READ]
        if not writes:
            return False
        last = self.steps[-1]
        if writes != [last] or last.operation.effect is Effect.RUN:
            return True
        return any(step.operation.resource == last.operation.resource for step in self.steps[:-1])

    async def run(self, call: Call, inputs: dict[str, Any]) -> dict[str, Any]:
        """Each node's result by its id, as plain values. The first failure ends the run and is raised."""
        results: dict[str, Any] = {}
        scope = dict(inputs)
        for step in self.steps:
            name = step.node.id
            begun = time.perf_counter()
            if call.progress is not None:
                call.progress.node_started(name)
            try:
                arguments = self._arguments(step, scope, results)
                result = await call.run(step.operation, arguments)
            except NexusError as failure:
                failure.node = failure.node or name
                if call.progress is not None:
                    call.progress.node_ended(name, "failed", time.perf_counter() - begun, failure)
                raise
            results[name] = scope[name] = plain(result)
            if call.progress is not None:
                call.progress.node_ended(name, "done", time.perf_counter() - begun)
        return results

    def _arguments(self, step: Step, scope: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
        accepted = step.operation.arguments.fields
        brought = {
            connection.input: look_up(results[connection.source], connection.output)
            for connection in self.graph.into(step.node.id)
            if connection.input in accepted or connection.input != ORDER
        }
        arguments = {key: fill(value, scope, brought) for key, value in step.node.parameters.items()}
        return arguments | {key: value for key, value in brought.items() if key in accepted}
