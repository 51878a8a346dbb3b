"""Settings: read from the environment once, and passed on from there."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

import msgspec

from nexus.errors import ConfigurationError, did_you_mean, nearest

PREFIX = "NEXUS_"
_FOR_TESTS = PREFIX + "TEST_"
_MOST_HOURS = 24 * 366


@dataclass(frozen=True, slots=True)
class Settings:
    """Each is the environment variable of its name: `api_key` is NEXUS_API_KEY.

    `mcp_port` opens MCP on a port of its own as well. `body_limit` bounds one request, in bytes, on every
    channel. `shutdown` is how many seconds running requests get to end. `app` is where the CLI finds the
    application: `module:name` or `path.py:name`.
    `record_runs` says whether runs of workflows are recorded; of those that have ended the last `runs_kept`
    are kept, for `runs_days` days. `background_runs` is how many may go on unattended at once. For
    `idempotency_hours` the answer to a write with an idempotency key is that of the first time.

    `template_env` names the variables of the environment that templates of workflows may read, with commas
    between them.
    """

    app: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    mcp_port: int | None = None
    api_key: str | None = None
    body_limit: int = 1 << 20
    shutdown: float = 3.0
    record_runs: bool = True
    runs_kept: int = 10_000
    runs_days: int = 30
    background_runs: int = 100
    idempotency_hours: float = 24.0
    template_env: str = ""

    def __post_init__(self) -> None:
        for port in (self.port, self.mcp_port or 0):
            if not 0 <= port <= 65535:
                raise ConfigurationError(f"The port {port} is not between 0 and 65535.")
        if self.port and self.port == self.mcp_port:
            raise ConfigurationError(
                f"The port {self.port} serves MCP already.", remedy="Leave mcp_port out, or choose another."
            )
        if self.body_limit < 1:
            raise ConfigurationError("NEXUS_BODY_LIMIT must be a positive number of bytes.")
        if not 0 <= self.shutdown <= 60:
            raise ConfigurationError("NEXUS_SHUTDOWN must be between 0 and 60 seconds.")
        if min(self.runs_kept, self.runs_days, self.background_runs) < 1:
            raise ConfigurationError(
                "NEXUS_RUNS_KEPT, NEXUS_RUNS_DAYS and NEXUS_BACKGROUND_RUNS must be at least 1.",
                remedy="To record no runs at all: NEXUS_RECORD_RUNS=false.",
            )

        if not 0 < self.idempotency_hours <= _MOST_HOURS:
            raise ConfigurationError(
                f"NEXUS_IDEMPOTENCY_HOURS must be more than 0, and at most {_MOST_HOURS}."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigurationError for a value of the wrong type, and for a name that is probably a
        misspelt setting."""
        known = {PREFIX + field.name.upper(): field.name for field in fields(cls)}
        given: dict[str, object] = {}
        for name, value in environment.items():
            if name in known:
                given[known[name]] = value
            elif name.startswith(PREFIX) and not name.startswith(_FOR_TESTS) and nearest(name, known):
                raise ConfigurationError(f"There is no setting {name}.", remedy=did_you_mean(name, known))
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as failure:
            raise ConfigurationError(f"The environment's NEXUS_ settings: {failure}.") from None


def is_loopback(host: str) -> bool:
    """Whether listening on `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
