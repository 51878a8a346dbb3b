"""Servers of our own that ask for passwords, speak TLS and listen on a socket."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "scripts" / "databases"))

from private import private
from processes import Unavailable, identity
from servers import MariaDB, PostgreSQL, Server, Tools

_ACCESS = """
local all all trust
host all postgres 127.0.0.1/32 trust
hostssl all shows_certificate 127.0.0.1/32 cert
host all shows_certificate 127.0.0.1/32 reject
hostssl all only_tls 127.0.0.1/32 scram-sha-256
host all only_tls 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
"""


@dataclass
class Private:
    """`url` is of one who may do everything. The certificate of the server is for the name localhost."""

    kind: str
    url: str
    socket: str
    trusted: Authority
    folder: Path
    runner: asyncio.Runner

    def where(self, user: str, password: str = "", host: str = "127.0.0.1", options: str = "") -> str:
        """The URL for somebody else."""
        scheme, _, rest = self.url.partition("://")
        port, _, database = rest.rpartition(":")[2].partition("/")
        secret = f":{password}" if password else ""
        return f"{scheme}://{user}{secret}@{host}:{port}/{database}{options}"


class _Postgresql(PostgreSQL):
    def __init__(self, certificate: Path, key: Path, ca: Path) -> None:
        self.files = {"ssl_cert_file": certificate, "ssl_key_file": key, "ssl_ca_file": ca}

    def serve(self, tools: Tools, data: Path, port: int) -> Sequence[str]:
        (data / "pg_hba.conf").write_text(_ACCESS)
        more = {"ssl": "on", "unix_socket_directories": data.parent, **self.files}
        return [*super().serve(tools, data, port), *(f"--{name}={value}" for name, value in more.items())]


class _Mariadb(MariaDB):
    def __init__(self, certificate: Path, key: Path, ca: Path) -> None:
        self.files = {"ssl-cert": certificate, "ssl-key": key, "ssl-ca": ca}

    def serve(self, tools: Tools, data: Path, port: int) -> Sequence[str]:
        self.socket = data.parent / "socket"
        return [
            *super().serve(tools, data, port),
            *(f"--{name}={value}" for name, value in self.files.items()),
        ]


def private_server(kind: str) -> Iterator[Private]:
    """Skips where the server's programs are not installed."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        place = Path(folder)
        place.chmod(0o755)
        trusted = Authority(place, "authority")
        certificate, key = trusted.sign("server", "localhost")
        server: Server = (_Postgresql if kind == "postgresql" else _Mariadb)(certificate, key, trusted.ca)
        try:
            account: dict[str, Any] = identity(server.accounts)
            if account:
                os.chown(key, account["user"], account["group"])
            opened = private(server)
            url = runner.run(opened.__aenter__())
        except Unavailable as reason:
            pytest.skip(f"no private {server.name}: {reason}")
        try:
            yield Private(kind, url, _socket(server, url), trusted, place, runner)
        finally:
            runner.run(opened.__aexit__(None, None, None))


def _socket(server: Server, url: str) -> str:
    if isinstance(server, _Mariadb):
        return str(server.socket)
    port = url.rpartition(":")[2].partition("/")[0]
    (found,) = Path(tempfile.gettempdir()).glob(f"nexus-test-*/.s.PGSQL.{port}")
    return str(found.parent)
