"""What can be said about a DataFlow besides its URL, in its constructor or in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec

from dataflow.connecting import NAMES as CONNECTING
from nexus.errors import ConfigurationError, did_you_mean, nearest

PREFIX = "DATAFLOW_"

_ELSEWHERE = frozenset({"database_url", "execution_timeout"})
"""Variables that others read."""
_ARGUMENTS = ("database_url", "name", "auto_migrate", "existing_schema_mode", "system_url", "pools")

_ALIASES = {"pool_max_overflow": "max_overflow", "connection_pool_size": "pool_size"}
_ONLY: dict[str, tuple[object, str]] = {
    "async_operations": (True, "Everything is asynchronous; db.sync is for programs without an event loop."),
    "enable_connection_pooling": (True, "For one connection at a time: pool_size=1, max_overflow=0."),
    "enable_metrics": (True, "Connections are counted always: db.pool_metrics()."),
    "enable_wal": (True, "A file is always used with a write-ahead log: readers would wait for writers."),
    "pool_reset_on_return": ("rollback", "What was not committed is rolled back; commit by a transaction."),
    "schema_cache_enabled": (True, "Asking the database about each table at each use would double its work."),
    "schema_cache_ttl": (None, "Tables are looked at again after db.install(), and in a new process."),
    "schema_cache_validation": (False, "Tables are compared with the models at their first use."),
    "tenant_isolation": ("strict", "No tenant ever sees the records of another."),
}
_LATER: dict[str, str] = {
    "analytics_db": "Make a second DataFlow for the other database.",
    "audit_logging": "",
    "bulk_batch_size": "Give batch_size to the bulk operation.",
    "cache_backend": "",
    "cache_ttl": "",
    "config": "Give its parts as arguments.",
    "data_retention_days": "",
    "deterministic_ids": "Declare the id as 'str' and give it.",
    "enable_caching": "",
    "enable_model_persistence": "",
    "encryption_at_rest": "Encrypt the disk of the database server.",
    "encryption_enabled": "",
    "encryption_key": "",
    "error_enhancement_mode": "Errors always say what to do.",
    "gdpr_compliance": "",
    "log_config": "Set up the loggers 'nexus' and 'dataflow' of Python's logging.",
    "log_level": 'As in logging.getLogger("dataflow").setLevel("DEBUG").',
    "migration_config": "Use auto_migrate and existing_schema_mode.",
    "monitoring": "db.pool_metrics() counts connections, echo=True logs statements.",
    "query_cache_enabled": "",
    "read_replica": "",
    "read_replica_enabled": "",
    "redis_url": "",
    "safety_level": "auto_migrate and existing_schema_mode say what may be changed.",
    "schema_cache_max_size": "Each model takes one small entry.",
    "slow_query_threshold": "echo=True logs statements.",
    "tenant_database_prefix": "Tenants share tables, which multi_tenant=True keeps apart.",
    "tenant_id_header": "The tenant is that of the session.",
    "test_mode": "Use DataFlow(':memory:'), or an empty database for each test.",
    "test_mode_aggressive_cleanup": "",
}
"""What is documented elsewhere and not built, and what to do instead. Without it is how things are: None
and False are accepted."""


@dataclass(frozen=True, slots=True)
class Options:
    """Each is an argument of DataFlow and an environment variable: `pool_size` is DATAFLOW_POOL_SIZE.

    `pool_size` connections are kept open, in each event loop, and `max_overflow` more while they are needed,
    and half a minute longer; None is what suits the database. `pool_timeout` is how many seconds one waits
    for a connection. One older than `pool_recycle` seconds is replaced. `pool_pre_ping` asks the server, each
    time, whether the connection still lives: one round trip more. `echo` logs every statement, and "values"
    what is in it too. With `multi_tenant` every model is, unless it says otherwise.

    The change log keeps changes for `changes_max_age` seconds (7 days) and at most `changes_max_rows` of them
    (a million), give or take a tenth; None is without end.
    """

    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float = 30.0
    pool_recycle: float | None = None
    pool_pre_ping: bool = False
    echo: bool | Literal["values"] = False
    multi_tenant: bool = False
    changes_max_age: float | None = 604_800.0
    changes_max_rows: int | None = 1_000_000

    def __post_init__(self) -> None:
        if self.pool_size is not None and not 1 <= self.pool_size <= 10_000:
            raise ConfigurationError("pool_size must be between 1 and 10000.")
        if self.max_overflow is not None and not 0 <= self.max_overflow <= 10_000:
            raise ConfigurationError("max_overflow must be between 0 and 10000.")
        if not 0 < self.pool_timeout <= 86_400:
            raise ConfigurationError("pool_timeout must be more than 0 seconds, and at most a day.")
        if self.changes_max_age is not None and not 0 <= self.changes_max_age <= 3_000_000_000:
            raise ConfigurationError("changes_max_age must be a number of seconds, or None.")
        if self.changes_max_rows is not None and not 0 <= self.changes_max_rows <= 3_000_000_000:
            raise ConfigurationError("changes_max_rows must be a number of changes, or None.")
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
            if value is not None and value is not False:
                raise ConfigurationError(
                    f"{name} is not available yet.", remedy=_LATER[name] or "Leave it out."
                )
        elif (option := _ALIASES.get(name, name)) not in names:
            near = nearest(
                name,
                [*names, *_ALIASES, *_ONLY, *CONNECTING, *_ARGUMENTS],
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
        if option in _ELSEWHERE or option in CONNECTING:
            continue
        if option in names:
            given[option] = value
        elif (near := nearest(option, [*names, *CONNECTING])) is not None:
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
