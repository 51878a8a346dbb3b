"""create_gateway: the name under which older programs serve workflows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nexus.app import Nexus
from nexus.errors import ConfigurationError, did_you_mean
from nexus_workflows.workflow import Workflow

_SERVERS = ("basic", "durable", "enterprise")


def create_gateway(
    *,
    workflows: Mapping[str, Workflow] | None = None,
    title: str = "Nexus",
    server_type: str = "enterprise",
    dataflow_integration: Any = None,
    auto_generate_endpoints: bool = True,
    authentication_required: bool = False,
    **options: Any,
) -> Nexus:
    """An application with these workflows. There is one kind of server, with everything. The other options
    are those of Nexus, which raises TypeError for one that there is not; ConfigurationError for what cannot
    be honoured."""
    if server_type not in _SERVERS:
        raise ConfigurationError(
            f"There is no server '{server_type}'.", remedy=did_you_mean(server_type, _SERVERS)
        )
    if not auto_generate_endpoints:
        raise ConfigurationError(
            "auto_generate_endpoints=False cannot be honoured.", remedy="Leave out dataflow_integration."
        )
    if authentication_required:
        options["authentication_required"] = True
    app = Nexus(dataflow_integration, title=title, **options)
    for name, workflow in (workflows or {}).items():
        app.register(name, workflow)
    return app
