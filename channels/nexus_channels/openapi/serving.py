"""What an application's document is made of."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nexus import plugins
from nexus.app import Nexus
from nexus_channels.openapi.around import Limits
from nexus_channels.openapi.document import Described

_REST = "rest"


def described(app: Nexus) -> Described:
    prefix = plugins.load_channel(_REST).path if _REST in app.channels else None
    return Described(
        app.registry,
        title=app.title,
        version=release(),
        locked=not app.sessions.open,
        prefix=prefix,
        limits=Limits.of(app.settings),
    )


def release() -> str:
    """Empty when it is run from a source tree that was never installed."""
    try:
        return version("nexus-platform")
    except PackageNotFoundError:
        return ""
