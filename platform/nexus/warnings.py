"""What is said to programmers in process, as Python warnings: each once for the line that caused it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

_SHELVES = ("nexus", "dataflow", "nexus_workflows", "nexus_channels")
_PYTHON = str(Path(warnings.__file__).parent)


class AutoManagedField(UserWarning):
    """DF-103: a value for a field that the platform fills itself was given, and dropped."""


def warn_managed(owner: str, names: Iterable[str]) -> None:
    """Say that values for `names` were dropped."""
    shown = ", ".join(f"'{name}'" for name in sorted(names))
    warn_caller(f"DF-103: {owner} fills {shown} itself; what was given is dropped.", AutoManagedField)


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the nearest line that is neither ours nor Python's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", ""), frame.f_code):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_inside(module: str, code: object) -> bool:
    if module.partition(".")[0] in _SHELVES:
        return True
    filename: str = getattr(code, "co_filename", "")
    return filename.startswith(("<", _PYTHON)) and "site-packages" not in filename
