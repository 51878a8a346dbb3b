"""What REST answers to the start of a run that it does not wait for: 202, and where it can be looked at."""

from __future__ import annotations

import msgspec
from starlette.types import Scope

from nexus.runs.record import Started
from nexus_channels.asgi import JSON, Reply, root_of

RUNS = "runs"
CANCEL = "/cancel"


def reply_started(scope: Scope, started: Started) -> Reply:
    """202: the run goes on, and here it is."""
    location = f"{root_of(scope)}/{RUNS}/{started.run_id}"
    return 202, msgspec.json.encode(started), [JSON, (b"location", location.encode())]
