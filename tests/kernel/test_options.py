"""Options of Nexus that other platforms of this kind know: honoured, or refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from nexus import LOCAL, Nexus, Settings
from nexus.errors import ConfigurationError
from tests.support.things import Things, application


def nexus(**options: Any) -> Nexus:
    return Nexus(settings=Settings(), **options)


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"enable_mpc": True}, "enable_mcp"),
        ({"dataflow_confg": {}}, "dataflow_config"),
        ({"dataflow_config": {"integratoin": None}}, "integration"),
        ({"auth_config": {"provider": []}}, "providers"),
        ({"monitoring_config": {"prometeus_enabled": True}}, "prometheus_enabled"),
    ],
)
def test_what_is_misspelt(options: dict[str, Any], near: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{near}'"):
        nexus(**options)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"enable_cli": False}, "program that loads"),
        ({"channels_synced": False}, "one registry"),
        ({"auto_discovery": True}, r"app\.discover"),
        ({"auto_discovery_paths": ["."]}, r"app\.discover"),
        ({"enable_api": 1}, "True or False"),
        ({"api_port": "8000"}, "must be a number"),
        ({"api_port": 70000}, "between 0 and 65535"),
        ({"mcp_port": -1}, "between 0 and 65535"),
        ({"api_port": 3001, "mcp_port": 3001}, "choose another"),
        ({"dataflow_config": {"auto_generate_endpoints": False}}, "channels="),
        ({"dataflow_config": {"auto_generate_cli_commands": False}}, "channels="),
        ({"dataflow_config": {"auto_generate_mcp_tools": False}}, "channels="),
        ({"dataflow_config": {"expose_bulk_operations": False}}, "scopes"),
        ({"dataflow_config": {"expose_analytics": False}}, "scopes"),
        ({"dataflow_config": True}, "must be a dict"),
        ({"auth_config": {"providers": "oauth2"}}, "list of names"),
        ({"auth_config": {"rbac_enabled": "yes"}}, "True or False"),
    ],
)
def test_what_cannot_be_honoured(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        nexus(**options)


def test_what_is_switched_off_is_not_served() -> None:
    made = nexus(enable_api=False, enable_mcp=False, enable_websocket=True, enable_cli=True)
    assert {"rest", "mcp"}.isdisjoint(made.channels)
    assert "websocket" in made.channels


def test_ports() -> None:
    made = nexus(api_port=8123, mcp_port=3001, auto_discovery=False)
    assert (made.settings.port, made.settings.mcp_port) == (8123, 3001)
    assert Settings.from_environment({"NEXUS_MCP_PORT": "3001"}).mcp_port == 3001


def test_the_whole_group_of_a_dataflow() -> None:
    things = Things()
    group = {
        "integration": things,
        "auto_generate_endpoints": True,
        "auto_generate_cli_commands": True,
        "auto_generate_mcp_tools": True,
        "expose_bulk_operations": True,
        "expose_analytics": True,
    }
    for options in ({}, {"dataflow_integration": things}):
        made = nexus(dataflow_config=group, **options)
        assert made.contributors == (things,)
        assert "things.list" in made.registry
    with pytest.raises(ConfigurationError, match="name two"):
        nexus(dataflow_config=group, dataflow_integration=Things())


class TestServing:
    """An application can be made, and used in its own process, that no server can serve yet."""

    @pytest.mark.parametrize(
        ("options", "missing"),
        [
            ({"auth_config": {"providers": ["oauth2", "saml"], "rbac_enabled": True}}, "oauth2.*saml.*roles"),
            ({"auth_config": {"rbac_enabled": True}}, "roles"),
            ({"monitoring_config": {"prometheus_enabled": True}}, "Prometheus"),
            ({"enable_monitoring": True}, "Prometheus"),
            ({"authentication_required": True}, "NEXUS_API_KEY"),
            ({"enable_auth": True}, "NEXUS_API_KEY"),
        ],
    )
    async def test_is_refused_with_what_is_missing(self, options: dict[str, Any], missing: str) -> None:
        made = nexus(dataflow_integration=Things(), **options)
        async with made.running():
            assert await made.runtime.invoke("total", {"numbers": [1, 2]}, LOCAL, channel="cli") == 3
        for serve in (made.asgi, made.serve):
            with pytest.raises(ConfigurationError, match=missing):
                serve()

    @pytest.mark.parametrize(
        "options",
        [
            {"auth_config": {}},
            {"auth_config": {"providers": [], "rbac_enabled": False}},
            {"monitoring_config": {"prometheus_enabled": False, "track_database_metrics": True}},
            {"enable_monitoring": False, "enable_auth": False, "authentication_required": False},
        ],
    )
    def test_what_asks_for_nothing(self, options: dict[str, Any]) -> None:
        nexus(**options).check_servable()

    def test_with_the_key_that_it_needs(self) -> None:
        Nexus(settings=Settings(api_key="k"), authentication_required=True).check_servable()
        application(Things()).check_servable()
