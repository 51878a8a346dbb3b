"""Running other programs: bounded, without a shell, ended by process id.

Each is in a session of its own, so that Ctrl-C reaches the command under test and not the servers
under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STOP_SECONDS = 15
GROUP_STOP_SECONDS = 5


class Unavailable(Exception):
    """A way to a database that did not lead there; the message says why."""


async def end(process: Process, signals: Sequence[signal.Signals], seconds: float) -> None:
    """Ask more and more firmly until the process has ended."""
    for number in signals:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)


async def end_group(process: Process) -> None:
    """End a process and what it has started, such as the programs of a shell script."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        give_up = asyncio.get_running_loop().time() + GROUP_STOP_SECONDS
        while asyncio.get_running_loop().time() < give_up:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.1)


async def run(command: Sequence[str], seconds: float, **options: Any) -> None:
    """Run a command to its end, or raise `Unavailable` with the last of what it said."""
    with tempfile.NamedTemporaryFile() as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            start_new_session=True,
            **options,
        )
        try:
            status = await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            raise Unavailable(f"{command[0]} took more than {seconds} s") from None
        finally:
            if process.returncode is None:
                await end_group(process)
        if status != 0:
            raise Unavailable(f"{command[0]} failed: {last_lines(Path(output.name))}")


def last_lines(log: Path, count: int = 4) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-count:]) or "it said nothing"


def identity(accounts: Sequence[str]) -> dict[str, Any]:
    """Options of a subprocess that make it run as another account when we are root."""
    if os.geteuid() != 0:
        return {}
    for account in accounts:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(account)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Unavailable(f"we are root and there is no account {' or '.join(accounts)} to run it as")


def leash() -> Sequence[str]:
    """A prefix that lets a server end when we do, even if we are killed; nothing where unknown."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv and sys.platform == "linux" else []


async def launch(command: Sequence[str], log: Path, **options: Any) -> Process:
    """Start a server that writes to the log; the caller ends it."""
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *leash(),
            *command,
            stdin=DEVNULL,
            stdout=output,
            stderr=STDOUT,
            start_new_session=True,
            **options,
        )
