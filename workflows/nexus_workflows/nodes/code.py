"""PythonCodeNode and AsyncPythonCodeNode: a piece of Python in a workflow.

The code is compiled once. It runs with the rights of the process: it is for authors who are trusted, and no
channel offers it.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import datetime
import json
import logging
import math
import os
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

from nexus.call import Call
from nexus.errors import NexusError, RegistrationError
from nexus.results import Result, plain
from nexus_workflows.errors import NodeFailed, told
from nexus_workflows.nodes.awaiting import BLOCKED, Watched, blocked
from nexus_workflows.nodes.reading import Reading
from nexus_workflows.steps import Given, Gives, Reach, Takes
from nexus_workflows.values import Prepared

logger = logging.getLogger("nexus.workflows")

RESULTS = ("result", "output_data")
_MERGED = ("input", "input_data")


class AwareDatetime(datetime.datetime):
    """A datetime whose `now()` knows its time zone, as those that come from a database do."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.now(tz or datetime.UTC)


PRESET: dict[str, Any] = {
    "date": datetime.date,
    "datetime": AwareDatetime,
    "json": json,
    "math": math,
    "os": os,
    "re": re,
    "timedelta": datetime.timedelta,
    "timezone": datetime.timezone,
}
_GIVEN = frozenset({"input_data", "get_input_data", "__builtins__", "__name__"})


class Code(Prepared):
    """Code, compiled. `reading` is what it reads and assigns."""

    def __init__(
        self, source: str, compiled: types.CodeType, reading: Reading, *, asynchronous: bool
    ) -> None:
        self.source = source
        self.compiled = compiled
        self.filename = compiled.co_filename
        self.reading = reading
        self.asynchronous = asynchronous

    def __repr__(self) -> str:
        return f"Code({self.source!r})"


def compile_code(node: str, source: object, *, asynchronous: bool) -> Code:
    """Raises RegistrationError for what is not Python, with the line."""
    if not isinstance(source, str) or not source.strip():
        raise RegistrationError(f"Node '{node}': the code must be a text.")
    filename = f"<node '{node}'>"
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if asynchronous else 0
    try:
        tree: ast.Module = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        compiled: types.CodeType = compile(tree, filename, "exec", flags, dont_inherit=True)
    except SyntaxError as failure:
        line = f", line {failure.lineno}: {(failure.text or '').strip()[:80]}" if failure.lineno else ""
        remedy = "" if asynchronous or "await" not in source else "An AsyncPythonCodeNode may await."
        raise RegistrationError(
            f"Node '{node}': the code is not Python: {failure.msg}{line}.", remedy=remedy
        ) from None
    except (ValueError, RecursionError, MemoryError) as failure:
        raise RegistrationError(f"Node '{node}': the code cannot be compiled: {told(failure)}.") from None
    reading = Reading.of(tree, known=frozenset(dir(builtins)) | PRESET.keys() | _GIVEN)
    return Code(source, compiled, reading, asynchronous=asynchronous)


class CodeStep:
    """Runs code with what it is given as variables, and gives what it has assigned."""

    def __init__(self, node: str, code: Code) -> None:
        self.node = node
        self.code = code
        self.demanded: frozenset[str] = frozenset()
        self._names = sorted(code.reading.assigned)
        self.stoppable = code.asynchronous
        self.reach = Reach.ANYTHING if code.reading.reaches else Reach.NOTHING
        self.takes = Takes(open=True)
        known = (
            None if set(RESULTS) & code.reading.assigned or code.reading.dynamic else code.reading.assigned
        )
        self.gives = Gives(None if known is None else dict.fromkeys(known, Any))

    def demand(self, names: frozenset[str]) -> None:
        """Say which variables others want, beside a result."""
        self.demanded = names & self.code.reading.assigned - frozenset(RESULTS)

    async def run(self, call: Call, given: Given) -> Any:
        space = self._space(given)
        try:
            function = types.FunctionType(self.code.compiled, space)  # a module's code is run by calling it
            begun = asyncio.get_running_loop().time()
            outcome = function()
            if outcome is not None:
                await Watched(outcome, self.node)
            elif (seconds := asyncio.get_running_loop().time() - begun) > BLOCKED:
                blocked(self.node, seconds)
        except asyncio.CancelledError as failure:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._failed(call, failure) from failure
        except NexusError:
            raise
        except (Exception, SystemExit) as failure:
            raise self._failed(call, failure) from failure
        return self._outputs(space)

    def _space(self, given: Given) -> dict[str, Any]:
        arguments = given.arguments
        inputs: dict[str, Any] = {**given.inputs}
        for name in _MERGED:
            if isinstance(brought := arguments.get(name), Mapping):
                inputs.update(brought)
        inputs.update(arguments)
        space = {**PRESET, **inputs}
        space["__builtins__"] = builtins
        space["__name__"] = "__node__"
        space["input_data"] = inputs
        space["get_input_data"] = _getter(self.node, given, inputs)
        return space

    def _outputs(self, space: dict[str, Any]) -> Any:
        for name in RESULTS:
            if name in self.code.reading.assigned and name in space:
                made = _plain(self.node, name, space[name])
                outputs = made if isinstance(made, dict) else {"result": made}
                break
        else:
            outputs = {}
            for name in self._names:
                if name in space and name not in self.demanded and not name.startswith("_"):
                    try:
                        outputs[name] = plain(space[name])
                    except (TypeError, ValueError, RecursionError):
                        continue  # a module, a client, an open file: something to work with, not a result
        for name in self.demanded:
            if name in space and name not in outputs:
                outputs[name] = _plain(self.node, name, space[name])
        return Result(outputs)

    def _failed(self, call: Call, failure: BaseException) -> NodeFailed:
        logger.error("node '%s' failed", self.node, exc_info=failure)
        where = _line(self.code, failure, shown=call.in_process)
        if call.in_process:
            return NodeFailed(f"The code of node '{self.node}' failed{where}: {told(failure)}.")
        return NodeFailed(
            f"The code of node '{self.node}' failed{where}: {type(failure).__name__}.",
            remedy="The server's log says more.",
        )


def _getter(node: str, given: Given, inputs: dict[str, Any]) -> Callable[..., Any]:
    def get_input_data(source: str, *default: Any) -> Any:
        """What the connected node `source` has given, else the input of that name."""
        if source in given.sources:
            return given.sources[source]
        if source in inputs:
            return inputs[source]
        if default:
            return default[0]
        known = ", ".join(sorted({*given.sources, *inputs}))
        raise KeyError(f"node '{node}' is not connected to '{source}'; it has: {known or 'nothing'}")

    return get_input_data


def _plain(node: str, name: str, value: object) -> Any:
    try:
        return plain(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as failure:
        raise NodeFailed(
            f"Node '{node}': what it gives as '{name}' is not data: {told(failure)}.",
            remedy="Give numbers, texts, dates, lists and dictionaries.",
        ) from None


def _line(code: Code, failure: BaseException, *, shown: bool) -> str:
    """The last line of the author's that took part, and what is in it where that may be `shown`."""
    found, trace = 0, failure.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == code.filename:
            found = trace.tb_lineno
        trace = trace.tb_next
    if not found:
        return ""
    lines = code.source.splitlines()
    text = lines[found - 1].strip()[:80] if found <= len(lines) else ""
    return f" in line {found}" + (f" ({text})" if shown and text else "")
