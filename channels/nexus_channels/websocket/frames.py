"""The frames of the subprotocol `nexus.v1`: JSON objects, told apart by their `type`.

client    subscribe unsubscribe call ping
server    snapshot ready change resnapshot closing result pong error
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec

from nexus.arguments import UNREADABLE, Arguments, malformed
from nexus.demands import NONE, Demands, Noted
from nexus.errors import InvalidInput, NexusError, did_you_mean
from nexus.feed import Change
from nexus.operation import Operation
from nexus.ports import Record

PROTOCOL = "nexus.v1"

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Fields: TypeAlias = Sequence[str] | None
"""The fields that a subscriber wants of each record; None for all."""


class _Frame(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    pass


class Subscribe(_Frame, tag="subscribe"):
    """Follow the records of a topic that match `filter`, from now, from a snapshot, or from the cursor
    `since`."""

    id: Id
    topic: str
    filter: Any = None
    fields: list[str] | None = None
    snapshot: bool = False
    since: str | None = None


class Unsubscribe(_Frame, tag="unsubscribe"):
    id: Id


class Call(_Frame, tag="call"):
    """Run an operation, by any of its spellings. With an `idempotency_key`, what is repeated is done once;
    in the `background`, the answer is where the run of a workflow can be looked at. With `if_match`, a record
    is changed only in the state that this tag says. A `dry_run` answers as if it were done, and keeps
    nothing; where more than `max_affected` records would be written, none is."""

    id: Id
    operation: str
    arguments: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    idempotency_key: str | None = None
    background: bool = False
    dry_run: bool = False
    max_affected: Annotated[int, msgspec.Meta(ge=0)] | None = None
    if_match: str | None = None


class Ping(_Frame, tag="ping"):
    pass


class _Identified(msgspec.Struct):
    id: Id


Frame: TypeAlias = Subscribe | Unsubscribe | Call | Ping

_decode: Callable[[bytes], Frame] = msgspec.json.Decoder(Frame).decode
_identify = msgspec.json.Decoder(_Identified).decode
_encode = msgspec.json.Encoder().encode
_MOST_SENT = 100
_sent: dict[tuple[int, str, tuple[str, ...] | None], tuple[Change, str]] = {}
CLIENT: dict[str, type[msgspec.Struct]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "call": Call,
    "ping": Ping,
}
"""What a client may send."""
_KINDS = {name: Arguments(name, frame) for name, frame in CLIENT.items()}


def read(data: bytes) -> Frame:
    """Raises InvalidInput, naming everything that is wrong with the frame."""
    try:
        return _decode(data)
    except msgspec.ValidationError:
        raise _explain(data) from None
    except UNREADABLE as failure:
        raise malformed(failure, of="The frame") from None


def identity(data: bytes) -> str | None:
    """The id in a frame that may be anything."""
    try:
        return _identify(data).id
    except UNREADABLE:
        return None


def demands(frame: Call) -> Demands | None:
    asked = Demands(
        key=frame.idempotency_key,
        background=frame.background,
        if_match=frame.if_match,
        dry_run=frame.dry_run,
        max_affected=frame.max_affected,
    )
    return None if asked == NONE else asked


def beside(noted: Noted) -> dict[str, object]:
    """What an answer says beside itself."""
    return {"replayed": True} if noted.replayed else {}


def result(identifier: str, operation: Operation, given: object, noted: Noted) -> str:
    """With the tag of the record that it is, where it is one."""
    encoded = _encode(given)
    tag = None if operation.tag is None else operation.tag(given, encoded)
    frame: dict[str, object] = {"type": "result", "id": identifier, "result": msgspec.Raw(encoded)}
    return text({**frame, **({} if tag is None else {"etag": tag}), **beside(noted)})


def change(identifier: str, happened: Change, fields: Fields) -> str:
    """The same text for all who are sent the same, which a feed to many mostly is."""
    sent = (id(happened), identifier, None if fields is None else tuple(fields))
    known = _sent.get(sent)
    if known is None or known[0] is not happened:
        if len(_sent) >= _MOST_SENT:
            _sent.clear()
        known = _sent[sent] = (happened, _change(identifier, happened, fields))
    return known[1]


def _change(identifier: str, happened: Change, fields: Fields) -> str:
    return text(
        {
            "type": "change",
            "id": identifier,
            "event": happened.event,
            "key": happened.key,
            "record": narrowed(happened.record, fields),
            "old": narrowed(happened.old, fields),
            "prev": happened.prev,
            "pos": happened.pos,
            "cursor": happened.cursor,
            "actor": happened.actor,
            "run": happened.run,
            "request": happened.request,
            "txn": happened.txn,
            "at": happened.at,
        }
    )


def error(failure: NexusError, identifier: str | None, **more: object) -> str:
    named = {} if identifier is None else {"id": identifier}
    return text({"type": "error", **named, **failure.describe(), **more})


def narrowed(record: Record | None, fields: Fields) -> Record | None:
    """The part of a record that a subscriber asked for."""
    if record is None or fields is None:
        return record
    return {name: record[name] for name in fields if name in record}


def text(frame: dict[str, object]) -> str:
    return _encode(frame).decode()


def _explain(data: bytes) -> InvalidInput:
    try:
        given = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return InvalidInput("A frame must be a JSON object.")
    except UNREADABLE as failure:
        return malformed(failure, of="The frame")
    if "type" not in given:
        return InvalidInput("The frame has no 'type'.", remedy=f"Known: {', '.join(_KINDS)}.")
    kind = msgspec.json.decode(given.pop("type"))
    if kind not in _KINDS if isinstance(kind, str) else True:
        shown = str(kind)[:80]
        return InvalidInput(f"There is no frame of the type '{shown}'.", remedy=did_you_mean(shown, _KINDS))
    try:
        _KINDS[kind].accept(msgspec.json.encode(given))
    except InvalidInput as failure:
        return failure
    return InvalidInput("The frame cannot be understood.")
