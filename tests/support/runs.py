"""An operation whose runs are recorded, and who runs it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from nexus import LOCAL, Call, Nexus, Operation, Session
from nexus.demands import Demands
from nexus.errors import (
    Conflict,
    NexusError,
)

ANN = Session("s-ann", "ann", frozenset({"work"}))
BOB = Session("s-bob", "bob", frozenset({"work"}))
ACME = Session("s-acme", "eve", frozenset({"*"}), tenant="acme")


class Given(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    seconds: float = 0.0
    fail: bool = False
    password: Annotated[str, msgspec.Meta(extra_json_schema={"writeOnly": True})] = ""


class Work:
    """An operation whose runs are recorded, and how often it was done."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self.operation = Operation("work", self.handler, Given, recorded=True, digest=lambda: "1")

    async def handler(self, call: Call, given: Given) -> dict[str, Any]:
        self.begun += 1
        assert call.progress is not None
        call.progress.node_started("first")
        try:
            await asyncio.sleep(given.seconds)
            if given.fail:
                raise Conflict("It is taken.", remedy="Take another.")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        except NexusError as failure:
            call.progress.node_ended("first", "failed", 0.5, failure)
            raise
        call.progress.node_ended("first", "done", 0.25)
        self.ended.append("done")
        return {"run": call.run_id, "text": given.text}


async def run(app: Nexus, name: str, session: Session = LOCAL, /, **given: Any) -> Any:
    asked = {key: given.pop(key) for key in ("key", "background") if key in given}
    demands = Demands(**asked) if asked else None
    return await app.runtime.invoke(name, given, session, channel="test", demands=demands)


async def only(app: Nexus) -> Any:
    (summary,) = (await run(app, "runs.list")).records
    return await run(app, "runs.get", id=summary.id)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)
