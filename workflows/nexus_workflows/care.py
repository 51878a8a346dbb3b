"""What the parameters of a node say about the node itself: retries, time limits, what a failure means."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from nexus.errors import ConfigurationError, NexusError, RegistrationError, did_you_mean
from nexus.resilience import CircuitBreaker, CircuitBreakerConfig, RetryConfig, breaker

logger = logging.getLogger("nexus.workflows")

Action: TypeAlias = Literal["fail", "continue", "goto"]

PARAMETERS = frozenset({"retry", "timeout", "on_error", "circuit_breaker", "monitoring", "tenant_id"})
PLACE = frozenset({"db_instance", "database", "model_name"})

_ACTIONS: Mapping[str, Action] = {
    "fail": "fail",
    "continue": "continue",
    "log_and_continue": "continue",
    "goto": "goto",
}
_RETRY = {
    "max_attempts": "max_attempts",
    "base_delay": "base_delay",
    "delay": "base_delay",
    "initial_delay": "base_delay",
    "max_delay": "max_delay",
    "multiplier": "multiplier",
    "jitter": "jitter",
    "retry_on": "retry_on",
    "backoff": "backoff",
}
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Log how long a node takes, always or where it is more than `slow` seconds."""

    always: bool
    slow: float | None

    def tell(self, node: str, seconds: float) -> None:
        if self.slow is not None and seconds >= self.slow:
            logger.warning("node '%s' was slow: %.3f s", node, seconds)
        elif self.always:
            logger.info("node '%s' took %.3f s", node, seconds)


@dataclass(frozen=True, slots=True)
class Care:
    retry: RetryConfig | None = None
    timeout: float | None = None
    action: Action = "fail"
    fallback: Any = _NOTHING
    handler: str = ""
    breaker: CircuitBreaker | None = None
    monitoring: Monitoring | None = None
    tenant: Any = None

    @property
    def has_fallback(self) -> bool:
        return self.fallback is not _NOTHING

    @property
    def apart(self) -> bool:
        """Whether the run may go on after an attempt has failed."""
        return self.retry is not None or self.action != "fail"


def care_from(node: str, given: Mapping[str, Any]) -> Care | None:
    """None where nothing is said. Raises RegistrationError for what cannot be meant."""
    if not given:
        return None
    action, fallback, handler = _on_error(node, given.get("on_error"))
    try:
        return Care(
            retry=_retry(given["retry"]) if given.get("retry") is not None else None,
            timeout=_timeout(given.get("timeout")),
            action=action,
            fallback=fallback,
            handler=handler,
            breaker=_breaker(given.get("circuit_breaker")),
            monitoring=_monitoring(given.get("monitoring")),
            tenant=given.get("tenant_id"),
        )
    except NexusError as failure:
        raise RegistrationError(f"Node '{node}': {failure.detail}", remedy=failure.remedy) from None
    except (TypeError, ValueError) as failure:
        raise RegistrationError(f"Node '{node}': {failure}.") from None


def _retry(given: Any) -> RetryConfig:
    if isinstance(given, int) and not isinstance(given, bool):
        return RetryConfig(max_attempts=given)
    members = _members("retry", given, _RETRY)
    found = {_RETRY[name]: value for name, value in members.items()}
    backoff = found.pop("backoff", "exponential")
    if backoff == "fixed":
        found["multiplier"] = 1.0
    elif backoff != "exponential":
        raise ConfigurationError(f"There is no backoff '{backoff}'.", remedy="Known: exponential, fixed.")
    if "retry_on" in found:
        names = found["retry_on"]
        found["retry_on"] = (names,) if isinstance(names, str) else tuple(str(name) for name in names)
    if not isinstance(found.get("max_attempts", 1), int):
        raise ConfigurationError("'max_attempts' is a whole number.")
    return RetryConfig(**found)


def _timeout(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or given <= 0:
        raise ConfigurationError("'timeout' is a positive number of seconds.")
    return float(given)


def _on_error(node: str, given: Any) -> tuple[Action, Any, str]:
    if given is None:
        return "fail", _NOTHING, ""
    if isinstance(given, str):
        given = {"action": given}
    members = _members("on_error", given, ("action", "fallback_data", "goto", "node"), node)
    handler = members.get("goto", members.get("node", ""))
    name = members.get("action", "goto" if handler else "continue" if "fallback_data" in members else "")
    if name not in _ACTIONS:
        raise RegistrationError(
            f"Node '{node}': 'on_error' has no action '{name}'.", remedy=did_you_mean(str(name), _ACTIONS)
        )
    action = _ACTIONS[name]
    if (action == "goto") != bool(handler):
        raise RegistrationError(f"Node '{node}': 'on_error' with the action goto names a node, as 'goto'.")
    if "fallback_data" in members and action != "continue":
        raise RegistrationError(f"Node '{node}': 'fallback_data' is for a run that continues.")
    return action, members.get("fallback_data", _NOTHING), str(handler)


def _breaker(given: Any) -> CircuitBreaker | None:
    if given is None:
        return None
    if isinstance(given, str):
        return breaker(given)
    members = dict(
        _members("circuit_breaker", given, ("name", "failure_threshold", "success_threshold", "timeout"))
    )
    name = members.pop("name", None)
    if not isinstance(name, str) or not name:
        raise ConfigurationError("A 'circuit_breaker' has a name: nodes with one name share it.")
    return breaker(name, CircuitBreakerConfig(**members))


def _monitoring(given: Any) -> Monitoring | None:
    if given in (None, False):
        return None
    if given is True:
        return Monitoring(True, None)
    known = (
        "track_execution_time",
        "alert_on_slow_query",
        "slow_query_threshold",
        "track_memory_usage",
        "log_queries",
    )
    members = _members("monitoring", given, known)
    if members.get("track_memory_usage"):
        raise ConfigurationError(
            "'track_memory_usage' cannot be honoured: nodes share the memory of the process.",
            remedy="Leave it out.",
        )
    if members.get("log_queries"):
        raise ConfigurationError(
            "'log_queries' cannot be honoured for one node.", remedy="DataFlow(…, echo=True) logs statements."
        )
    slow = members.get("slow_query_threshold", 1.0) if members.get("alert_on_slow_query", True) else None
    if slow is not None and (isinstance(slow, bool) or not isinstance(slow, (int, float)) or slow < 0):
        raise ConfigurationError("'slow_query_threshold' is a number of seconds.")
    return Monitoring(bool(members.get("track_execution_time")), slow)


def _members(what: str, given: Any, known: Any, node: str = "") -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise _refused(node, f"'{what}' is a dictionary.", "")
    for name in given:
        if name not in known:
            raise _refused(node, f"'{what}' has no '{name}'.", did_you_mean(str(name), known))
    return given


def _refused(node: str, detail: str, remedy: str) -> NexusError:
    return RegistrationError(f"Node '{node}': {detail}" if node else detail, remedy=remedy)
