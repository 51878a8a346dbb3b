"""Serves things on any free port, as a program: `python -m tests.support.serve_things`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from nexus import Call
from tests.support.things import Things, application

app = application(Things(), drain=float(os.environ.get("NEXUS_DRAIN", "0")))


@app.operation
async def block(call: Call) -> None:
    """Sit in a thread, where nothing can cancel it."""
    await asyncio.to_thread(time.sleep, 60)


@app.operation
async def stubborn(call: Call) -> None:
    """Not give up when cancelled."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


if __name__ == "__main__":
    app.serve(port=0)
