"""Nodes of one's own: classes with `execute`, and functions. They are operations that no channel sees, unless
that is said: SQL of one's own must not be reachable from outside by accident."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from dataflow.direct import Direct, Source
from dataflow.face import Caller
from dataflow.own_sql import query
from nexus.block import finish
from nexus.call import Call
from nexus.errors import NexusError, RegistrationError
from nexus.operation import Effect, Operation, operation

if TYPE_CHECKING:
    from dataflow.database import Database


class Queries:
    """Statements of a node, for as long as it runs, from its event loop or from its own thread."""

    def __init__(self, call: Call, database: Database) -> None:
        self._call = call
        self._database = database
        self._running: set[asyncio.Task[Any]] = set()
        self._over = False

    def run(self, sql: str, parameters: Mapping[str, Any] | None) -> Any:
        """The rows; in the event loop, what is to be awaited for them."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(self._run(sql, parameters), self._call.loop).result()
        if here is not self._call.loop:
            raise NexusError("A node's statements belong to the event loop or the thread that it runs in.")
        return self._run(sql, parameters)

    async def _run(self, sql: str, parameters: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        if self._over:
            raise NexusError("The node has ended: it cannot run statements any more.")
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await query(self._call, self._database, sql, parameters)
        finally:
            self._running.discard(task)

    async def end(self) -> None:
        """Nothing of the node is to go on in a transaction that others end."""
        self._over = True
        mine = asyncio.current_task()
        left = [task for task in self._running if task is not mine]
        for task in left:
            task.cancel()
        if left:
            await finish(asyncio.wait(left))


class BaseDataFlowNode(abc.ABC):
    """A node of one's own: what its constructor takes beside `node_id` are its parameters.

        class Revenue(BaseDataFlowNode):
            def __init__(self, node_id, year: int):
                super().__init__(node_id)
                self.year = year

            def execute(self, input_data):
                sql = "SELECT sum(total) AS total FROM orders WHERE year = :year"
                return self.run_custom_query(sql, {"year": self.year})

        db.register_node(Revenue)

    It runs inside the call's transaction. A plain `execute` runs in a thread and may wait; an asynchronous
    one runs in the event loop, awaits `run_custom_query`, and may use the models. With `internal = False` it
    can be reached from outside.
    """

    internal: ClassVar[bool] = True
    _queries: Queries | None = None

    def __init__(self, node_id: str = "") -> None:
        self.node_id = node_id

    @abc.abstractmethod
    def execute(self, input_data: dict[str, Any]) -> Any:
        """The node's result, or an awaitable of it. `input_data` is what connections bring there."""

    def run_custom_query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The rows that a statement gives, as dictionaries; see `dataflow.own_sql.query`. To be awaited in
        an asynchronous `execute`."""
        if self._queries is None:
            raise NexusError(
                f"'{type(self).__name__}' does not run: it is executed by a workflow or an operation.",
                remedy="Register it with db.register_node(…).",
            )
        return self._queries.run(sql, parameters)


class Inside(Direct):
    """The models inside of a node that is a function, and statements of its own."""

    def __init__(self, source: Source, call: Call, database: Database) -> None:
        super().__init__(source, Caller(call=call))
        self._call = call
        self._database = database

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """See `dataflow.own_sql.query`."""
        return await query(self._call, self._database, sql, parameters)


def node_of_class(cls: Any, database: Database) -> Operation:
    """Raises RegistrationError for what is no node."""
    if not isinstance(cls, type) or not issubclass(cls, BaseDataFlowNode) or inspect.isabstract(cls):
        raise RegistrationError(
            "register_node() takes a class that derives from BaseDataFlowNode and has 'execute'.",
            remedy="For a function, use @db.node.",
        )
    node: type[BaseDataFlowNode] = cls
    struct, names = _parameters(node)

    async def run(call: Call, arguments: Any) -> Any:
        made = node(node.__name__, **{name: getattr(arguments, name) for name in names})
        queries = made._queries = Queries(call, database)
        try:
            if inspect.iscoroutinefunction(made.execute):
                return await made.execute(arguments.input_data)
            result = await asyncio.to_thread(made.execute, arguments.input_data)
            return await result if inspect.isawaitable(result) else result
        finally:
            await queries.end()

    summary = (inspect.getdoc(node) or "").partition("\n\n")[0] if "__doc__" in vars(node) else ""
    return Operation(
        name=node.__name__,
        handler=run,
        input=struct,
        effect=Effect.RUN,
        summary=" ".join(summary.split()),
        internal=node.internal,
    )


def node_of_function(
    function: Callable[..., Awaitable[Any]],
    source: Source,
    database: Database,
    *,
    name: str,
    effect: Effect,
    internal: bool,
) -> Operation:
    """Raises RegistrationError for one that is not asynchronous, or whose parameters have no types."""
    made = operation(function, name=name, effect=effect)

    async def run(call: Call, arguments: Any) -> Any:
        inside: Any = Inside(source, call, database)
        return await made.handler(inside, arguments)

    node = "".join(part[:1].upper() + part[1:] for part in made.name.split("_")) + "Node"
    changed: Operation = dataclasses.replace(made, handler=run, internal=internal, node=node)
    return changed


def _parameters(node: type[BaseDataFlowNode]) -> tuple[type[msgspec.Struct], list[str]]:
    """What the constructor takes, as the input of an operation; without an annotation it is anything."""
    hints = inspect.get_annotations(node.__init__, eval_str=True)
    fields: list[Any] = []
    given = list(inspect.signature(node.__init__).parameters.values())[2:]
    for parameter in given:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise RegistrationError(
                f"{node.__name__}: the parameter '{parameter.name}' must have a name of its own."
            )
        if parameter.name == "input_data":
            raise RegistrationError(f"{node.__name__}: 'input_data' is what 'execute' is given.")
        default = () if parameter.default is parameter.empty else (parameter.default,)
        fields.append((parameter.name, hints.get(parameter.name, Any), *default))
    names = [field[0] for field in fields]
    fields.append(("input_data", dict[str, Any], msgspec.field(default_factory=dict)))
    struct = msgspec.defstruct(f"{node.__name__}Input", fields, forbid_unknown_fields=True, kw_only=True)
    return struct, names
