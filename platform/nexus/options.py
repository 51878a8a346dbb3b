"""Constructor options that other platforms of this kind know: honoured, or refused with the reason."""

from __future__ import annotations

from nexus.errors import ConfigurationError, nearest

_SWITCHES = {"enable_api": "rest", "enable_mcp": "mcp", "enable_websocket": "websocket"}
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
_LATER = frozenset(
    {
        "auth_config",
        "auto_discovery_paths",
        "dataflow_config",
        "enable_auth",
        "enable_monitoring",
        "mcp_port",
        "monitoring_config",
        "rate_limit",
    }
)


def check_options(options: dict[str, object]) -> set[str]:
    """The channels that are switched off by `enable_…=False`."""
    off: set[str] = set()
    for name, value in options.items():
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name} must be True or False, not {value!r}.")
            if not value:
                off.add(_SWITCHES[name])
        elif name in _ONLY:
            wanted, reason = _ONLY[name]
            if value is not wanted:
                raise ConfigurationError(f"{name}={value!r} cannot be honoured.", remedy=reason)
        elif name in _LATER:
            raise ConfigurationError(f"{name} is not available yet.", remedy="Leave it out.")
        else:
            known = [
                *_SWITCHES,
                *_ONLY,
                "title",
                "channels",
                "settings",
                "record_runs",
                "dataflow_integration",
            ]
            near = nearest(name, known)
            hint = f"; did you mean '{near}'?" if near else ""
            raise TypeError(f"Nexus() has no option '{name}'{hint}")
    return off
