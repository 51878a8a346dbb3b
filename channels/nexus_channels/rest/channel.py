"""REST: resources and their verbs as addresses and methods, workflows to be executed.

/api                            what there is
/api/session                    who asks
/api/{resource}                 GET list, POST create
/api/{resource}/{id}            GET get, PATCH update, PUT update of the whole, DELETE delete
/api/{resource}:{verb}          POST any other verb; GET too when it reads
/api/:batch                     POST several operations as one
/api/workflows                  the operations that belong to no resource
/api/workflows/{name}           one operation, by any of its spellings
/api/workflows/{name}/execute   POST runs it; see demands.py
/api/runs/{id}/cancel           POST cancels a run
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from nexus.arguments import pointer
from nexus.config import Settings
from nexus.demands import Demands, Noted
from nexus.errors import (
    InvalidArguments,
    InvalidInput,
    MethodNotAllowed,
    NexusError,
    NotFound,
    Problem,
    TooLarge,
    UnsupportedMedia,
)
from nexus.etag import is_known
from nexus.operation import Effect, Operation
from nexus.registry import Registry
from nexus.runs.record import Started
from nexus.runtime import Runtime
from nexus.schema import json_schema
from nexus.session import Session, Sessions
from nexus_channels.asgi import (
    JSON,
    Disconnected,
    Reply,
    allow,
    answer,
    has_body,
    path_below,
    query_pairs,
    read_body,
    reply_json,
    reply_problem,
    root_of,
    unexpected,
    unquoted,
)
from nexus_channels.rest.demands import Asked, asked_of, demands_of, known_of
from nexus_channels.rest.forms import Form, form_wanted, rows_form, streams, takes_rows
from nexus_channels.rest.prefer import as_preferred
from nexus_channels.rest.query import arguments_from, next_page
from nexus_channels.rest.records import ACCEPT_PATCH, as_sent, changed
from nexus_channels.rest.rows import arguments_of_rows
from nexus_channels.rest.runs import CANCEL, RUNS, reply_started
from nexus_channels.rest.stream import Streamed

_COLLECTION = {"GET": "list", "POST": "create"}
_RECORD = {"GET": "get", "PATCH": "update", "PUT": "update", "DELETE": "delete"}
_IN_QUERY = frozenset({"GET", "DELETE"})
_NOTED = "nexus.noted"
_encode = msgspec.json.Encoder().encode


class RestChannel:
    """The channel `rest`."""

    name = "rest"
    path = "/api"

    def __init__(self) -> None:
        self._registry = Registry()
        self._open = True

    def build(self, runtime: Runtime, sessions: Sessions, settings: Settings) -> ASGIApp:
        self._registry = runtime.registry
        self._open = sessions.open
        return Rest(runtime, settings.body_limit)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def hint(self, base_url: str) -> str:
        listed = (r for r in self._registry.resources() if "list" in self._registry.verbs(r))
        resource = next((f"/{name}" for name in listed), "")
        credential = "" if self._open else '-H "Authorization: Bearer $NEXUS_API_KEY" '
        return f"{'REST':<10} curl {credential}{base_url}{self.path}{resource}"


class Rest:
    """The ASGI application. It looks the registry up at each request: what is registered is there
    at once."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime = runtime
        self._registry = runtime.registry
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        head = method == "HEAD"
        reply: Reply | Streamed
        try:
            reply = await self._reply(scope, receive, "GET" if head else method)
        except Disconnected:
            return
        except MethodNotAllowed as failure:
            if method == "OPTIONS":
                patched = [ACCEPT_PATCH] if "PATCH" in failure.allowed else []
                reply = 204, b"", [(b"allow", allow(failure.allowed)), *patched]
            else:
                reply = reply_problem(failure)
        except NexusError as failure:
            reply = reply_problem(failure)
            if method == "PATCH" and isinstance(failure, UnsupportedMedia):
                reply[2].append(ACCEPT_PATCH)
        except Exception as failure:
            reply = reply_problem(unexpected(scope, failure))
        if isinstance(reply, Streamed):
            await reply.send(send, head=head)
            return
        noted: Noted | None = scope.get(_NOTED)
        if noted is not None and noted.replayed:
            reply[2].append((b"idempotency-replayed", b"true"))
        await answer(send, as_preferred(scope, reply), head=head)

    def _reply(self, scope: Scope, receive: Receive, method: str) -> Awaitable[Reply | Streamed]:
        path = path_below(scope)
        if not path:
            return self._overview(scope, method)
        name, slash, below = path[1:].partition("/")
        if slash:
            if name == "workflows":
                return self._workflow(scope, receive, method, below)
            if name == RUNS and below.endswith(CANCEL):
                return self._cancel(scope, receive, method, unquoted(below.removesuffix(CANCEL)))
            if not below or "/" in below:
                raise _nothing_at(scope)
            return self._record(scope, receive, method, unquoted(name), unquoted(below))
        resource, colon, verb = name.partition(":")
        if colon and not resource and verb in self._registry:
            return self._alone(scope, receive, method, unquoted(verb))
        if colon:
            return self._custom(scope, receive, method, unquoted(resource), unquoted(verb))
        if name == "workflows":
            return self._workflows(scope, method)
        if name == "session":
            return self._session(scope, method)
        return self._collection(scope, receive, method, unquoted(resource))

    async def _collection(
        self, scope: Scope, receive: Receive, method: str, resource: str
    ) -> Reply | Streamed:
        operation = self._placed(scope, method, resource, _COLLECTION, on_record=False)
        form, media = form_wanted(scope, rows=method == "GET" and streams(operation))
        if form != "json":
            return await self._stream(scope, receive, operation, form, media)
        result = await self._run(scope, receive, method, operation)
        headers = [JSON]
        if method == "GET":
            if following := getattr(result, "next", None):
                headers.append(next_page(scope, resource, following))
            return 200, _encode(result), headers
        created = result.get("id") if isinstance(result, Mapping) else getattr(result, "id", None)
        if created is not None:
            root = scope.get("root_path", "")
            location = quote(f"{root}/{resource}/") + quote(str(created), safe="")
            headers.append((b"location", location.encode()))
        body = _encode(result)
        tag = None if operation.tag is None else operation.tag(result, body)
        if tag is not None:
            headers.append((b"etag", tag.encode()))
        return 201, body, headers

    async def _record(self, scope: Scope, receive: Receive, method: str, resource: str, record: str) -> Reply:
        operation = self._placed(scope, method, resource, _RECORD, on_record=True)
        form_wanted(scope)
        asked = asked_of(scope)
        known = known_of(asked) if asked else None
        result = await self._run(scope, receive, method, operation, record, asked)
        if result is None and method == "DELETE":
            return 204, b"", []
        body = _encode(result)
        tag = None if operation.tag is None else operation.tag(result, body)
        if tag is None:
            return 200, body, [JSON]
        headers = [JSON, (b"etag", tag.encode())]
        if known is not None and is_known(known, tag):
            return 304, b"", headers[1:]
        return 200, body, headers

    async def _custom(self, scope: Scope, receive: Receive, method: str, resource: str, verb: str) -> Reply:
        operation = self._registry.verbs(resource).get(verb)
        if operation is None:
            raise self._registry.unknown(f"{resource}.{verb}")
        if verb in (_RECORD if operation.on_record else _COLLECTION).values():
            raise _nothing_at(scope)
        reads = operation.effect is Effect.READ
        _allow_only(scope, method, ("GET", "POST") if reads else ("POST",))
        form_wanted(scope)
        if method == "POST" and takes_rows(operation) and (form := rows_form(scope)):
            row = self._registry.verbs(resource).get("create", operation)
            given = await arguments_of_rows(scope, receive, self._limit, operation, row, form)
            return reply_json(await self._invoke(scope, operation, given))
        return reply_json(await self._run(scope, receive, method, operation))

    async def _alone(self, scope: Scope, receive: Receive, method: str, name: str) -> Reply:
        """One of the platform's own that belongs to no resource."""
        operation = self._registry.outside(name)
        if operation.resource or not operation.platform:
            raise _nothing_at(scope)
        _allow_only(scope, method, ("POST",))
        form_wanted(scope)
        return reply_json(await self._run(scope, receive, method, operation))

    async def _workflow(self, scope: Scope, receive: Receive, method: str, below: str) -> Reply:
        name, slash, action = below.partition("/")
        if not name or (slash and action != "execute"):
            raise _nothing_at(scope)
        operation = self._registry.outside(unquoted(name))
        if slash:
            _allow_only(scope, method, ("POST",))
            form_wanted(scope)
            return await self._execute(scope, receive, method, operation)
        _allow_only(scope, method, ("GET",))
        _take_no_arguments(scope, "workflows")
        described = {
            **_summary(operation),
            "input": json_schema(operation.input),
            "output": json_schema(operation.output),
        }
        return reply_json(described)

    async def _execute(self, scope: Scope, receive: Receive, method: str, operation: Operation) -> Reply:
        result = await self._run(scope, receive, method, operation)
        if isinstance(result, Started):
            return reply_started(scope, result)
        return reply_json(result)

    async def _cancel(self, scope: Scope, receive: Receive, method: str, run: str) -> Reply:
        operation = self._registry.verbs(RUNS).get("cancel")
        if operation is None or not run or "/" in run:
            raise _nothing_at(scope)
        _allow_only(scope, method, ("POST",))
        return reply_json(await self._run(scope, receive, method, operation, run))

    async def _overview(self, scope: Scope, method: str) -> Reply:
        _allow_only(scope, method, ("GET",))
        _take_no_arguments(scope, "api")
        root = root_of(scope)
        resources = [
            {"name": name, "path": f"{root}/{name}", "verbs": list(self._registry.verbs(name))}
            for name in self._registry.resources()
        ]
        workflows = [
            {"name": o.name, "path": f"{root}/workflows/{o.name}"} for o in self._registry.standing()
        ]
        return reply_json({"resources": resources, "workflows": workflows})

    async def _workflows(self, scope: Scope, method: str) -> Reply:
        _allow_only(scope, method, ("GET",))
        _take_no_arguments(scope, "workflows")
        return reply_json([_summary(o) for o in self._registry.standing()])

    async def _session(self, scope: Scope, method: str) -> Reply:
        _allow_only(scope, method, ("GET",))
        _take_no_arguments(scope, "session")
        session: Session = scope["nexus.session"]
        return reply_json(
            {
                "user": session.user,
                "roles": sorted(session.roles),
                "tenant": session.tenant,
                "scopes": sorted(session.scopes),
            }
        )

    def _placed(
        self, scope: Scope, method: str, resource: str, table: dict[str, str], *, on_record: bool
    ) -> Operation:
        """The operation that a method means at an address."""
        verbs = self._registry.verbs(resource)
        operation = verbs.get(table.get(method, ""))
        if operation is not None and operation.on_record is on_record:
            return operation
        if not verbs:
            raise self._registry.unknown(f"{resource}.{table.get(method, 'list')}")
        placed = {m for m, v in table.items() if v in verbs and verbs[v].on_record is on_record}
        if not placed:
            raise _nothing_at(scope)
        raise _not_allowed(scope, method, placed)

    def _run(
        self,
        scope: Scope,
        receive: Receive,
        method: str,
        operation: Operation,
        record: str | None = None,
        asked: Asked | None = None,
    ) -> Awaitable[Any]:
        if method not in _IN_QUERY:
            return self._run_sent(scope, receive, method, operation, record, asked)
        if has_body(scope):
            raise _no_body(method)
        return self._invoke(scope, operation, self._query_arguments(scope, operation, record), asked)

    async def _run_sent(
        self,
        scope: Scope,
        receive: Receive,
        method: str,
        operation: Operation,
        record: str | None,
        asked: Asked | None,
    ) -> Any:
        """Where the arguments are the body."""
        if scope["query_string"]:
            raise InvalidInput(
                f"{method} takes no arguments in the query.",
                remedy="Put them into the body, as a JSON object.",
            )
        body = await read_body(scope, receive, self._limit) or b"{}"
        if record is None:
            return await self._invoke(scope, operation, body, asked)
        self._runtime.policy.check(scope["nexus.session"], operation)
        create = self._registry.verbs(operation.resource).get("create")
        given = changed(scope, operation, create, body, record)
        made = method == "PUT" and isinstance(given, dict)
        sent = {"id": record, "PUT": body.decode()} if made else None
        with as_sent(given):
            return await self._invoke(scope, operation, given, asked, sent)

    def _invoke(
        self,
        scope: Scope,
        operation: Operation,
        arguments: dict[str, object] | bytes,
        asked: Asked | None = None,
        sent: Mapping[str, object] | None = None,
    ) -> Awaitable[Any]:
        session: Session = scope["nexus.session"]
        demands = self._demands(scope, asked_of(scope) if asked is None else asked, operation)
        noted: Noted | None = None
        if demands is not None:
            noted = scope[_NOTED] = Noted()
            if sent is not None:
                demands = msgspec.structs.replace(demands, sent=sent)
        return self._runtime.invoke(
            operation.name, arguments, session, channel="rest", demands=demands, noted=noted
        )

    def _demands(self, scope: Scope, asked: Asked, operation: Operation) -> Demands | None:
        return demands_of(scope, asked, operation, recording=self._runtime.runs is not None)

    async def _stream(
        self, scope: Scope, receive: Receive, operation: Operation, form: Form, media: str
    ) -> Streamed:
        if has_body(scope):
            raise _no_body("GET")
        given = self._query_arguments(scope, operation, None)
        page = functools.partial(self._invoke, scope, operation)
        return await Streamed(operation, form, media, given, page, receive).begin()

    def _query_arguments(self, scope: Scope, operation: Operation, record: str | None) -> dict[str, object]:
        given: dict[str, object] = {}
        if record is not None:
            given["id"] = operation.arguments.from_text("id", record)
        query = scope["query_string"]
        if not query:
            return given
        if len(query) > self._limit:
            raise TooLarge(f"The query is longer than {self._limit} bytes.")
        return arguments_from(operation, query_pairs(query), given)


def _no_body(method: str) -> InvalidInput:
    return InvalidInput(f"{method} takes no body.", remedy="Put the arguments into the query.")


def _allow_only(scope: Scope, method: str, methods: tuple[str, ...]) -> None:
    if method not in methods:
        raise _not_allowed(scope, method, set(methods))


def _not_allowed(scope: Scope, method: str, placed: set[str]) -> MethodNotAllowed:
    allowed = placed | {"OPTIONS"} | ({"HEAD"} if "GET" in placed else set())
    return MethodNotAllowed(f"{method} does not apply to '{scope['path'][:200]}'.", allowed)


def _nothing_at(scope: Scope) -> NotFound:
    return NotFound(f"There is nothing at '{scope['path'][:200]}'.")


def _take_no_arguments(scope: Scope, name: str) -> None:
    form_wanted(scope)
    for given, _ in query_pairs(scope["query_string"]):
        unknown = f"unknown argument '{given[:80]}'"
        raise InvalidArguments(name, [Problem(InvalidArguments.UNKNOWN, pointer(given), unknown)])


def _summary(operation: Operation) -> dict[str, object]:
    return {"name": operation.name, "summary": operation.summary, "effect": operation.effect}
