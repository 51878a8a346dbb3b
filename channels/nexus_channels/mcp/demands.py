"""What a call of a tool asks beside its arguments, in its `_meta`.

nexus/dry_run        true: do everything, answer, and keep nothing
nexus/max_affected   a number: do nothing where more records would be written
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nexus.demands import Demands
from nexus.errors import InvalidInput, did_you_mean

_PREFIX = "nexus/"
_KNOWN = {f"{_PREFIX}{name}": name for name in ("dry_run", "max_affected")}


def demanded(meta: Mapping[str, Any] | None) -> Demands | None:
    """Raises InvalidInput for what is ours and cannot be understood; others' keys are theirs."""
    asked = {name: value for name, value in (meta or {}).items() if name.startswith(_PREFIX)}
    if not asked:
        return None
    for name in asked:
        if name not in _KNOWN:
            shown = name[:80]
            raise InvalidInput(f"There is no '{shown}' in '_meta'.", remedy=did_you_mean(shown, _KNOWN))
    try:
        return msgspec.convert({_KNOWN[name]: value for name, value in asked.items()}, Demands)
    except msgspec.ValidationError as failure:
        raise InvalidInput(f"'_meta': {str(failure).replace('`', '')}.") from None
