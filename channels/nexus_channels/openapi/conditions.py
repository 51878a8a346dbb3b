"""Entity tags: what answers carry, and what requests may ask by them (RFC 9110, 13)."""

from __future__ import annotations

from nexus_channels.openapi.components import JsonSchema

ETAG: JsonSchema = {
    "ETag": {
        "description": "The state of the record that is answered with",
        "schema": {"type": "string", "pattern": '^(W/)?"[!#-~]*"$'},
    }
}
NOT_MODIFIED: JsonSchema = {"description": "It is as the client has it already.", "headers": ETAG}

_TAG = '(W/)?"[!#-~\\u0080-\\u00ff]*"'
_TAGS: JsonSchema = {
    "type": "string",
    "pattern": rf"^(\*|[A-Za-z0-9._-]+|[ \t,]*{_TAG}[ \t]*(,[ \t]*({_TAG}[ \t]*)?)*)$",
}
PARAMETERS: JsonSchema = {
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "Only if the record is still in a state with one of these tags; * for any state",
        "schema": _TAGS,
        "example": "*",
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "Only if the record is in another state than one with these tags; else 304",
        "schema": _TAGS,
        "example": '"0"',
    },
}
