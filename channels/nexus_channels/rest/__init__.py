"""REST: resources and their verbs as addresses and methods, workflows to be executed."""

from nexus_channels.rest.channel import RestChannel

__all__ = ["RestChannel"]
