"""The entity tags of records.

That of a versioned record is its version and when it was made, so that a statement can compare it: a record
that was deleted and made again begins to count anew. That of any other is a digest of what it holds. What the
fields of the model are is in both.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dataflow.model import VERSION, Model
from nexus.etag import Match, strong, weak

STATE = (VERSION, "created_at")
"""What the state of a versioned record is known by."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
_FORM = re.compile(r'"(\d{1,19})-(-?[0-9a-f]{1,16})-([0-9a-f]{4})"')


class Tags:
    """The tags of one model's records."""

    def __init__(self, model: Model) -> None:
        self._fields = hashlib.blake2b(repr(list(model.fields)).encode(), digest_size=2).hexdigest()
        self._versioned = model.versioned

    def __call__(self, result: Any, encoded: bytes) -> str | None:
        """The tag of a result, given as JSON, too; a weak one where there is more in it than the record."""
        if isinstance(result, Mapping):
            return None if result["id"] is None else weak(encoded)
        return None if result.id is None else self._counted(result) or strong(encoded)

    def of(self, record: Any) -> str:
        """The tag of a record that there is."""
        return self._counted(record) or strong(msgspec.json.encode(record))

    def _counted(self, record: Any) -> str | None:
        if not self._versioned or record.version is None or record.created_at is None:
            return None
        made = (record.created_at - _EPOCH) // _MICROSECOND
        return f'"{record.version}-{made:x}-{self._fields}"'

    def known(self, match: Match | None) -> dict[str, Any] | None:
        """The fields of a versioned record in the one state that is meant; None where that is not to be told
        so."""
        if match is None or match.tags is None or not self._versioned or len(match.tags) > 1:
            return None
        form = _FORM.fullmatch(match.tags[0])
        if form is None or form[3] != self._fields or int(form[1]) >= 2**63:
            return None
        try:
            made = _EPOCH + int(form[2], 16) * _MICROSECOND
        except OverflowError:
            return None
        return dict(zip(STATE, (int(form[1]), made), strict=True))
