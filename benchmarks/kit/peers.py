"""Which other frameworks are installed: a peer that is not is reported, and does not fail anything."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from benchmarks.kit.processes import ROOT

INCUMBENT = "kailash"
_OWN_PYTHON = ROOT / ".venv-incumbent" / "bin" / "python"


class NotInstalled(Exception):
    """What to be compared with is missing."""


def python_of(candidate: str) -> str | Path:
    """The interpreter that runs a candidate. Raises NotInstalled where its environment is missing."""
    if candidate != INCUMBENT:
        return sys.executable
    if not _OWN_PYTHON.exists():
        raise NotInstalled("not installed here")
    return _OWN_PYTHON


def check_installed(*packages: str) -> None:
    """Raises NotInstalled for what is not installed in this environment."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise NotInstalled("not installed here")
