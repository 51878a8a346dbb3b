"""The names under which older programs import what is here.

`import nexus_workflows.kailash` makes `kailash.…` and `kailash_dataflow` importable;
`python -m nexus_workflows.kailash script.py` runs a program that imports only those. Where the real package
is installed, its names are its own.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType

_MODULES: dict[str, dict[str, str]] = {
    "kailash": {},
    "kailash.nodes": {},
    "kailash.nodes.base": {
        "Node": "nexus_workflows.nodes.base:Node",
        "NodeParameter": "nexus_workflows.nodes.base:NodeParameter",
        "register_node": "nexus_workflows.nodes.base:register_node",
    },
    "kailash.runtime": {
        "AsyncLocalRuntime": "nexus_workflows:AsyncLocalRuntime",
        "ExecutionContext": "nexus_workflows:ExecutionContext",
        "LocalRuntime": "nexus_workflows:LocalRuntime",
    },
    "kailash.runtime.async_local": {
        "AsyncLocalRuntime": "nexus_workflows:AsyncLocalRuntime",
        "ExecutionContext": "nexus_workflows:ExecutionContext",
    },
    "kailash.runtime.local": {"LocalRuntime": "nexus_workflows:LocalRuntime"},
    "kailash.servers": {},
    "kailash.servers.gateway": {"create_gateway": "nexus_workflows.gateway:create_gateway"},
    "kailash.workflow": {
        "Workflow": "nexus_workflows:Workflow",
        "WorkflowBuilder": "nexus_workflows:WorkflowBuilder",
    },
    "kailash.workflow.builder": {"WorkflowBuilder": "nexus_workflows:WorkflowBuilder"},
    "kailash.workflows": {"Workflow": "nexus_workflows:Workflow"},
    "kailash.workflows.workflow": {"Workflow": "nexus_workflows:Workflow"},
    "kailash_dataflow": {"DataFlow": "dataflow:DataFlow"},
}


class Names(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds those modules after everyone else has looked, and fills them with what they stand for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        package = any(name.startswith(f"{fullname}.") for name in _MODULES)
        return importlib.util.spec_from_loader(fullname, self, is_package=package)

    def exec_module(self, module: ModuleType) -> None:
        for name, dotted in _MODULES[module.__name__].items():
            where, _, what = dotted.partition(":")
            setattr(module, name, getattr(importlib.import_module(where), what))


def install() -> None:
    """Make the names importable, once."""
    if not any(isinstance(finder, Names) for finder in sys.meta_path):
        sys.meta_path.append(Names())


def main(arguments: Sequence[str]) -> int:
    """Run a program as Python would. Exits with 2 where none is named."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m nexus_workflows.kailash script.py [argument …]", file=sys.stderr)
        return 2
    sys.argv[:] = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


install()

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
