"""Workflows: nodes and connections, declared once and run as one operation."""

from nexus.resilience import CircuitBreaker, CircuitBreakerConfig, RetryConfig, RetryHandler
from nexus_workflows.builder import WorkflowBuilder
from nexus_workflows.function import Flow, Reference, workflow
from nexus_workflows.nodes.own import node
from nexus_workflows.runtime import AsyncLocalRuntime, ExecutionContext, LocalRuntime
from nexus_workflows.workflow import Workflow, WorkflowRun

__all__ = [
    "AsyncLocalRuntime",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "ExecutionContext",
    "Flow",
    "LocalRuntime",
    "Reference",
    "RetryConfig",
    "RetryHandler",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowRun",
    "node",
    "workflow",
]
