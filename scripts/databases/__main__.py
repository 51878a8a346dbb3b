"""Run a command with a PostgreSQL and a MariaDB at hand.

    python scripts/databases COMMAND [ARGUMENT ...]

The command finds the two in ``NEXUS_TEST_POSTGRESQL_URL`` and ``NEXUS_TEST_MYSQL_URL``. For each of
them, the first that is to be had:

1. the variable as the caller has set it, unchecked;
2. a server on the default port of 127.0.0.1 that lets us in without a password (passed over with
   ``NEXUS_TEST_PRIVATE=1``); the tests get a database of their own there, ``nexus_test``;
3. a throw-away server from installed binaries, in a temporary directory and on a free port of
   127.0.0.1, stopped at the end. Where binaries are missing, root on Debian installs them first;
4. nothing: then the variable is not set, and what is missing is printed with the reasons.

The exit status is the command's own. With ``CI=true``, where nothing may be missing, it is never 0
if something is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence

from private import private
from processes import Unavailable, end, run
from servers import DATABASE, HOST, MariaDB, PostgreSQL, Server, admitted

APT_UPDATE_SECONDS = 120
APT_INSTALL_SECONDS = 300
COMMAND_GRACE_SECONDS = 10


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def say(message: str) -> None:
    # pytest writes to the same place: without a flush the order would be lost in a pipe.
    print(message, flush=True)


async def running(server: Server) -> str:
    """The URL of the server on the default port, if it lets us in."""
    if is_set("NEXUS_TEST_PRIVATE"):
        raise Unavailable("running servers are ignored (NEXUS_TEST_PRIVATE)")
    try:
        url = await admitted(server, server.port)
    except Unavailable as reason:
        raise Unavailable(f"{HOST}:{server.port}: {reason}") from reason
    say(f"{server.name}: the running server on {HOST}:{server.port}, database {DATABASE}")
    return url


async def install(servers: Sequence[Server]) -> None:
    """Install what is missing, as root on Debian; elsewhere `Unavailable`."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise Unavailable("installing it needs root and apt-get")
    packages = [server.package for server in servers]
    say(f"Installing {' and '.join(packages)} with apt-get (a few minutes)")
    # RUNLEVEL asks the packages' scripts not to start servers: the private ones are enough.
    options = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}}
    await run([apt, "update"], APT_UPDATE_SECONDS, **options)
    command = [apt, "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=60"]
    await run([*command, *packages], APT_INSTALL_SECONDS, **options)


def is_installed(server: Server) -> bool:
    try:
        server.find()
    except Unavailable:
        return False
    return True


class Databases:
    """The URLs by variable, and of what is missing the reasons."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = servers
        self.urls: dict[str, str] = {}
        self.reasons: dict[str, list[str]] = {server.variable: [] for server in servers}

    def missing(self) -> list[Server]:
        return [server for server in self.servers if server.variable not in self.urls]

    async def make_sure(self, stack: contextlib.AsyncExitStack) -> None:
        """Try each way for what is missing then; what was started ends with the stack."""
        for server in self.servers:
            if url := os.environ.get(server.variable):
                self.urls[server.variable] = url
                say(f"{server.name}: the one {server.variable} names")
        await asyncio.gather(*(self.use_running(server) for server in self.missing()))
        await self.install_missing()
        await asyncio.gather(*(self.start(server, stack) for server in self.missing()))

    async def use_running(self, server: Server) -> None:
        try:
            self.urls[server.variable] = await running(server)
        except Unavailable as reason:
            self.reasons[server.variable].append(str(reason))

    async def install_missing(self) -> None:
        absent = [server for server in self.missing() if not is_installed(server)]
        if not absent:
            return
        try:
            await install(absent)
        except Unavailable as reason:
            for server in absent:
                self.reasons[server.variable].append(str(reason))

    async def start(self, server: Server, stack: contextlib.AsyncExitStack) -> None:
        try:
            url = await stack.enter_async_context(private(server))
        except (Unavailable, OSError) as reason:
            self.reasons[server.variable].append(str(reason))
        else:
            self.urls[server.variable] = url
            say(f"{server.name}: a private server for this run, {url}")

    def report_missing(self) -> None:
        for server in self.missing():
            say(f"{server.name}: MISSING, so its tests cannot run.")
            for reason in self.reasons[server.variable]:
                say(f"  - {reason}")


async def execute(command: Sequence[str], environment: Mapping[str, str], received: Sequence[int]) -> int:
    """The exit status of the command, which has the terminal. Interrupted, it may tidy up first."""
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        return await process.wait()
    except asyncio.CancelledError:
        # After Ctrl-C the terminal has told the command already, and a second SIGINT would cut its
        # tidying short.
        if signal.SIGINT in received:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), COMMAND_GRACE_SECONDS)
        await end(process, (signal.SIGINT, signal.SIGKILL), COMMAND_GRACE_SECONDS)
        raise


async def attend(command: Sequence[str], received: Sequence[int]) -> int:
    async with contextlib.AsyncExitStack() as stack:
        databases = Databases([PostgreSQL(), MariaDB()])
        await databases.make_sure(stack)
        databases.report_missing()
        status = await execute(command, {**os.environ, **databases.urls}, received)
    if databases.missing() and is_set("CI"):
        databases.report_missing()
        say("Under CI no database may be missing: the run has failed.")
        return status or 1
    return status


async def main(command: Sequence[str]) -> int:
    received: list[int] = []
    task = asyncio.create_task(attend(command, received))

    def interrupt(number: int) -> None:
        # Once only: what follows is tidying up, and its waits are bounded.
        if not received:
            received.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        return 128 + received[0]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} COMMAND [ARGUMENT ...]")
    sys.exit(asyncio.run(main(sys.argv[1:])))
