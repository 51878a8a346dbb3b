"""The description of the REST channel as OpenAPI 3.1, made of the operations in the registry."""

from nexus_channels.openapi.document import Described, describe

__all__ = ["Described", "describe"]
