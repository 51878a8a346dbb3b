"""Trying again, and not trying for a while: retries with backoff, and circuit breakers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from nexus.errors import (
    ConfigurationError,
    Conflict,
    NexusError,
    Retryable,
    TimedOut,
    Unavailable,
    did_you_mean,
)

T = TypeVar("T")

KINDS: dict[str, tuple[type[BaseException], ...]] = {
    "connection_error": (Unavailable, ConnectionError),
    "timeout": (TimedOut, TimeoutError),
    "deadlock": (Retryable,),
    "unavailable": (Unavailable,),
    "conflict": (Conflict,),
    "any": (Exception,),
}
"""What failures may be called where it is said which ones are worth another attempt."""

TRANSIENT = ("connection_error", "timeout")


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """How often and how soon something is tried again. Before the second attempt there are `base_delay`
    seconds, before each later one `multiplier` times as many, at most `max_delay`; `jitter` is the share of
    that, between 0 and 1, which is left to chance. `retry_on` are names of KINDS, or of exceptions.

    Raises ConfigurationError for what cannot be."""

    max_attempts: int = 3
    base_delay: float = 0.1
    max_delay: float = 5.0
    multiplier: float = 2.0
    jitter: float = 0.5
    retry_on: tuple[str, ...] = TRANSIENT

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.base_delay < 0 or self.max_delay < 0 or self.multiplier < 1:
            raise ConfigurationError(
                "A retry needs an attempt or more, delays that are not negative, and a multiplier from 1 on."
            )
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"The jitter of a retry is between 0 and 1, and not {self.jitter}.")
        for name in self.retry_on:
            if name not in KINDS and name[:1].islower():
                raise ConfigurationError(
                    f"'{name}' is not a kind of failure.", remedy=did_you_mean(name, KINDS)
                )

    def delay(self, attempt: int) -> float:
        """Seconds between this attempt, counted from 1, and the next."""
        whole = min(self.max_delay, self.base_delay * self.multiplier ** (attempt - 1))
        return whole * (1 - self.jitter * random.random())

    def covers(self, failure: BaseException) -> bool:
        """Whether another attempt may help: for the failure itself, or for what has caused it."""
        seen: BaseException | None = failure
        while seen is not None:
            names = {kind.__name__ for kind in type(seen).__mro__}
            for wanted in self.retry_on:
                if wanted in names or isinstance(seen, KINDS.get(wanted, ())):
                    return True
            seen = seen.__cause__
        return False


class RetryHandler:
    """Runs asynchronous functions, again where they fail in a way that may pass. Anything but a cancellation
    counts when `retry_on` says `any`."""

    def __init__(self, config: RetryConfig | None = None) -> None:
        self.config = config or RetryConfig(retry_on=("any",))
        self._attempts = self._successes = self._failures = self._retries = 0

    async def execute_with_retry(
        self, function: Callable[..., Awaitable[T]], *arguments: Any, **named: Any
    ) -> T:
        """Its result; the last failure is raised."""
        attempt = 1
        while True:
            self._attempts += 1
            try:
                result = await function(*arguments, **named)
            except Exception as failure:
                if attempt >= self.config.max_attempts or not self.config.covers(failure):
                    self._failures += 1
                    raise
            else:
                self._successes += 1
                return result
            self._retries += 1
            await asyncio.sleep(self.config.delay(attempt))
            attempt += 1

    def get_metrics(self) -> dict[str, int]:
        return {
            "total_attempts": self._attempts,
            "total_successes": self._successes,
            "total_failures": self._failures,
            "total_retries": self._retries,
        }


@dataclass(frozen=True, slots=True)
class CircuitBreakerConfig:
    """Opened by `failure_threshold` failures in a row; tried again after `timeout` seconds; closed by
    `success_threshold` successes then. Raises ConfigurationError for what cannot be."""

    failure_threshold: int = 5
    success_threshold: int = 2
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.failure_threshold < 1 or self.success_threshold < 1 or self.timeout < 0:
            raise ConfigurationError(
                "The thresholds of a circuit breaker are 1 or more, its timeout not negative."
            )


class CircuitOpen(Unavailable):
    """Not tried: it has failed too often, and a little while ago."""

    code = "NX-506"
    title = "Circuit open"


State = Literal["CLOSED", "OPEN", "HALF_OPEN"]


class CircuitBreaker:
    """Stops asking something that fails: for a while every call is refused at once, then one at a time is
    let through to see."""

    def __init__(
        self,
        config: CircuitBreakerConfig | None = None,
        *,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or CircuitBreakerConfig()
        self.name = name
        self._clock = clock
        self._state: State = "CLOSED"
        self._failures = self._successes = self._rejected = 0
        self._opened = 0.0
        self._trying = False

    @property
    def state(self) -> State:
        if self._state == "OPEN" and self._clock() - self._opened >= self.config.timeout:
            self._state, self._successes = "HALF_OPEN", 0
        return self._state

    async def execute(self, function: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        """Its result. Raises CircuitOpen without calling it, and what it raises."""
        trial = self._enter()
        try:
            result = await function(*arguments, **named)
        except Exception as failure:
            if not isinstance(failure, NexusError) or failure.status >= 500:
                self._failed()
            raise
        else:
            self._succeeded()
            return result
        finally:
            if trial:
                self._trying = False

    def get_metrics(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "failure_count": self._failures,
            "success_count": self._successes,
            "rejected_requests": self._rejected,
        }

    def _enter(self) -> bool:
        """Whether this call is the one that tries."""
        state = self.state
        if state == "OPEN" or (state == "HALF_OPEN" and self._trying):
            self._rejected += 1
            named = f" '{self.name}'" if self.name else ""
            raise CircuitOpen(
                f"The circuit breaker{named} is open: what it guards has failed {self._failures} times.",
                remedy=f"It is tried again {self.config.timeout:g} s after the last failure.",
            )
        self._trying = state == "HALF_OPEN"
        return self._trying

    def _failed(self) -> None:
        self._failures += 1
        if self._state == "HALF_OPEN" or self._failures >= self.config.failure_threshold:
            self._state, self._opened = "OPEN", self._clock()

    def _succeeded(self) -> None:
        self._successes += 1
        if self._state == "CLOSED":
            self._failures = 0
        elif self._successes >= self.config.success_threshold:
            self._state, self._failures = "CLOSED", 0


_breakers: dict[str, CircuitBreaker] = {}


def breaker(name: str, config: CircuitBreakerConfig | None = None) -> CircuitBreaker:
    """The breaker of this name, one for the whole process. Raises ConfigurationError where there is one with
    another configuration."""
    found = _breakers.setdefault(name, CircuitBreaker(config, name=name))
    if config is not None and found.config != config:
        raise ConfigurationError(f"There is a circuit breaker '{name}' with another configuration already.")
    return found
