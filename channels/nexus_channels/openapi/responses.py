"""What may be answered, and what is answered when something is wrong."""

from __future__ import annotations

from typing import Any

from nexus.operation import Effect, Operation
from nexus_channels.openapi.components import JsonSchema
from nexus_channels.openapi.conditions import ETAG

JSON = "application/json"
PROBLEM = "application/problem+json"

PROBLEM_SCHEMA: JsonSchema = {
    "type": "object",
    "description": "What is wrong (RFC 9457)",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "urn:nexus:error: and the code"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"type": "string", "description": "The same on every channel; docs/errors.md lists them"},
        "detail": {"type": "string", "description": "What is wrong, with its name"},
        "remedy": {"type": "string", "description": "What to do about it"},
        "node": {"type": "string", "description": "In a workflow: where it happened"},
        "etag": {"type": "string", "description": "Of a record in another state than If-Match says: its tag"},
        "errors": {
            "type": "array",
            "description": "Each thing that is wrong with the arguments",
            "items": {
                "type": "object",
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON Pointer into the arguments"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
                "required": ["pointer", "detail", "code"],
            },
        },
    },
    "required": ["type", "title", "status", "code", "detail"],
}

_PROBLEMS: dict[int, tuple[str, str, str, str]] = {
    400: ("Malformed", "NX-400", "Malformed input", "It cannot be read: it is not JSON, or not UTF-8."),
    401: ("Unauthenticated", "NX-401", "Not authenticated", "A credential is needed, or was not recognised."),
    403: ("Forbidden", "NX-403", "Forbidden", "The session may not do this."),
    404: ("NotFound", "DF-404", "Not found", "There is no such record."),
    406: ("NotAcceptable", "NX-406", "Not acceptable", "There is no answer in a form that is accepted."),
    408: ("SlowRequest", "NX-408", "Request timeout", "The request did not come whole in time."),
    409: (
        "Conflict",
        "NX-409",
        "Conflict",
        "A unique value, a reference or a version is in the way, or a key.",
    ),
    412: (
        "PreconditionFailed",
        "NX-412",
        "Precondition failed",
        "It is in another state than If-Match says.",
    ),
    413: ("TooLarge", "NX-413", "Too large", "It is over the limit for one request."),
    415: ("UnsupportedMedia", "NX-415", "Unsupported media type", "The body is not of a form that is read."),
    422: ("InvalidArguments", "DF-102", "Invalid arguments", "It can be read and cannot be meant."),
    428: ("ConfirmationRequired", "NX-428", "Confirmation required", "It says what would be done first."),
    429: ("RateLimited", "NX-430", "Too many requests", "The session has asked for more than it may."),
    431: ("HeadersTooLarge", "NX-431", "Header fields too large", "They are more than the server reads."),
    503: ("Unavailable", "NX-503", "Unavailable", "Something is busy or gone; trying again may help."),
    504: ("TimedOut", "NX-504", "Timed out", "It took longer than it may; nothing of it was kept."),
}
_ASKS_MATCH = ("PreconditionRequired", "NX-427", "Precondition required", "It must come with If-Match.")
_OTHER = "Failed"


def shared_responses() -> JsonSchema:
    """The responses that are referred to, by name."""
    made = {
        name: _problem(description, {"status": status, "code": code, "title": title})
        for status, (name, code, title, description) in [*_PROBLEMS.items(), (428, _ASKS_MATCH)]
    }
    for name in ("Unavailable", "RateLimited"):
        made[name]["headers"] = {
            "Retry-After": {"description": "In so many seconds", "schema": {"type": "integer"}}
        }
    made["PreconditionFailed"]["headers"] = ETAG
    made[_OTHER] = _problem("Another failure.", {"status": 500, "code": "NX-500", "title": "Internal error"})
    return made


def _problem(description: str, about: dict[str, Any]) -> JsonSchema:
    example = {"type": f"urn:nexus:error:{about['code']}", **about, "detail": description}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {PROBLEM: {"schema": schema, "example": example}}}


def refusals(operation: Operation, *, locked: bool, body: bool) -> JsonSchema:
    """The problems that an operation may answer with; `locked`: a credential is needed."""
    statuses = {400, 406, 422, 503}
    if locked:
        statuses |= {401, 403}
    if operation.on_record or operation.effect is Effect.RUN:
        statuses.add(404)
    if operation.effect is not Effect.READ:
        statuses.add(409)
    if "confirmed" in operation.arguments.fields:
        statuses |= {404, 428}
    if body:
        statuses |= {413, 415}
    if operation.matches:
        statuses.add(412)
    found = problems(*sorted(statuses))
    if operation.asks_match is not None:
        found.setdefault("428", {"$ref": f"#/components/responses/{_ASKS_MATCH[0]}"})
    return found


def problems(*statuses: int) -> JsonSchema:
    """References to them, and to the one for all others."""
    named = {str(status): _PROBLEMS[status][0] for status in statuses} | {"default": _OTHER}
    return {status: {"$ref": f"#/components/responses/{name}"} for status, name in named.items()}
