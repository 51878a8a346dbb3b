"""The kernel: operations, the runtime that runs them, the feed of what they changed."""

from nexus.app import Nexus
from nexus.call import Call
from nexus.config import Settings
from nexus.errors import NexusError
from nexus.feed import Change, Feed
from nexus.operation import Effect, Operation, operation
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.runtime import Runtime
from nexus.session import LOCAL, Session, Sessions

__all__ = [
    "LOCAL",
    "Call",
    "Change",
    "Effect",
    "Feed",
    "Nexus",
    "NexusError",
    "Operation",
    "Policy",
    "Registry",
    "Runtime",
    "Session",
    "Sessions",
    "Settings",
    "operation",
]
