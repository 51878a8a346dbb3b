"""create_gateway: the name under which older programs serve workflows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nexus.app import Nexus
from nexus_workflows.workflow import Workflow


def create_gateway(
    *,
    workflows: Mapping[str, Workflow] | None = None,
    title: str = "Nexus",
    dataflow_integration: Any = None,
    **options: Any,
) -> Nexus:
    """An application with these workflows. Its options are those of Nexus, which raises TypeError for one that
    there is not and ConfigurationError for one that cannot be honoured."""
    app = Nexus(dataflow_integration, title=title, **options)
    for name, workflow in (workflows or {}).items():
        app.register(name, workflow)
    return app
