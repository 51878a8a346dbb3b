"""What can go wrong in a workflow, beyond what its operations raise."""

from __future__ import annotations

from nexus.errors import NexusError

_SHOWN = 300


class MissingValue(NexusError):
    """A template or a connection asks for an output that the node did not give."""

    code = "DF-802"
    title = "Missing value"
    status = 422
    exit_code = 2

    def __init__(self, path: str, hint: str) -> None:
        super().__init__(f"There is no value '{path}'.", remedy=hint)


class NodeFailed(NexusError):
    """Code that belongs to a workflow has raised, or has given what cannot be a result."""

    code = "DF-803"
    title = "Node failed"


def told(failure: BaseException) -> str:
    """The kind and the message of an exception, whatever its `__str__` does, and not too long."""
    try:
        message = str(failure)
    except Exception as second:  # a foreign exception's __str__ is a program of its own
        message = f"its message cannot be read, {type(second).__name__}"
    if len(message) > _SHOWN:
        message = message[:_SHOWN] + "…"
    return f"{type(failure).__name__}: {message}" if message else type(failure).__name__
