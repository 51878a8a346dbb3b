"""Settings: typed, and no misspelling goes unseen."""

from __future__ import annotations

import pytest

from nexus import LOCAL, Sessions, Settings
from nexus.config import is_loopback
from nexus.errors import ConfigurationError, Unauthenticated


def test_settings_come_from_the_environment_with_their_types() -> None:
    settings = Settings.from_environment({"NEXUS_PORT": "8123", "NEXUS_API_KEY": "k", "OTHER": "x"})
    assert (settings.port, settings.api_key, settings.host) == (8123, "k", "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("NEXUS_PROT", "1", "Did you mean 'NEXUS_PORT'"),
        ("NEXUS_PORT", "many", "port"),
        ("NEXUS_PORT", "99999", "99999"),
        ("NEXUS_BODY_LIMIT", "0", "NEXUS_BODY_LIMIT"),
        ("NEXUS_SHUTDOWN", "-1", "NEXUS_SHUTDOWN"),
    ],
)
def test_what_cannot_be_honoured_is_refused(name: str, value: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Settings.from_environment({name: value})


def test_which_hosts_are_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""))


async def test_a_key_is_required_where_there_is_one() -> None:
    assert await Sessions().resolve(None) is LOCAL
    sessions = Sessions("secret")
    assert await sessions.resolve("secret") is LOCAL
    for wrong in (None, "", "Secret", "secret ", "sécret"):
        with pytest.raises(Unauthenticated):
            await sessions.resolve(wrong)
