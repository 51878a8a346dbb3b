"""Throw-away servers, as quick as they get: nothing in them outlives the run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from processes import STOP_SECONDS, Unavailable, end, identity, last_lines, launch, run
from servers import HOST, Server, Tools, admitted

INITIALISE_SECONDS = 60
START_SECONDS = 60


@contextlib.asynccontextmanager
async def private(server: Server) -> AsyncIterator[str]:
    """The URL of a throw-away server that lives as long as the context."""
    tools = server.find()
    options = identity(server.accounts)
    directory = Path(tempfile.mkdtemp(prefix="nexus-test-"))
    try:
        if options:
            os.chown(directory, options["user"], options["group"])
        options["cwd"] = directory
        await fill(server, tools, directory / "data", options)
        async with started(server, tools, directory, options) as url:
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def fill(server: Server, tools: Tools, data: Path, options: Mapping[str, Any]) -> None:
    failures = []
    for command in server.initialise(tools, data):
        try:
            return await run(command, INITIALISE_SECONDS, **options)
        except Unavailable as reason:
            failures.append(str(reason))
    raise Unavailable("; ".join(failures))


@contextlib.asynccontextmanager
async def started(
    server: Server, tools: Tools, directory: Path, options: Mapping[str, Any], port: int | None = None
) -> AsyncIterator[str]:
    port = port or free_port()
    log = directory / "log"
    process = await launch(server.serve(tools, directory / "data", port), log, **options)
    try:
        yield await answering(server, process, port, log)
    finally:
        await end(process, server.stop_signals, STOP_SECONDS)


async def answering(server: Server, process: Process, port: int, log: Path) -> str:
    """Wait until the server lets us in."""
    give_up = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        try:
            return await admitted(server, port)
        except Unavailable as refusal:
            reason = str(refusal)
        if process.returncode is not None:
            raise Unavailable(f"{server.name} ended at its start: {last_lines(log)}")
        if asyncio.get_running_loop().time() > give_up:
            raise Unavailable(f"{server.name} did not answer in {START_SECONDS} s: {reason}")
        await asyncio.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
