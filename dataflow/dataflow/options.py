"""What can be said about a DataFlow besides its URL, in its constructor or in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec

from nexus.errors import ConfigurationError, did_you_mean, nearest

PREFIX = "DATAFLOW_"

_ALIASES = {"pool_max_overflow": "max_overflow", "connection_pool_size": "pool_size"}
_ONLY: dict[str, tuple[object, str]] = {
    "enable_connection_pooling": (True, "For one connection at a time: pool_size=1, max_overflow=0."),
    "enable_wal": (True, "A file is always used with a write-ahead log: readers would wait for writers."),
    "pool_reset_on_return": ("rollback", "What was not committed is rolled back; commit by a transaction."),
}
_LATER = frozenset(
    {
        "async_operations",
        "audit_logging",
        "bulk_batch_size",
        "cache_backend",
        "cache_size_mb",
        "cache_ttl",
        "charset",
        "data_retention_days",
        "deterministic_ids",
        "enable_caching",
        "enable_metrics",
        "enable_model_persistence",
        "encryption_at_rest",
        "encryption_enabled",
        "encryption_key",
        "error_enhancement_mode",
        "gdpr_compliance",
        "log_config",
        "log_level",
        "monitoring",
        "multi_tenant",
        "name",
        "query_cache_enabled",
        "read_replica",
        "read_replica_enabled",
        "schema_cache_enabled",
        "schema_cache_max_size",
        "schema_cache_ttl",
        "schema_cache_validation",
        "slow_query_threshold",
        "ssl_ca",
        "ssl_cert",
        "ssl_key",
        "tenant_database_prefix",
        "tenant_id_header",
        "tenant_isolation",
        "test_mode",
        "test_mode_aggressive_cleanup",
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """Each is an argument of DataFlow and an environment variable: `pool_size` is DATAFLOW_POOL_SIZE.

    `pool_size` connections are kept open, in each event loop, and `max_overflow` more while they are needed;
    None is what suits the database. `pool_timeout` is how many seconds one waits for a connection. One
    older than `pool_recycle` seconds is replaced. `pool_pre_ping` asks the server, each time, whether the
    connection still lives: one round trip more. `echo` logs every statement, and "values" what is in it too.
    """

    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float = 30.0
    pool_recycle: float | None = None
    pool_pre_ping: bool = False
    echo: bool | Literal["values"] = False

    def __post_init__(self) -> None:
        if self.pool_size is not None and not 1 <= self.pool_size <= 10_000:
            raise ConfigurationError("pool_size must be between 1 and 10000.")
        if self.max_overflow is not None and not 0 <= self.max_overflow <= 10_000:
            raise ConfigurationError("max_overflow must be between 0 and 10000.")
        if not 0 < self.pool_timeout <= 86_400:
            raise ConfigurationError("pool_timeout must be more than 0 seconds, and at most a day.")
        if self.pool_recycle is not None and self.pool_recycle <= 0:
            object.__setattr__(self, "pool_recycle", None)  # -1 is how others spell never


def options_from(given: Mapping[str, object], environment: Mapping[str, str], url: str) -> Options:
    """Arguments, else the environment, else defaults; `pools` may hold other ones for this very URL.

    Raises TypeError for an argument that there is not, and ConfigurationError for what cannot be honoured."""
    arguments = dict(given)
    pools = arguments.pop("pools", None) or {}
    if not isinstance(pools, Mapping) or not all(isinstance(each, Mapping) for each in pools.values()):
        raise ConfigurationError('pools must be as in {url: {"pool_size": 50}}.')
    own = [_checked(dict(each), "pools") for key, each in pools.items() if key == url]
    chosen = _checked(arguments, "DataFlow()") | (own[0] if own else {})
    made = _read(chosen, strict=True)
    defaults = {name: value for name, value in _environment(environment).items() if name not in chosen}
    return made if not defaults else _read(_plain(made, chosen) | defaults, strict=False)


def _plain(made: Options, chosen: Mapping[str, object]) -> dict[str, object]:
    return {name: getattr(made, name) for name in chosen}


def _checked(given: dict[str, object], where: str) -> dict[str, object]:
    names = [field.name for field in fields(Options)]
    chosen: dict[str, object] = {}
    for name, value in given.items():
        if name in _ONLY:
            wanted, reason = _ONLY[name]
            if value != wanted:
                raise ConfigurationError(f"{name}={value!r} cannot be honoured.", remedy=reason)
        elif name in _LATER:
            raise ConfigurationError(f"{name} is not available yet.", remedy="Leave it out.")
        elif (option := _ALIASES.get(name, name)) not in names:
            near = nearest(
                name,
                [
                    *names,
                    *_ALIASES,
                    *_ONLY,
                    "database_url",
                    "auto_migrate",
                    "existing_schema_mode",
                    "system_url",
                    "pools",
                ],
            )
            raise TypeError(f"{where} has no option '{name}'" + (f"; did you mean '{near}'?" if near else ""))
        elif option in chosen and chosen[option] != value:
            raise ConfigurationError(f"{option} is given twice: {chosen[option]!r} and {value!r}.")
        else:
            chosen[option] = value
    return chosen


def _environment(environment: Mapping[str, str]) -> dict[str, object]:
    names = [field.name for field in fields(Options)]
    given: dict[str, object] = {}
    for variable, value in environment.items():
        option = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX):
            continue
        if option == "database_url":
            continue
        if option in names:
            given[option] = value
        elif (near := nearest(option, names)) is not None:
            raise ConfigurationError(
                f"There is no setting {variable}.", remedy=did_you_mean(option, [near]).upper()
            )
    return given


def _read(values: dict[str, Any], *, strict: bool) -> Options:
    try:
        return msgspec.convert(values, Options, strict=strict)
    except msgspec.ValidationError as failure:
        message = str(failure).replace("`", "").replace("$.", "")
        raise ConfigurationError(f"The options of DataFlow: {message}.") from None
