"""Workflows: nodes and connections, declared once and run as one operation."""

from nexus_workflows.builder import WorkflowBuilder
from nexus_workflows.workflow import Workflow, WorkflowRun

__all__ = ["Workflow", "WorkflowBuilder", "WorkflowRun"]
