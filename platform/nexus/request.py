"""Which request something is done for: the id that is in the answer, the log and the change record."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Callable
from contextvars import ContextVar

REQUEST: ContextVar[str | None] = ContextVar("nexus_request", default=None)
"""The id of the request that the running task works for; None in a program's own work."""

_PREFIX = os.urandom(6).hex() + "-"
_numbers = itertools.count(1)
_sane = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch
_unsane = re.compile(r"[^A-Za-z0-9._-]")
# The version ff is forbidden; what later versions add behind is to be ignored (W3C Trace Context, 3.2.2).
_trace = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch


def new_request() -> str:
    """An id that no other request has."""
    return f"{_PREFIX}{next(_numbers):x}"


def request_of(given: bytes | None, traceparent: bytes | None) -> str:
    """The id that a caller gave, if it can stand anywhere; else that of the trace; else a new one."""
    if given is not None and _sane(text := given.decode("latin-1")):
        return text
    if traceparent is not None and (trace := _trace(traceparent.decode("latin-1"))):
        return trace[1]
    return new_request()


def part_of(request: str | None, part: str) -> str:
    """The id of one of the things that are asked for within a request, under the caller's name for it."""
    return f"{request or new_request()}/{_unsane.sub('_', part)}"


def log_requests() -> None:
    """Give every record of the log, from now on, the attribute `request`: an id, or `-`."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Factory):
        logging.setLogRecordFactory(_Factory(make))


class _Factory:
    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: object, **more: object) -> logging.LogRecord:
        record = self._make(*args, **more)
        record.request = REQUEST.get() or "-"
        return record
