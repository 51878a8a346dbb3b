"""Constructor options that other platforms of this kind know: honoured, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nexus.errors import ConfigurationError, nearest

_SWITCHES = {"enable_api": "rest", "enable_mcp": "mcp", "enable_websocket": "websocket"}
_PORTS = {"api_port": "port", "mcp_port": "mcp_port"}
_REQUIRES_KEY = ("authentication_required", "enable_auth")
_ONLY = {
    "enable_cli": (
        True,
        "The CLI is a program that loads the application; it cannot be switched off in it.",
    ),
    "channels_synced": (
        True,
        "The channels share one registry and one change log; they cannot differ.",
    ),
    "auto_discovery": (
        False,
        "Files are only searched when asked: app.discover(folder) registers the workflows in a folder.",
    ),
}
_ALTERNATIVES = {
    "auto_discovery_paths": "app.discover(folder) registers the workflows in a folder.",
    "rate_limit": "Leave it out.",
}
_EVERY_CHANNEL = "A channel is left out by channels=[…], a model's operations by attaching no DataFlow."
_BY_SCOPES = "What a session may do is said by its scopes, not by what is there."
_DATAFLOW_ONLY = {
    "auto_generate_endpoints": _EVERY_CHANNEL,
    "auto_generate_cli_commands": _EVERY_CHANNEL,
    "auto_generate_mcp_tools": _EVERY_CHANNEL,
    "expose_bulk_operations": _BY_SCOPES,
    "expose_analytics": _BY_SCOPES,
}
_INTEGRATION = "integration"
_AUTH = ("providers", "rbac_enabled")
_METRICS = ("prometheus_enabled", "track_database_metrics")
_KEY = "Set NEXUS_API_KEY, which every channel then asks for"
_OTHERS = ("title", "channels", "settings", "record_runs", "dataflow_integration")
_GROUPS = ("auth_config", "dataflow_config", "enable_monitoring", "monitoring_config")


@dataclass(slots=True)
class Options:
    """What the options say. `off` are channels that are not served, `settings` fields of Settings,
    `integration` the DataFlow that is to be attached. `unmet` stands in the way of serving: an application
    that asks for it can be made and used in its own process."""

    off: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    integration: Any = None
    needs_key: str = ""
    unmet: list[ConfigurationError] = field(default_factory=list)

    def check_servable(self, *, keyed: bool) -> None:
        """Raises ConfigurationError for what was asked for and cannot be served; `keyed`: there is an API
        key."""
        if self.needs_key and not keyed:
            raise ConfigurationError(f"{self.needs_key} needs an API key.", remedy="Set NEXUS_API_KEY.")
        for failure in self.unmet:
            raise failure


def read_options(given: Mapping[str, object]) -> Options:
    """Raises TypeError for an option that there is not, ConfigurationError for what cannot be honoured."""
    read = Options()
    for name, value in given.items():
        if name in _SWITCHES:
            if not _flag(name, value):
                read.off.add(_SWITCHES[name])
        elif name in _PORTS:
            read.settings[_PORTS[name]] = _port(name, value)
        elif name in _REQUIRES_KEY:
            if _flag(name, value):
                read.needs_key = f"{name}=True"
        elif name in _ONLY:
            _check_only(name, value, *_ONLY[name])
        elif name == "dataflow_config":
            _read_dataflow(read, _group(name, value, (_INTEGRATION, *_DATAFLOW_ONLY)))
        elif name == "auth_config":
            _read_auth(read, _group(name, value, _AUTH))
        elif name == "monitoring_config":
            _read_monitoring(read, name, _group(name, value, _METRICS))
        elif name == "enable_monitoring":
            _read_monitoring(read, name, {"prometheus_enabled": _flag(name, value)})
        elif name in _ALTERNATIVES:
            raise ConfigurationError(f"{name} is not available yet.", remedy=_ALTERNATIVES[name])
        else:
            known = (*_SWITCHES, *_PORTS, *_REQUIRES_KEY, *_ONLY, *_GROUPS, *_ALTERNATIVES, *_OTHERS)
            raise _unknown("Nexus()", "option", name, known)
    return read


def _read_dataflow(read: Options, group: Mapping[str, object]) -> None:
    read.integration = group.get(_INTEGRATION)
    for name, reason in _DATAFLOW_ONLY.items():
        if name in group:
            _check_only(f"dataflow_config: {name}", group[name], True, reason)


def _read_auth(read: Options, group: Mapping[str, object]) -> None:
    providers = group.get("providers") or []
    if isinstance(providers, str) or not isinstance(providers, list | tuple):
        raise ConfigurationError("auth_config: providers must be a list of names.")
    missing = [f"signing in by {name}" for name in providers]
    if _flag("auth_config: rbac_enabled", group.get("rbac_enabled", False)):
        missing.append("users with roles (rbac_enabled)")
    if missing:
        read.unmet.append(
            ConfigurationError(
                f"auth_config asks for what is not available yet: {', '.join(missing)}.",
                remedy=f"{_KEY}, and leave auth_config out.",
            )
        )


def _read_monitoring(read: Options, option: str, group: Mapping[str, object]) -> None:
    """Connections are counted always (`db.pool_metrics()`)."""
    for name, value in group.items():
        if _flag(f"{option}: {name}", value) and name == "prometheus_enabled":
            read.unmet.append(
                ConfigurationError(
                    f"{option} asks for what is not available yet: metrics for Prometheus.",
                    remedy=f"Leave {option} out; db.pool_metrics() counts the connections.",
                )
            )


def _group(option: str, value: object, names: Iterable[str]) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{option} must be a dict, not {value!r}.")
    for name in value:
        if name not in names:
            raise _unknown(option, "entry", str(name), names)
    return value


def _check_only(name: str, value: object, wanted: bool, reason: str) -> None:
    if value is not wanted:
        raise ConfigurationError(f"{name}={value!r} cannot be honoured.", remedy=reason)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {value!r}.")
    return value


def _port(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name} must be a number, not {value!r}.")
    return value


def _unknown(owner: str, kind: str, name: str, known: Iterable[str]) -> TypeError:
    near = nearest(name, known)
    hint = f"; did you mean '{near}'?" if near else ""
    return TypeError(f"{owner} has no {kind} '{name}'{hint}")
