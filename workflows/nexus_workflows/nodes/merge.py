"""MergeNode: where ways come together again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nexus.call import Call
from nexus.errors import RegistrationError, did_you_mean
from nexus.results import Result
from nexus_workflows.care import PARAMETERS as CARE
from nexus_workflows.errors import NodeFailed
from nexus_workflows.steps import Given, Gives, Reach, Takes

PARAMETERS = frozenset({"mode", "pages"})
MODES = ("collect", "concat", "first", "merge")


class MergeStep:
    """Runs when at least one of the ways to it was taken. `mode` says what `result` is: `collect`, what came
    by the names of the inputs; `first`, the first of them; `concat`, lists one after the other; `merge`, one
    dictionary of all, where later ones win. With `pages` it comes behind a stream, runs once after its last
    page, and each input is brought a list, of what came with every page."""

    reach = Reach.NOTHING
    stoppable = False
    takes = Takes(open=True)
    gives = Gives({"result": Any})

    def __init__(self, node: str, config: Mapping[str, Any]) -> None:
        self.node = node
        self.mode = config.get("mode", "collect")
        if self.mode not in MODES:
            raise RegistrationError(
                f"Node '{node}': there is no mode '{self.mode}'.", remedy=did_you_mean(str(self.mode), MODES)
            )
        self.pages = config.get("pages", False)
        if not isinstance(self.pages, bool):
            raise RegistrationError(f"Node '{node}': 'pages' is True or False.")
        if self.pages and (others := sorted(config.keys() - PARAMETERS - CARE)):
            raise RegistrationError(
                f"Node '{node}' gathers pages, and the parameter '{others[0]}' belongs to none.",
                remedy="Bring it to a node behind.",
            )

    async def run(self, call: Call, given: Given) -> Any:
        came = given.arguments
        parts = [(name, part) for name, value in came.items() for part in (value if self.pages else [value])]
        values = [part for _, part in parts]
        match self.mode:
            case "first":
                return Result(result=values[0] if values else None)
            case "concat":
                self._check(parts, list)
                return Result(result=[item for value in values for item in value])
            case "merge":
                self._check(parts, dict)
                return Result(result={key: item for value in values for key, item in value.items()})
        return Result(result=dict(came))

    def _check(self, parts: Iterable[tuple[str, Any]], kind: type) -> None:
        for name, value in parts:
            if not isinstance(value, kind):
                wanted = "a list" if kind is list else "a dictionary"
                raise NodeFailed(f"Node '{self.node}': '{name}' is not {wanted}, which '{self.mode}' needs.")
