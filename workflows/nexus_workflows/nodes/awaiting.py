"""Seeing who holds the event loop: while one node computes, nothing else in the process moves."""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine, Generator
from typing import Any

logger = logging.getLogger("nexus.workflows")

BLOCKED = 0.1
"""Seconds between two awaits from which on it is worth a line in the log."""


def blocked(node: str, seconds: float) -> None:
    logger.warning(
        "node '%s' held the event loop for %.2f s: nothing else ran meanwhile; await, or use a thread",
        node,
        seconds,
    )


class Watched:
    """A coroutine of a node, timed between its awaits."""

    __slots__ = ("_node", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], node: str) -> None:
        self._work = work
        self._node = node

    def __await__(self) -> Generator[Any, Any, Any]:
        work, value = self._work, None
        failure: BaseException | None = None
        while True:
            begun = time.perf_counter()
            try:
                yielded = work.send(value) if failure is None else work.throw(failure)
            except StopIteration as end:
                return end.value
            finally:
                seconds = time.perf_counter() - begun
                if seconds > BLOCKED:
                    blocked(self._node, seconds)
            failure = None
            try:
                value = yield yielded
            except GeneratorExit:
                work.close()
                raise
            except BaseException as thrown:  # handed to the coroutine, which decides
                failure = thrown
