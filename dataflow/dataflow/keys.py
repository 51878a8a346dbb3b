"""Keys that are made here and not by a database."""

from __future__ import annotations

import os
import threading
import time
import uuid

_LOCK = threading.Lock()
_RANDOM_BITS = 62
_last = 0


def uuid7() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, 12 bits of their fraction, 62 random bits.

    Within one process each is greater than the one before, also when the clock is set back."""
    global _last
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    stamp = milliseconds << 12 | rest * 4096 // 1_000_000
    with _LOCK:
        _last = stamp = max(stamp, _last + 1)
    random = int.from_bytes(os.urandom(8), "big") >> 64 - _RANDOM_BITS
    value = (stamp >> 12) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << _RANDOM_BITS | random
    return uuid.UUID(int=value)
