"""Which other frameworks are installed: a peer that is not is reported, and does not fail anything."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from benchmarks.kit.processes import ROOT

INCUMBENT = "kailash"
_OWN_PYTHON = ROOT / ".venv-incumbent" / "bin" / "python"
_NOT_HERE = "not installed here"


def python_of(candidate: str) -> str | Path:
    """The interpreter that runs a candidate. Raises FileNotFoundError where its environment is missing."""
    if candidate != INCUMBENT:
        return sys.executable
    if not _OWN_PYTHON.exists():
        raise FileNotFoundError(_NOT_HERE)
    return _OWN_PYTHON


def check_installed(*packages: str) -> None:
    """Raises FileNotFoundError for what is not installed in this environment."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise FileNotFoundError(_NOT_HERE)
