"""Finding and loading the application that a program is to work with."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from nexus import Nexus, NexusError
from nexus.errors import ConfigurationError, did_you_mean
from nexus_channels.cli.program import SEE_TRACEBACK

_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<name>[^:/\\]+))?")
_FORMS = "Give --app 'module:name', 'path.py' or 'path.py:name', or set NEXUS_APP."


def load_application(reference: str) -> Nexus:
    """The Nexus instance that `module:name`, `path.py` or `path.py:name` means.

    Without a name it is the only instance in the module, or the one called `app`. What the module prints
    while it is loaded goes to stderr: stdout is for results.

    Raises ConfigurationError when the reference leads nowhere, and NexusError for a module that fails.
    """
    in_file = _FILE.fullmatch(reference)
    if in_file is not None:
        return _choose(_load_file(Path(in_file["path"])), in_file["name"] or "", reference)
    module, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ConfigurationError(f"'{reference}' does not name an application.", remedy=_FORMS)
    return _choose(_load_module(module), name, reference)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(f"There is no application at '{path}'.", remedy=_FORMS)
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    # Under its own name where that is free, so that modules beside it can import it.
    name = path.stem if _is_free(path.stem) else f"nexus_application_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"'{path}' cannot be loaded as Python.", remedy=_FORMS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _explained(str(path)):
        spec.loader.exec_module(module)
    return module


def _is_free(name: str) -> bool:
    return name not in sys.modules and name not in sys.stdlib_module_names


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        with _explained(name):
            return importlib.import_module(name)
    except NexusError as failure:
        cause = failure.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(cause.name + "."):
            raise ConfigurationError(
                f"There is no module '{cause.name}' here to load the application from.", remedy=_FORMS
            ) from None
        raise


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Whatever a module raises, as one error that says where; errors of the platform as they are."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except NexusError:
        raise
    except Exception as failure:
        reason = f"{type(failure).__name__}: {failure}"
        frames = [
            frame for frame in traceback.extract_tb(failure.__traceback__) if _is_foreign(frame.filename)
        ]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise NexusError(
            f"The application '{source}' cannot be loaded: {reason}{where}.",
            remedy=SEE_TRACEBACK,
        ) from failure


def _is_foreign(filename: str) -> bool:
    return not filename.startswith("<frozen") and filename != __file__


def _choose(module: ModuleType, name: str, reference: str) -> Nexus:
    if name:
        return _named(module, name, reference)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Nexus)}
    if not found:
        raise ConfigurationError(
            f"'{reference}' holds no application.", remedy="Make one in it: app = Nexus(…)."
        )
    if len({id(value) for value in found.values()}) == 1:
        return next(iter(found.values()))
    if "app" in found:
        return found["app"]
    raise ConfigurationError(
        f"'{reference}' holds several applications: {', '.join(found)}.",
        remedy=f"Say which, as in '{reference}:{next(iter(found))}'.",
    )


def _named(module: ModuleType, name: str, reference: str) -> Nexus:
    known = [key for key, value in vars(module).items() if isinstance(value, Nexus)]
    value = vars(module).get(name)
    if isinstance(value, Nexus):
        return value
    problem = "is not a Nexus" if name in vars(module) else "does not exist"
    raise ConfigurationError(f"'{reference}': '{name}' {problem}.", remedy=did_you_mean(name, known))
