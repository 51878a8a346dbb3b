"""Names under which older programs import what is in the kernel."""

from nexus.resilience import CircuitBreaker, CircuitBreakerConfig, RetryConfig, RetryHandler

__all__ = ["CircuitBreaker", "CircuitBreakerConfig", "RetryConfig", "RetryHandler"]
