"""LocalRuntime and AsyncLocalRuntime: workflows run by a program, with or without an application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeAlias, TypeVar

from nexus import blocking, instances
from nexus.call import IN_PROCESS, joined, session_for
from nexus.deadline import deadline_in, until
from nexus.errors import ConfigurationError, InvalidInput, nearest
from nexus.feed import Feed
from nexus.operation import Operation
from nexus.policy import Policy
from nexus.registry import Registry
from nexus.runtime import Runtime
from nexus.session import LOCAL, Session
from nexus_workflows.builder import WorkflowBuilder
from nexus_workflows.nodes.catalogue import Finder, in_process, in_registry, only_in
from nexus_workflows.workflow import Workflow, WorkflowRun

Results: TypeAlias = tuple[dict[str, Any], str]
T = TypeVar("T")

_TIMEOUT = "DATAFLOW_EXECUTION_TIMEOUT"
_USUAL_TIMEOUT = 300.0
_REFUSED = {
    "enable_cycles": "A workflow has no cycles: repeat with a LoopNode.",
    "enable_monitoring": 'Nodes are timed by their parameter "monitoring".',
    "enable_security": "Who may do what is said by a session's scopes.",
    "enable_audit": "The change log says who has changed what.",
    "resource_limits": "Limit the process.",
}
_KNOWN = ("execution_timeout", "max_concurrent_nodes", "persistent_mode", "debug", "session", *_REFUSED)


class Application(Protocol):
    """What runs operations: a Nexus, a DataFlow."""

    @property
    def runtime(self) -> Runtime: ...


class _LocalRuntime:
    """What both runtimes are.

    Nodes are those of `app`, else those of every DataFlow of the process. `execution_timeout` is in seconds,
    None for as long as it takes. At most `max_concurrent_nodes` of one run work at once. `debug` logs each
    node's time. Connections stay open between runs, with `persistent_mode` or without.

    Raises TypeError for an option that there is not, ConfigurationError for what cannot be honoured.
    """

    _timeout: float | None = None

    def __init__(
        self,
        app: Application | None = None,
        *,
        execution_timeout: float | None = None,
        max_concurrent_nodes: int = 10,
        persistent_mode: bool = True,
        debug: bool = False,
        session: Session | None = None,
        **options: object,
    ) -> None:
        _check_options(type(self).__name__, options)
        if execution_timeout is not None and execution_timeout <= 0:
            raise ConfigurationError("execution_timeout is a positive number of seconds.")
        if max_concurrent_nodes < 1:
            raise ConfigurationError("max_concurrent_nodes is 1 or more.")
        self.execution_timeout = self._timeout if execution_timeout is None else execution_timeout
        self.max_concurrent_nodes = max_concurrent_nodes
        self.persistent_mode = persistent_mode
        self.debug = debug
        self._app = app
        self._session = session
        self._own: Runtime | None = None
        self._closed = False

    async def execute_async(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> Results:
        """Every node's result by its id, and the run's id. Inside of a transaction, or of an operation that
        is one, it is a part of it.

        Raises NexusError; TimedOut, which is an asyncio.TimeoutError, after the time limit, when nothing of
        the segment that was running is kept."""
        if self._closed:
            raise InvalidInput("This runtime is closed.", remedy="Make another one.")
        if isinstance(workflow, WorkflowBuilder):
            workflow = workflow.build()
        if not isinstance(workflow, Workflow):
            raise InvalidInput("execute() takes what WorkflowBuilder.build() has made.")
        given = dict(inputs or {})
        operation = self._operation(workflow, given)
        run = await self._run(operation, given)
        return run.results, run.run_id

    def close(self) -> None:
        """Run nothing any more. Connections belong to the DataFlow."""
        self._closed = True

    async def _run(self, operation: Operation, given: dict[str, Any]) -> WorkflowRun:
        around = joined(self._session)
        run: WorkflowRun
        if around is not None:
            deadline = deadline_in(self.execution_timeout)
            limit = nullcontext() if deadline is None else until(deadline, f"'{operation.name}'")
            async with limit:
                run = await around.run(operation, given)
            return run
        run = await self._runtime().invoke(
            operation,
            given,
            session_for(self._session, LOCAL),
            channel=IN_PROCESS,
            timeout=self.execution_timeout,
        )
        return run

    def _runtime(self) -> Runtime:
        if self._app is not None:
            return self._app.runtime
        if self._own is None:
            registry, policy = Registry(), Policy()
            self._own = Runtime(registry, policy, Feed(registry, policy))
        return self._own

    def _operation(self, workflow: Workflow, given: Mapping[str, Any]) -> Operation:
        """Planned once for each workflow, and again when there are other nodes."""
        find, version = self._nodes(workflow)
        key = (id(self._app), version(), self.max_concurrent_nodes, self.debug, frozenset(given))
        operation: Operation | None = workflow.plans.get(key)
        if operation is None:
            if len(workflow.plans) > 20:
                workflow.plans.clear()
            operation = workflow.operation(
                workflow.name,
                find,
                limit=self.max_concurrent_nodes,
                whole=True,
                extra=given,
                debug=self.debug,
            )
            workflow.plans[key] = operation
        return operation

    def _nodes(self, workflow: Workflow) -> tuple[Finder, Callable[[], int]]:
        if workflow.registry is not None:
            return only_in(workflow.registry), instances.generation
        if self._app is not None:
            registry = self._app.runtime.registry
            return in_registry(registry), lambda: registry.version
        return in_process, instances.generation


class LocalRuntime(_LocalRuntime):
    """For programs without an event loop, and for notebooks: `results, run_id = runtime.execute(workflow)`.

    All synchronous work of a process is done in one thread's event loop; may be called from any thread but
    that one."""

    def execute(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> Results:
        """As `execute_async`; returns when the run has ended."""
        return _blocking(self.execute_async(workflow, inputs))

    def __enter__(self) -> LocalRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncLocalRuntime(_LocalRuntime):
    """For programs with an event loop. Without `execution_timeout`: that of the environment's
    DATAFLOW_EXECUTION_TIMEOUT, else 300 seconds."""

    def __init__(self, app: Application | None = None, **options: Any) -> None:
        self._timeout = _timeout_from(os.environ)
        super().__init__(app, **options)

    async def execute_workflow_async(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> Results:
        """As `execute_async`."""
        return await self.execute_async(workflow, inputs)

    def execute(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> Results:
        """For a caller without an event loop, as LocalRuntime does."""
        return _blocking(self.execute_async(workflow, inputs))

    async def __aenter__(self) -> AsyncLocalRuntime:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class ExecutionContext:
    """Runs that belong together: what still runs at the end is cancelled, and rolled back."""

    def __init__(self, runtime: AsyncLocalRuntime | None = None) -> None:
        self.runtime = runtime or AsyncLocalRuntime()
        self._tasks: set[asyncio.Task[Results]] = set()

    async def execute(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> Results:
        return await self.start(workflow, inputs)

    def start(
        self, workflow: Workflow | WorkflowBuilder, inputs: Mapping[str, Any] | None = None
    ) -> asyncio.Task[Results]:
        """Begin a run; the task gives what `execute` does."""
        task = asyncio.get_running_loop().create_task(self.runtime.execute_async(workflow, inputs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> ExecutionContext:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    return blocking.run(work)


def _timeout_from(environment: Mapping[str, str]) -> float:
    text = environment.get(_TIMEOUT)
    if text is None:
        return _USUAL_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigurationError(f"{_TIMEOUT} is a positive number of seconds.")
    return seconds


def _check_options(owner: str, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if name in _REFUSED:
            if value:
                raise ConfigurationError(f"{name} cannot be honoured.", remedy=_REFUSED[name])
        else:
            near = nearest(name, _KNOWN)
            hint = f"; did you mean '{near}'?" if near else ""
            raise TypeError(f"{owner}() has no option '{name}'{hint}")
