"""How often one may ask: a number in a span of time, for each session, and for each address whose credentials
are wrong.

The count is a single moment for each (GCRA): when all that was used will have been given back. So what is
known of somebody who has been quiet for that long is nothing, and need not be kept.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from nexus.errors import ConfigurationError, RateLimited
from nexus.session import Session
from nexus_channels.asgi import Header

_SECONDS = {"s": 1, "min": 60, "h": 3600}
_rate = re.compile(r"([1-9][0-9]{0,8})/(s|min|h)").fullmatch
MOST_KNOWN = 20_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds."""

    count: int
    seconds: int


def rate_from(setting: str) -> Rate:
    """Raises ConfigurationError for what is no rate."""
    match = _rate(setting.strip())
    if match is None:
        raise ConfigurationError(
            f"NEXUS_RATE_LIMIT: '{setting[:80]}' is not a rate.",
            remedy="One is written as 100/s, 1000/min or 5000/h.",
        )
    return Rate(int(match[1]), _SECONDS[match[2]])


class Limiter:
    """Counts by key. What it remembers is bounded: beyond `most` it forgets those who have used least."""

    def __init__(
        self, rate: Rate, *, most: int = MOST_KNOWN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._each = rate.seconds / rate.count
        self._span = float(rate.seconds)
        self._most = most
        self._clock = clock
        self._full: dict[str, float] = {}  # when each will have given everything back

    def take(self, key: str) -> float:
        """Count one; how many seconds of the span are used now. Raises RateLimited, and counts nothing, where
        that would be more than all."""
        now = self._clock()
        used = max(self._full.get(key, now) - now, 0.0) + self._each
        if used > self._span + 1e-9:
            raise RateLimited(used - self._span)
        self._full[key] = now + used
        if len(self._full) > self._most:
            self._forget(now)
        return used

    def left(self, used: float) -> int:
        return int((self._span - used) / self._each + 1e-6)

    def check(self, key: str) -> None:
        """Raises RateLimited where `take` would."""
        full = self._full.get(key)
        if full is not None and (used := full - self._clock() + self._each) > self._span + 1e-9:
            raise RateLimited(used - self._span)

    def _forget(self, now: float) -> None:
        self._full = {key: full for key, full in self._full.items() if full > now}
        if len(self._full) > self._most // 2:
            ranked = sorted(self._full.items(), key=lambda item: item[1])
            self._full = dict(ranked[-self._most // 2 :])


class Rates:
    """The limits of one server. Each process counts for itself."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions = Limiter(rate, clock=clock)
        self._failures = Limiter(rate, clock=clock)
        self._accepted: set[int] = set()
        self._policy: Header = (b"ratelimit-policy", b'"default";q=%d;w=%d' % (rate.count, rate.seconds))

    def count(self, session: Session) -> list[Header]:
        """Count one thing that is asked for; the headers that tell how many are left (the IETF's draft of
        RateLimit header fields, 10). Raises RateLimited."""
        used = self._sessions.take(session.id)
        left = b'"default";r=%d;t=%d' % (self._sessions.left(used), math.ceil(used))
        return [self._policy, (b"ratelimit", left)]

    def refusal(self, failure: RateLimited) -> list[Header]:
        return [self._policy, (b"ratelimit", b'"default";r=0;t=%d' % math.ceil(failure.seconds))]

    def admit(self, address: str, credential: str | None) -> None:
        """Raises RateLimited for an address that has shown too many wrong credentials. One that was right
        before still passes: it may be that a proxy's address is everybody's."""
        if hash(credential) not in self._accepted:
            self._failures.check(_network(address))

    def accepted(self, credential: str | None) -> None:
        if len(self._accepted) >= MOST_KNOWN:
            self._accepted.clear()
        self._accepted.add(hash(credential))

    def rejected(self, address: str) -> None:
        """Count a wrong credential. Raises RateLimited."""
        self._failures.take(_network(address))


def _network(address: str) -> str:
    """Who has one address of IPv6 has 2 to the 64 of them."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, 64), strict=False))
    except ValueError:
        return address
