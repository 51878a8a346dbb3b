"""Who is told of a run's nodes when nobody else listens."""

from __future__ import annotations

import logging

from nexus.call import Call
from nexus.errors import NexusError

logger = logging.getLogger("nexus.workflows")


class LoggedProgress:
    """Writes how long each node took into the log."""

    def node_started(self, node: str) -> None:
        logger.debug("node '%s' begins", node)

    def node_ended(self, node: str, status: str, seconds: float, error: NexusError | None = None) -> None:
        reason = f": {error.detail}" if error is not None else ""
        logger.info("node '%s' %s after %.3f s%s", node, status, seconds, reason)


def report_to_log(call: Call) -> None:
    """Where nobody listens, let the log."""
    if call.progress is None:
        call.progress = LoggedProgress()
