"""PostgreSQL and MariaDB: how to log in, and how to run a private one."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import getpass
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import aiomysql
import asyncpg
from processes import Unavailable

HOST = "127.0.0.1"
DATABASE = "nexus_test"
LOGIN_SECONDS = 5

Tools = Mapping[str, str]


class Server(abc.ABC):
    """What differs between the two servers."""

    name: ClassVar[str]
    variable: ClassVar[str]
    port: ClassVar[int]
    package: ClassVar[str]
    accounts: ClassVar[Sequence[str]]
    """Who runs a private server when we are root, which both servers refuse to be; best first."""
    stop_signals: ClassVar[Sequence[signal.Signals]]
    """Polite first."""

    @abc.abstractmethod
    async def prepare(self, port: int) -> str:
        """Log in, make the test database if it is missing, and answer its URL; or `Unavailable`."""

    @abc.abstractmethod
    def find(self) -> Tools:
        """The paths of the binaries, or `Unavailable`."""

    @abc.abstractmethod
    def initialise(self, tools: Tools, data: Path) -> Sequence[Sequence[str]]:
        """Commands that fill the data directory; the first that succeeds is enough."""

    @abc.abstractmethod
    def serve(self, tools: Tools, data: Path, port: int) -> Sequence[str]:
        """The server in the foreground, quick instead of durable."""


class PostgreSQL(Server):
    name = "PostgreSQL"
    variable = "NEXUS_TEST_POSTGRESQL_URL"
    port = 5432
    package = "postgresql"
    accounts = ("postgres", "nobody")
    stop_signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    async def prepare(self, port: int) -> str:
        refusals = []
        for user in dict.fromkeys(("postgres", "root", getpass.getuser())):
            try:
                await self.create_database(port, user)
            except OSError as error:
                raise Unavailable(first_line(error)) from error
            except (
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                refusals.append(first_line(error))
            else:
                return f"postgresql://{user}@{HOST}:{port}/{DATABASE}"
        raise Unavailable("; ".join(refusals))

    async def create_database(self, port: int, user: str) -> None:
        connection = await asyncpg.connect(
            host=HOST, port=port, user=user, database="postgres", ssl=False, timeout=LOGIN_SECONDS
        )
        try:
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if await connection.fetchval(known, DATABASE) is None:
                # From template0, because a cluster made in an old locale is not UTF-8 by default.
                with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                    await connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'")
        finally:
            await connection.close(timeout=LOGIN_SECONDS)

    def find(self) -> Tools:
        # By number, so that 9.6 comes after 15.
        places = sorted(
            Path("/usr/lib/postgresql").glob("[0-9]*/bin"),
            key=lambda place: [int(n) for n in place.parent.name.split(".") if n.isdigit()],
            reverse=True,
        )
        on_path = shutil.which("initdb")
        if on_path is not None:
            places.append(Path(on_path).resolve().parent)
        for place in places:
            tools = {tool: str(place / tool) for tool in ("initdb", "postgres")}
            if all(map(os.path.exists, tools.values())):
                return tools
        raise Unavailable("no initdb and postgres in /usr/lib/postgresql/*/bin or on PATH")

    def initialise(self, tools: Tools, data: Path) -> Sequence[Sequence[str]]:
        command = [tools["initdb"], f"--pgdata={data}", "--username=postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--no-sync"]
        return [[*command, f"--locale={locale}"] for locale in ("C.UTF-8", "C")]

    def serve(self, tools: Tools, data: Path, port: int) -> Sequence[str]:
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        command = [tools["postgres"], "-D", str(data), "-p", str(port)]
        return command + [f"--{name}={value}" for name, value in settings.items()]


class MariaDB(Server):
    name = "MariaDB"
    variable = "NEXUS_TEST_MYSQL_URL"
    port = 3306
    package = "mariadb-server"
    accounts = ("mysql", "nobody")
    stop_signals = (signal.SIGTERM, signal.SIGKILL)

    async def prepare(self, port: int) -> str:
        try:
            await self.create_database(port)
        except (OSError, aiomysql.MySQLError) as error:
            raise Unavailable(first_line(error)) from error
        return f"mysql://root@{HOST}:{port}/{DATABASE}"

    async def create_database(self, port: int) -> None:
        connection = await aiomysql.connect(
            host=HOST, port=port, user="root", password="", connect_timeout=LOGIN_SECONDS
        )
        try:
            async with connection.cursor() as cursor:
                # Asked first, because IF NOT EXISTS answers with a warning.
                known = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
                if not await cursor.execute(known, (DATABASE,)):
                    await cursor.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE} CHARACTER SET utf8mb4")
        finally:
            connection.close()

    def find(self) -> Tools:
        # Debian keeps daemons in a directory that is not on everybody's PATH.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

        def first(*names: str) -> str | None:
            return next(filter(None, (shutil.which(name, path=path) for name in names)), None)

        server = first("mariadbd", "mysqld")
        install = first("mariadb-install-db", "mysql_install_db")
        if server is None or install is None:
            raise Unavailable("no mariadbd (or mysqld) with mariadb-install-db on PATH")
        return {"server": server, "install": install}

    def initialise(self, tools: Tools, data: Path) -> Sequence[Sequence[str]]:
        command = [tools["install"], "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        return [[*command, "--auth-root-authentication-method=normal", "--skip-name-resolve"]]

    def serve(self, tools: Tools, data: Path, port: int) -> Sequence[str]:
        return [
            tools["server"],
            "--no-defaults",
            f"--datadir={data}",
            f"--port={port}",
            f"--bind-address={HOST}",
            f"--socket={data.parent / 'socket'}",
            f"--pid-file={data.parent / 'pid'}",
            "--skip-name-resolve",
            "--max-connections=200",
            # `loose`: a version that does not know one of these warns instead of stopping.
            "--loose-innodb-flush-log-at-trx-commit=0",
            "--loose-innodb-flush-method=nosync",
            "--loose-innodb-doublewrite=0",
        ]


async def admitted(server: Server, port: int) -> str:
    """The URL of the test database on that port, in bounded time, or `Unavailable`."""
    try:
        return await asyncio.wait_for(server.prepare(port), 2 * LOGIN_SECONDS)
    except TimeoutError:
        raise Unavailable("no answer in time") from None


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
