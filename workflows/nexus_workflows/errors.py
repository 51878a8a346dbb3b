"""What can go wrong in a workflow, beyond what its operations raise."""

from __future__ import annotations

from nexus.errors import InvalidArguments, NexusError, RegistrationError

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


class InvalidConnection(RegistrationError):
    """A connection that leads nowhere, or to something of another type."""

    code = "DF-201"
    title = "Invalid connection"


class InvalidParameter(RegistrationError):
    """A parameter of a node: `code` is DF-101 where it is missing, DF-102 where it is of another type, DF-106
    where there is none of that name."""

    title = "Invalid parameter"

    MISSING = InvalidArguments.MISSING
    TYPE = InvalidArguments.TYPE
    UNKNOWN = InvalidArguments.UNKNOWN

    def __init__(self, code: str, detail: str, *, remedy: str = "") -> None:
        super().__init__(detail, remedy=remedy)
        self.code = code


def told(failure: BaseException) -> str:
    """The kind and the message of an exception, whatever its `__str__` does, and not too long."""
    try:
        message = str(failure)
    except Exception as second:  # a foreign exception's __str__ is a program of its own
        message = f"its message cannot be read, {type(second).__name__}"
    if len(message) > _SHOWN:
        message = message[:_SHOWN] + "…"
    return f"{type(failure).__name__}: {message}" if message else type(failure).__name__
