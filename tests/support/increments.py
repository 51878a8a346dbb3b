"""A program that counts up by what it has read: `python -m tests.support.increments URL ROUTE TIMES`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.demands import Demands
from nexus.errors import PreconditionFailed, Unavailable

ROUTES = ("plains", "counteds")


def application(url: str) -> Nexus:
    db = DataFlow(url, pool_size=4)

    @db.model
    class Plain:
        count: int = 0
        note: dict[str, Any] | None = None

    @db.model
    class Counted:
        count: int = 0
        __dataflow__ = {"versioned": True}

    return Nexus(db, channels=())


async def invoke(app: Nexus, name: str, tag: str | None = None, **arguments: Any) -> Any:
    demands = None if tag is None else Demands(if_match=tag)
    return await app.runtime.invoke(name, arguments, LOCAL, channel="test", demands=demands)


def tag_of(app: Nexus, name: str, result: Any) -> str | None:
    """As every channel makes it."""
    tag = app.registry[name].tag
    assert tag is not None
    return tag(result, msgspec.json.encode(result))


async def count_up(app: Nexus, route: str, times: int) -> tuple[int, int]:
    """How many attempts were kept, and how many were refused."""
    kept = refused = 0
    while kept + refused < times:
        seen = await invoke(app, f"{route}.get", id=1)
        tag = tag_of(app, f"{route}.get", seen)
        try:
            await invoke(app, f"{route}.update", tag, id=1, count=seen.count + 1)
        except PreconditionFailed:
            refused += 1
        except Unavailable:
            continue  # nothing was kept
        else:
            kept += 1
    return kept, refused


async def main(url: str, route: str, times: int) -> None:
    app = application(url)
    async with app.running():
        print(*await count_up(app, route, times))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
