"""An application of hand-made operations for the tests of MCP.

Run as a program it speaks MCP over stdio; with the argument `serve`, over HTTP at any port that is free.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import msgspec

from nexus import Call, Effect, Nexus, Operation, Settings
from nexus.errors import NotFound

LIMIT = 10_000


class Thing(msgspec.Struct):
    id: int
    name: str
    note: str | None = None


class Things(msgspec.Struct):
    records: list[Thing]
    count: int


class ListThings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, description="At most so many")] = 100


class CreateThing(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(description="What it is called")]
    note: str | None = None


class ById(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


def build() -> Nexus:
    """Everything lives in the application: one made anew is empty."""
    app = Nexus(settings=Settings(body_limit=LIMIT))
    things: dict[int, Thing] = {}
    cancelled: list[str] = []

    async def list_things(call: Call, given: ListThings) -> Things:
        return Things(list(things.values())[: given.limit], len(things))

    async def get_thing(call: Call, given: ById) -> Thing:
        if given.id not in things:
            raise NotFound(f"things: there is no record {given.id}.")
        return things[given.id]

    async def create_thing(call: Call, given: CreateThing) -> Thing:
        thing = things[len(things) + 1] = Thing(len(things) + 1, given.name, given.note)
        return thing

    async def delete_thing(call: Call, given: ById) -> dict[str, int]:
        del things[given.id]
        return {"deleted": 1}

    def about_things(
        verb: str, handler: Any, given: Any, effect: Effect, returns: Any, **more: Any
    ) -> Operation:
        summary = f"{verb.capitalize()} things."
        node = f"Thing{verb.capitalize()}Node"
        return Operation(
            f"things.{verb}",
            handler,
            given,
            returns,
            effect,
            summary,
            resource="things",
            verb=verb,
            node=node,
            **more,
        )

    app.registry.add(
        about_things("list", list_things, ListThings, Effect.READ, Things),
        about_things("get", get_thing, ById, Effect.READ, Thing, on_record=True),
        about_things("create", create_thing, CreateThing, Effect.CREATE, Thing),
        about_things("delete", delete_thing, ById, Effect.DELETE, dict[str, int], on_record=True),
        Operation("secret", get_thing, ById, internal=True),
    )

    @app.operation
    async def echo(call: Call, text: str, pause: float = 0.0) -> str:
        """Say it again."""
        await asyncio.sleep(pause)
        print("something that a handler prints")
        return text

    @app.operation
    async def find(call: Call, id: int) -> Thing | None:
        return things.get(id)

    @app.operation
    async def anything(call: Call, value: Any) -> Any:
        return value

    @app.operation
    async def raw(call: Call) -> Any:
        return {"column": msgspec.Raw(b'{"a": null}'), "none": None}

    @app.operation
    async def unsendable(call: Call) -> Any:
        return object()

    @app.operation
    async def explode(call: Call) -> None:
        raise RuntimeError("a password")

    @app.operation
    async def wait(call: Call, name: str) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    @app.operation
    async def who_was_cancelled(call: Call) -> list[str]:
        return cancelled

    async def nothing(call: Call, given: Nothing) -> None:
        pass

    @app.operation
    async def register(call: Call, names: list[str]) -> None:
        """In another thread, as an application may do it."""
        made = [Operation(name, nothing, Nothing, None) for name in names]
        await asyncio.to_thread(app.registry.add, *made)

    @app.operation
    async def register_resource(call: Call, name: str) -> None:
        listing = Operation(
            f"{name}.list", list_things, ListThings, Things, Effect.READ, resource=name, verb="list"
        )
        app.registry.add(listing)

    return app


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        build().serve(port=0)
    else:
        from nexus_channels.mcp.stdio import serve_stdio

        asyncio.run(serve_stdio(build()))
