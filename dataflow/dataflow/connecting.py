"""How to connect, as it is said in the constructor of DataFlow and in the environment instead of the URL."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dataflow.dialects.address import Settings
from nexus.errors import ConfigurationError

NAMES = frozenset(
    {
        "application_name",
        "cache_size_mb",
        "charset",
        "collation",
        "connect_timeout",
        "ssl_ca",
        "ssl_cert",
        "ssl_check_hostname",
        "ssl_key",
        "ssl_key_password",
        "ssl_mode",
        "ssl_verify_cert",
        "ssl_verify_identity",
        "sslcert",
        "sslkey",
        "sslmode",
        "sslpassword",
        "sslrootcert",
        "unix_socket",
    }
)


def settings_from(options: dict[str, object], environment: Mapping[str, str], prefix: str) -> Settings:
    """Takes them out of `options`. Raises ConfigurationError for what is no text, number or switch."""
    given = {name: _text(name, options.pop(name)) for name in sorted(options.keys() & NAMES)}
    variables = {name: environment.get(prefix + name.upper(), "") for name in sorted(NAMES)}
    return Settings(given, {name: value for name, value in variables.items() if value})


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float, os.PathLike)):
        raise ConfigurationError(f"{name} is a text or a number, not {type(value).__name__}.")
    return str(value)
