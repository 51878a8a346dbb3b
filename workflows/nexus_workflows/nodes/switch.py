"""SwitchNode: which way a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nexus.call import Call
from nexus.errors import RegistrationError
from nexus.results import Result
from nexus_workflows.errors import NodeFailed
from nexus_workflows.expression import Expression
from nexus_workflows.steps import Given, Gives, Reach, Takes

TRUE, FALSE, DEFAULT = "true_output", "false_output", "default"
PARAMETERS = frozenset({"condition", "value", "cases", "true_path", "false_path"})
_PASSED = ("input", "input_data")


class SwitchStep:
    """By a `condition`, to `true_output` or `false_output`; or by a `value`, to the output of the first of
    its `cases` that is equal, else to `default`. Cases are a list, `["a", "b"]` with the outputs `case_a` and
    `case_b`, or name the outputs: `{"cheap": "small", "dear": ["large", "huge"]}`. What is brought to it is
    passed on by the output that is taken."""

    reach = Reach.NOTHING
    stoppable = False

    def __init__(self, node: str, config: Mapping[str, Any]) -> None:
        self.node = node
        condition, value = config.get("condition"), config.get("value")
        if (condition is None) == (value is None):
            raise RegistrationError(
                f"Node '{node}': a switch needs either 'condition' or 'value' with 'cases'."
            )
        asked: Any = value if condition is None else condition
        self._asked: Expression = asked
        self._cases = None if condition is not None else _cases(node, config.get("cases"))
        routes = {TRUE, FALSE} if self._cases is None else {*self._cases, DEFAULT}
        self.paths = {
            route: str(config[path])
            for route, path in ((TRUE, "true_path"), (FALSE, "false_path"))
            if config.get(path) is not None
        }
        self.takes = Takes(types=dict.fromkeys(self._asked.names, Any), open=True)
        self.gives = Gives(dict.fromkeys([*routes, "value", "taken", "result"], Any), frozenset(routes))

    async def run(self, call: Call, given: Given) -> Any:
        brought = given.arguments
        asked = self._asked.evaluate({**given.inputs, **brought}, given.scope)
        if self._cases is None:
            asked = bool(asked)
            taken = TRUE if asked else FALSE
        else:
            taken = next((name for name, values in self._cases.items() if asked in values), DEFAULT)
        return Result({"taken": taken, "value": asked, taken: _passed(brought)})

    def taken(self, value: Any) -> str:
        """The output that a run of it has taken."""
        if not isinstance(value, dict) or value.get("taken") not in self.gives.routes:
            raise NodeFailed(f"Node '{self.node}' has taken no way.")
        return str(value["taken"])


def _cases(node: str, given: Any) -> dict[str, list[Any]]:
    if isinstance(given, list) and given:
        return {f"case_{value}": [value] for value in given}
    if isinstance(given, dict) and given:
        return {str(name): value if isinstance(value, list) else [value] for name, value in given.items()}
    raise RegistrationError(f"Node '{node}': a switch by value needs 'cases', a list or a dictionary.")


def _passed(brought: Mapping[str, Any]) -> Any:
    for name in _PASSED:
        if name in brought:
            return brought[name]
    return next(iter(brought.values())) if len(brought) == 1 else dict(brought)
