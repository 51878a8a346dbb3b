"""The one unit of everything: what a model or a workflow contributes and every channel offers."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as member
from typing import TYPE_CHECKING, Any

import msgspec

from nexus.arguments import Arguments
from nexus.details import NO_DETAILS, Details
from nexus.errors import RegistrationError
from nexus.etag import Tag

if TYPE_CHECKING:
    from nexus.call import Call
    from nexus.ports import Replies

Handler = Callable[["Call", Any], Awaitable[Any]]
AsksMatch = Callable[[Any], bool]
AlsoReads = Callable[[Mapping[str, Any]], "frozenset[str] | None"]

# First words of the CLI and first path segments of REST: a resource of that name could not be reached.
RESERVED_RESOURCES = frozenset(
    {
        "batch",
        "execute",
        "export",
        "install",
        "login",
        "logout",
        "mcp",
        "openapi",
        "operations",
        "run",
        "runs",
        "serve",
        "session",
        "watch",
        "workflows",
    }
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[a-z][a-z0-9_]*)?")
_LONGEST_NAME = 64  # the limit of MCP clients for the name of a tool


class Effect(enum.StrEnum):
    """What running an operation does. It alone decides the HTTP verb, the hints given to MCP clients and
    whether the shell asks first."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RUN = "run"


class NoArguments(msgspec.Struct, forbid_unknown_fields=True):
    """The input of an operation that takes nothing."""


@dataclass(frozen=True)
class Operation:
    """A named, typed, permissioned piece of work.

    `handler(call, arguments)` receives validated arguments as an instance of `input`. `resource` and `verb`
    place it: `products` and `list`. An operation without a resource stands on its own, as a workflow does.
    `on_record` says that it is about the one record named by its argument `id`. `node` is the name under
    which workflows know it. An `internal` operation is for workflows only: no channel sees it. `managed` are
    arguments that may be given and are dropped, since the operation fills them itself; `refused` those that
    are documented and cannot be given, with the rest of a sentence that says why. Runs of a `recorded` one
    are kept; a workflow has a `digest` of its declaration. What the `platform` offers itself may have a
    reserved name. `waits` says that it may wait for the world outside for long, and keeps no transaction
    meanwhile: it cannot be a part of one. What is not `atomic` by itself may be `whole` in the transaction of
    others, as a workflow is.

    `model` is the model that it is about, `source` the name of the instance that it comes from, `types` those
    of the model's fields, wherever in the arguments they stand. `also_reads` names, for given arguments, the
    other models that it looks at, or gives None where only the values that are still to come can tell.
    `details` say more of the arguments, for descriptions.

    `tag` makes the entity tag of the record that is the result; with `shows_tag`, changes of the record will
    ask for it. `matches` says that it honours `if_match`, `asks_match` whether, for these arguments, who asks
    from outside must give one. `replies` is where its answers are kept for those who repeat it under an
    idempotency key.
    """

    name: str
    handler: Handler
    input: type[msgspec.Struct] = NoArguments
    output: Any = Any
    effect: Effect = Effect.RUN
    summary: str = ""
    permission: str = ""
    resource: str = ""
    verb: str = ""
    on_record: bool = False
    node: str = ""
    internal: bool = False
    atomic: bool = True
    managed: frozenset[str] = frozenset()
    refused: Mapping[str, str] = member(default_factory=dict, compare=False, repr=False)
    recorded: bool = False
    digest: Callable[[], str] | None = member(default=None, compare=False, repr=False)
    platform: bool = False
    waits: bool = False
    whole: bool = False
    model: str = ""
    source: str = ""
    types: Mapping[str, Any] = member(default_factory=dict, compare=False, repr=False)
    also_reads: AlsoReads | None = member(default=None, compare=False, repr=False)
    details: Details = member(default=NO_DETAILS, compare=False, repr=False)
    tag: Tag | None = member(default=None, compare=False, repr=False)
    shows_tag: bool = False
    matches: bool = False
    asks_match: AsksMatch | None = member(default=None, compare=False, repr=False)
    replies: Replies | None = member(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME:
            raise RegistrationError(
                f"'{self.name[:80]}' cannot be the name of an operation.",
                remedy="Use at most 64 letters, digits, '_' and '-', beginning with a letter.",
            )
        if self.resource in RESERVED_RESOURCES and not self.platform:
            raise RegistrationError(
                f"'{self.resource}' cannot be the route of a model: it is taken by the platform.",
                remedy='Choose another with __dataflow__ = {"route": "…"}.',
            )
        if not self.permission:
            object.__setattr__(self, "permission", self.name)

    @property
    def tool(self) -> str:
        """The name as an MCP tool, whose clients refuse dots."""
        return self.name.replace(".", "_")

    @property
    def undoable(self) -> bool:
        """Whether all that it does can be rolled back together."""
        return (self.atomic or self.whole) and not self.waits

    @functools.cached_property
    def in_pages(self) -> bool:
        """Whether it reads records page by page, by `cursor` and `limit`, and so can read them all."""
        return self.effect is Effect.READ and "cursor" in self.arguments.fields

    @functools.cached_property
    def version(self) -> str:
        """The digest, made when somebody asks; empty where there is none."""
        return "" if self.digest is None else self.digest()

    @functools.cached_property
    def arguments(self) -> Arguments:
        """The validator of the input, built at the first use and kept."""
        return Arguments(self.name, self.input, self.managed, self.refused)


def operation(
    function: Callable[..., Awaitable[Any]] | None = None,
    *,
    name: str = "",
    effect: Effect = Effect.RUN,
    permission: str = "",
) -> Any:
    """Make an Operation of an async function `(call, **arguments)`: its annotations are the input, its
    docstring the summary.

        @operation
        async def greet(call: Call, name: str) -> str: ...
    """
    if function is None:
        return functools.partial(operation, name=name, effect=effect, permission=permission)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if not inspect.iscoroutinefunction(function) or not parameters:
        raise RegistrationError(f"'{function.__name__}' must be 'async def {function.__name__}(call, …)'.")
    names = [parameter.name for parameter in parameters[1:]]
    struct = _struct_of(function.__name__, parameters[1:], hints)

    async def handler(call: Call, arguments: msgspec.Struct) -> Any:
        return await function(call, **{key: getattr(arguments, key) for key in names})

    summary = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return Operation(
        name=name or function.__name__,
        handler=handler,
        input=struct,
        output=hints.get("return", Any),
        effect=effect,
        summary=" ".join(summary.split()),
        permission=permission,
    )


def _struct_of(name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise RegistrationError(f"{name}: the parameter '{parameter.name}' must have a name of its own.")
        if parameter.name not in hints:
            raise RegistrationError(f"{name}: the parameter '{parameter.name}' needs a type annotation.")
        default = () if parameter.default is parameter.empty else (parameter.default,)
        fields.append((parameter.name, hints[parameter.name], *default))
    return msgspec.defstruct(name + "Input", fields, forbid_unknown_fields=True, kw_only=True)
