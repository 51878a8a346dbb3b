"""Workflows in the files of a folder, for applications that ask for it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from nexus.errors import RegistrationError
from nexus.ports import Runnable

_PATTERNS = ("workflows/*.py", "*_workflow.py")


def discovered(folder: Path) -> dict[str, Runnable]:
    """What becomes an operation, by the names of the variables at the top of each file. Names that begin with
    an underscore are left out, and so are those that a file has imported.

    Raises RegistrationError for a folder that is not there, a file that fails, and a name that is there
    twice."""
    if not folder.is_dir():
        raise RegistrationError(f"There is no folder '{folder}' to look for workflows in.")
    found: dict[str, Runnable] = {}
    origins: dict[int, Path] = {}
    for path in sorted(each for pattern in _PATTERNS for each in folder.glob(pattern)):
        if path.name.startswith("_"):
            continue
        for name, value in vars(_load(path)).items():
            if (
                name.startswith("_")
                or isinstance(value, type)
                or not callable(getattr(value, "as_operation", None))
            ):
                continue
            if origins.setdefault(id(value), path) != path:
                continue
            if name in found:
                raise RegistrationError(f"'{path}': there is a workflow '{name}' in another file, too.")
            found[name] = value
    return found


def _load(path: Path) -> ModuleType:
    name = f"nexus_discovered_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistrationError(f"'{path}' cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as failure:
        del sys.modules[name]
        raise RegistrationError(
            f"'{path}' cannot be loaded: {type(failure).__name__}: {failure}"
        ) from failure
    return module
