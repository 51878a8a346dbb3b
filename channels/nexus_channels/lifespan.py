"""The lifespan protocol of ASGI, from the server's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message

from nexus.errors import ConfigurationError

_STARTUP, _SHUTDOWN = "lifespan.startup", "lifespan.shutdown"


@asynccontextmanager
async def entered(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """The lifespan of an application; gives its state. One that does not speak the protocol, and raises
    at its first word, has none.

    Raises ConfigurationError when it cannot start."""
    state: dict[str, Any] = {}
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}

    async def run() -> None:
        await app(scope, to_app.get, from_app.put)

    # A task of its own: what it enters must be left in the task that entered it.
    running = asyncio.create_task(run())
    try:
        said = await _said(from_app, to_app, running, _STARTUP)
        if said.get("type") == f"{_STARTUP}.failed":
            raise ConfigurationError(f"What is mounted cannot start: {said.get('message') or 'it failed'}.")
        yield state
        said = await _said(from_app, to_app, running, _SHUTDOWN)
        if said.get("type") == f"{_SHUTDOWN}.failed":
            raise ConfigurationError(f"What is mounted did not end well: {said.get('message')}.")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _said(
    from_app: asyncio.Queue[Message], to_app: asyncio.Queue[Message], running: asyncio.Task[None], event: str
) -> Message:
    """What the application answers to an event; nothing when it has ended."""
    to_app.put_nowait({"type": event})
    answer = asyncio.ensure_future(from_app.get())
    await asyncio.wait({answer, running}, return_when=asyncio.FIRST_COMPLETED)
    if answer.done() or not from_app.empty():
        return await answer
    answer.cancel()
    return {}
