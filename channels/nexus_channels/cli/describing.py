"""The description of an application, for programs."""

from __future__ import annotations

import msgspec

from nexus_channels.cli.output import write
from nexus_channels.cli.program import State
from nexus_channels.openapi.serving import described


def print_openapi(state: State) -> None:
    """Write the same document as `/openapi.json`, indented."""
    write(msgspec.json.format(described(state.application()).document("")) + b"\n")
