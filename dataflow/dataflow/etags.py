"""The entity tags of records.

That of a versioned record is its version and when it was made, so that a statement can compare it: a record
that was deleted and made again begins to count anew. That of any other is a digest of what it holds. What the
fields of the model are is in both.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any

import msgspec

from dataflow.model import VERSION, Model
from nexus.etag import Match, strong, weak

STATE = (VERSION, "created_at")
"""What the state of a versioned record is known by."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_FORM = re.compile(r'"(\d{1,19})-(-?[0-9a-f]{1,16})-([0-9a-f]{4})"')


class _Counted(msgspec.Struct):
    version: int | None
    created_at: datetime.datetime | None


class Tags:
    """The tags of one model's records."""

    def __init__(self, model: Model) -> None:
        self._record: Any = model.record
        self._fields = list(model.fields)
        self._form = hashlib.blake2b(repr(self._fields).encode(), digest_size=2).hexdigest()
        self._versioned = model.versioned

    def __call__(self, result: Any, encoded: bytes) -> str | None:
        """The tag of a result, given as JSON, too; a weak one where there is more in it than the record."""
        if type(result) is not self._record:
            return self._of_json(encoded)
        if result.id is None:
            return None
        return (self._counted(result) if self._versioned else None) or strong(encoded)

    def _of_json(self, encoded: bytes) -> str | None:
        """Of a record with others beside it, and of one that was written earlier and is told of again."""
        found = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
        if bytes(found["id"]) == b"null":
            return None
        if list(found) != self._fields:
            return weak(encoded)
        counted = self._counted(msgspec.json.decode(encoded, type=_Counted)) if self._versioned else None
        return counted or strong(encoded)

    def of(self, record: Any) -> str:
        """The tag of a record that there is."""
        counted = self._counted(record) if self._versioned else None
        return counted or strong(msgspec.json.encode(record))

    def _counted(self, record: Any) -> str | None:
        """None for what another program has not filled."""
        if record.version is None or record.created_at is None:
            return None
        made = (record.created_at - _EPOCH) // _MICROSECOND
        return f'"{record.version}-{made:x}-{self._form}"'

    def known(self, match: Match | None) -> dict[str, Any] | None:
        """The fields of a versioned record in the one state that is meant; None where that is not to be told
        so."""
        if match is None or match.tags is None or not self._versioned or len(match.tags) > 1:
            return None
        form = _FORM.fullmatch(match.tags[0])
        if form is None or form[3] != self._form or int(form[1]) >= 2**63:
            return None
        try:
            made = _EPOCH + int(form[2], 16) * _MICROSECOND
        except OverflowError:
            return None
        return dict(zip(STATE, (int(form[1]), made), strict=True))
