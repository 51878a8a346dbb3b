"""What the websocket speaks, as an AsyncAPI 3 document, made from the registry as it is at the moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nexus.app import Nexus
from nexus.schema import json_schema
from nexus_channels.websocket import frames

VERSION = "3.0.0"

_TEXT: dict[str, Any] = {"type": "string"}
_ID: dict[str, Any] = {
    **_TEXT,
    "minLength": 1,
    "maxLength": 100,
    "description": "The subscription's or call's.",
}
_POSITION: dict[str, Any] = {"type": "integer", "minimum": 0}
_CURSOR: dict[str, Any] = {**_TEXT, "description": "Resumes exactly after what has come: as `since`."}
_ETAG: dict[str, Any] = {**_TEXT, "description": "The record's tag: for `if_match`, when it is changed."}
_REPLAYED: dict[str, Any] = {
    "type": "boolean",
    "description": "The answer is that of the first call with this `idempotency_key`: nothing was done.",
}
_CHANNEL = "#/channels/websocket"


def describe(app: Nexus, release: str, address: str) -> dict[str, object]:
    """The document: its messages are the frames, each topic having changes and snapshots of its own."""
    topics = app.feed.topics()
    received = {name: _client(frame, app, topics) for name, frame in frames.CLIENT.items()}
    sent = _server(app, topics)
    return {
        "asyncapi": VERSION,
        "info": {"title": app.title, "version": release or "0"},
        "defaultContentType": "application/json",
        "channels": {
            "websocket": {
                "address": address,
                "description": f"One JSON object a frame; subprotocol {frames.PROTOCOL}.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*received, *sent)},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "receive": _operation("receive", received),
            "send": _operation("send", sent),
        },
        "components": {"messages": {**received, **sent}},
    }


def _operation(action: str, messages: Iterable[str]) -> dict[str, object]:
    listed = [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in messages]
    return {"action": action, "channel": {"$ref": _CHANNEL}, "messages": listed}


def _client(frame: type[msgspec.Struct], app: Nexus, topics: list[str]) -> dict[str, object]:
    """What a client sends; `type` comes from the frame's tag."""
    schema = json_schema(frame)
    properties = schema["properties"]
    if "topic" in properties:
        properties["topic"] = {**_TEXT, "enum": topics}
    if "operation" in properties:
        names = [operation.name for operation in app.registry.public()]
        properties["operation"] = {**_TEXT, "enum": names, "description": "By any of its spellings."}
        properties["arguments"] = {"type": "object", "default": {}}
    return {"payload": schema}


def _server(app: Nexus, topics: list[str]) -> dict[str, dict[str, object]]:
    made: dict[str, dict[str, object]] = {}
    for topic in topics:
        record = _record(app, topic)
        made[f"snapshot.{topic}"] = _message(
            "snapshot",
            {"id": _ID, "records": {"type": "array", "items": record}, "more": {"type": "boolean"}},
        )
        made[f"change.{topic}"] = _message("change", _change(record))
    made["ready"] = _message("ready", {"id": _ID, "cursor": _CURSOR})
    made["resnapshot"] = _message("resnapshot", {"id": _ID, "reason": _TEXT})
    made["closing"] = _message("closing", {"id": _ID, "cursor": _CURSOR}, optional=("cursor",))
    made["result"] = _message(
        "result",
        {"id": _ID, "result": {}, "etag": _ETAG, "replayed": _REPLAYED},
        optional=("etag", "replayed"),
    )
    made["pong"] = _message("pong", {})
    problem = {
        "id": _ID,
        "code": _TEXT,
        "title": _TEXT,
        "detail": _TEXT,
        "remedy": _TEXT,
        "errors": {"type": "array"},
        "etag": {
            **_TEXT,
            "description": "Of a record in another state than `if_match` says: what it has now.",
        },
        "replayed": _REPLAYED,
        "cursor": _CURSOR,
    }
    made["error"] = _message(
        "error", problem, optional=("id", "remedy", "errors", "etag", "replayed", "cursor")
    )
    return made


def _change(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` is null when the record leaves, `old` when it enters, both when the right to see it goes."""
    known = {"anyOf": [record, {"type": "null"}]}
    named = {"type": ["string", "null"]}
    return {
        "id": _ID,
        "event": {"enum": ["enter", "update", "leave"]},
        "key": {"type": ["string", "integer"]},
        "record": known,
        "old": known,
        "prev": {**_POSITION, "description": "The position of the change sent before."},
        "pos": _POSITION,
        "cursor": _CURSOR,
        "actor": named,
        "run": named,
        "request": named,
        "txn": {
            **named,
            "description": "The same in all changes of one transaction, which come one after the other; "
            "null where the log does not know it.",
        },
        "at": _TEXT,
    }


def _message(
    kind: str, properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()
) -> dict[str, object]:
    required = ["type", *(name for name in properties if name not in optional)]
    whole = {"type": {"const": kind}, **properties}
    return {"name": kind, "payload": {"type": "object", "properties": whole, "required": required}}


def _record(app: Nexus, topic: str) -> dict[str, Any]:
    """As reading one gives it; a subscriber may ask for some of the fields."""
    reading = app.registry.verbs(topic).get("get")
    fields = app.feed.source(topic).fields(topic)
    if reading is None or reading.output is Any:
        return {"type": "object", "properties": {name: {} for name in fields}}
    schema = json_schema(reading.output)
    schema.pop("required", None)
    return schema
