"""How a server is reached: passwords of any characters, TLS, sockets; and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from dataflow import DataFlow
from dataflow.dialects.address import NO_SETTINGS, address_from
from nexus.errors import ConfigurationError, DatabaseUrlError, Unavailable
from tests.support.certificates import Authority
from tests.support.private_servers import Private, private_server

PASSWORDS = [
    "MySecret#123$",
    "P@ssw0rd!",
    "Complex$ecret?",
    "Complex@Pass!",
    "a:b/c@d:5432/e",
    "50% off & more=?x=1",
    "%41%zz",
    "ä€ß 😀",
    " '\"\\`{}[]|^<>;,",
]


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[Private]:
    yield from private_server(request.param)


def run(server: Private, db: DataFlow, *statements: str) -> list[Any]:
    """The rows of the last statement, each run on its own."""

    async def work() -> list[Any]:
        try:
            connection = await db.database.pools.readers.take()
            try:
                for sql in statements:
                    rows = await connection.fetch(sql)
                return rows
            finally:
                db.database.pools.readers.give(connection)
        finally:
            await db.close()

    return server.runner.run(work())


def make_user(server: Private, name: str, password: str, more: str = "") -> None:
    text = password.replace("'", "''")
    if server.kind == "postgresql":
        made = [f'DROP ROLE IF EXISTS "{name}"', f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{text}'"]
        run(server, DataFlow(server.url), *made)
    else:
        text = text.replace("\\", "\\\\").replace("%", "%%")
        made = [
            f"DROP USER IF EXISTS '{name}'@'%%'",
            f"CREATE USER '{name}'@'%%' IDENTIFIED BY '{text}' {more}",
            f"GRANT ALL ON *.* TO '{name}'@'%%'",
        ]
        run(server, DataFlow(server.url), *made)


def encrypted(server: Private, db: DataFlow) -> bool:
    sql = (
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        if server.kind == "postgresql"
        else "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
    )
    return bool(run(server, db, sql)[0][-1])


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_stands_in_a_url_as_it_is(server: Private, password: str) -> None:
    if password == "%41%zz":  # what is percent-encoded is decoded, and a stray '%' is one
        make_user(server, "someone", "A%zz")
    else:
        make_user(server, "someone", password)
    assert run(server, DataFlow(server.where("someone", password)), "SELECT 1")[0][0] == 1


def test_a_wrong_password_is_not_shown(server: Private, caplog: pytest.LogCaptureFixture) -> None:
    make_user(server, "someone", "right")
    db = DataFlow(server.where("someone", "wr0ng#pa$$@?"), echo="values")
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable) as caught:
        run(server, db, "SELECT 1")
    assert str(caught.value) == "The database refuses the user or the password."
    told = [caplog.text, repr(db), repr(db.database), repr(vars(db.database)), repr(db.database.dialect)]
    told += [repr(db.database.dialect.address), db.name]  # type: ignore[attr-defined]
    assert not [text for text in told if "wr0ng" in text]


def test_a_database_that_is_missing(server: Private) -> None:
    url = server.url.rpartition("/")[0] + "/nothing_here"
    with pytest.raises(Unavailable, match="does not exist on the server"):
        run(server, DataFlow(url), "SELECT 1")


@pytest.mark.parametrize(
    ("mode", "host", "expected"),
    [
        ("disable", "127.0.0.1", False),
        ("prefer", "127.0.0.1", True),
        ("require", "127.0.0.1", True),
        ("REQUIRED", "127.0.0.1", True),
        ("verify-ca", "127.0.0.1", True),
        ("VERIFY_IDENTITY", "localhost", True),
        ("verify-full", "localhost", True),
    ],
)
def test_tls_of_every_mode(server: Private, mode: str, host: str, expected: bool) -> None:
    user = "postgres" if server.kind == "postgresql" else "root"
    settings: dict[str, Any] = {"ssl_ca": server.trusted.ca} if "verify" in mode.lower() else {}
    url = server.where(user, host=host, options=f"?sslmode={mode}")
    assert encrypted(server, DataFlow(url, **settings)) is expected


def test_a_server_that_cannot_be_verified_is_refused(server: Private) -> None:
    user = "postgres" if server.kind == "postgresql" else "root"
    stranger = Authority(server.folder, "stranger")
    url = server.where(user, host="localhost")
    with pytest.raises(Unavailable, match="certificate of the database server is not accepted"):
        run(server, DataFlow(url, ssl_ca=str(stranger.ca)), "SELECT 1")
    with pytest.raises(Unavailable, match="certificate of the database server is not accepted"):
        run(server, DataFlow(url, sslmode="verify-full"), "SELECT 1")
    with pytest.raises(Unavailable, match=r"not accepted: .*not valid for '127\.0\.0\.1'"):
        run(server, DataFlow(server.where(user), ssl_ca=str(server.trusted.ca)), "SELECT 1")
    assert encrypted(server, DataFlow(url, ssl_ca=str(server.trusted.ca)))


def test_a_certificate_is_shown(server: Private) -> None:
    certificate, key = server.trusted.sign("shows_certificate")
    make_user(server, "shows_certificate", "x", "REQUIRE X509")
    files = f"?sslrootcert={server.trusted.ca}&sslcert={certificate}&sslkey={key}"
    url = server.where("shows_certificate", "x", host="localhost")
    assert encrypted(server, DataFlow(url + files))
    with pytest.raises(Unavailable):
        run(server, DataFlow(url), "SELECT 1")


def test_a_user_who_must_use_tls(server: Private) -> None:
    make_user(server, "only_tls", "x", "REQUIRE SSL")
    assert encrypted(server, DataFlow(server.where("only_tls", "x")))
    with pytest.raises(Unavailable, match="refuses the user or the password"):
        run(server, DataFlow(server.where("only_tls", "x"), sslmode="disable"), "SELECT 1")


async def test_a_server_without_tls(database: str) -> None:
    if not database.startswith(("postgresql", "mysql")):
        with pytest.raises(DatabaseUrlError, match="SQLite has an unknown option 'sslmode'"):
            DataFlow(database, sslmode="require")
        return
    db = DataFlow(database, sslmode="require")
    db.model(type("Product", (), {"__annotations__": {"name": str}}))
    with pytest.raises(Unavailable, match="does not offer TLS"):
        await db.products.count()


def test_a_socket(server: Private) -> None:
    scheme, _, rest = server.url.partition("://")
    user, _, database = rest.partition("@")[0], "", rest.rpartition("/")[2]
    port = rest.rpartition(":")[2].partition("/")[0]
    option = "host" if server.kind == "postgresql" else "unix_socket"
    options = f"?{option}={server.socket}"
    for url in (
        f"{scheme}://{user}@:{port}/{database}{options}",
        f"{scheme}://{user}@localhost:{port}/{database}{options}",
    ):
        db = DataFlow(url)
        assert run(server, db, "SELECT 1")[0][0] == 1
        assert server.socket in repr(db.database.dialect.address)  # type: ignore[attr-defined]
    db = DataFlow(f"{scheme}://{user}@:{port}/{database}", unix_socket=server.socket)
    assert not encrypted(server, db)
    with pytest.raises(DatabaseUrlError, match="no TLS on a unix socket"):
        DataFlow(f"{scheme}://{user}@:{port}/{database}{options}&sslmode=require")
    with pytest.raises(DatabaseUrlError, match="names two places"):
        DataFlow(server.url + options)


def test_the_server_is_told_who_is_there(server: Private) -> None:
    sql = (
        "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        if server.kind == "postgresql"
        else "SELECT @@collation_connection"
    )
    if server.kind == "postgresql":
        assert run(server, DataFlow(server.url, application_name="shop"), sql)[0][0] == "shop"
        assert run(server, DataFlow(server.url + "?application_name=a%20b"), sql)[0][0] == "a b"
    else:
        options = "?charset=utf8mb4&collation=utf8mb4_unicode_ci&application_name=shop"
        assert run(server, DataFlow(server.url + options), sql)[0][0] == "utf8mb4_unicode_ci"


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("rest", ["{}@[::1]:99/d-b_1?sslmode=require", "{}@h.example/d-b_1"])
def test_a_url_is_taken_apart(password: str, rest: str) -> None:
    known = frozenset({"sslmode"})
    text = rest.format(f"us%40er:{password}")
    found = address_from(text, NO_SETTINGS, owner="here", port=1, user="u", known=known)
    assert (found.user, found.database) == ("us@er", "d-b_1")
    assert (found.host, found.port) == (("::1", 99) if "::1" in rest else ("h.example", 1))
    assert found.password == (password if password != "%41%zz" else "A%zz")
    assert password not in repr(found)


@pytest.mark.parametrize(
    ("options", "given", "said"),
    [
        ("?sslmode=maybe", {}, "no sslmode 'maybe'"),
        ("?sslmode=verify-ful", {}, "Did you mean 'verify-full'"),
        ("?ssl_ca=/no/such/ca.pem", {}, "ssl_ca: there is no file '/no/such/ca.pem'"),
        ("", {"ssl_cert": "/no/such/cert.pem"}, "ssl_cert: there is no file"),
        ("?sslrootcert={ca}&sslmode=require", {}, "verifies nothing"),
        ("?sslcert={ca}&sslmode=prefer", {}, "may never be shown"),
        ("?sslkey={ca}", {}, "belongs to a certificate"),
        ("?sslcert={ca}", {}, "files for TLS cannot be used"),
        ("?ssl_verify_cert=perhaps", {}, "is true or false"),
        ("?ssl_verify_cert=true&sslmode=require", {}, "say the same"),
        ("?sslmode=require", {"sslmode": "disable"}, "'sslmode' is given twice, and differs"),
        ("?sslmode=require&sslmode=disable", {}, "given twice"),
        ("?conect_timeout=3", {}, "unknown option 'conect_timeout'. Did you mean 'connect_timeout'"),
        ("?connect_timeout=soon", {}, "must be a positive number"),
        ("?connect_timeout=nan", {}, "must be a positive number"),
        ("", {"connect_timeout": 0}, "must be a positive number"),
        ("", {"cache_size_mb": 3}, "has an unknown option 'cache_size_mb'"),
        ("", {"sslmode": ["require"]}, "a text or a number, not list"),
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_what_cannot_be_honoured_is_refused(
    scheme: str, options: str, given: dict[str, Any], said: str, tmp_path: Any
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate")
    url = f"{scheme}://u:S3cr3t@127.0.0.1:1/d{options.format(ca=ca)}"
    with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")) as caught:
        db = DataFlow(url, **given)
        db.model(type("Product", (), {"__annotations__": {"name": str}}))
        db.sync.products.count()
    assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "prefer"),
        ({"ssl_cert": "{ca}"}, "require"),
        ({"ssl_ca": "{ca}"}, "verify-full"),
        ({"ssl_ca": "{ca}", "ssl_verify_cert": True}, "verify-ca"),
        ({"ssl_ca": "{ca}", "ssl_verify_identity": False}, "verify-ca"),
        ({"ssl_ca": "{ca}", "ssl_check_hostname": True}, "verify-full"),
        ({"ssl_verify_cert": True}, "verify-ca"),
        ({"ssl_verify_cert": False}, "require"),
        ({"ssl_mode": "PREFERRED"}, "prefer"),
    ],
)
def test_what_is_verified_follows_from_what_is_given(
    options: dict[str, Any], mode: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate")
    filled = {k: ca if v == "{ca}" else v for k, v in options.items()}
    for scheme in ("postgresql", "mysql"):
        dialect: Any = DataFlow(f"{scheme}://u@h/d", **filled).database.dialect
        assert dialect._tls.mode == mode
    for name, value in filled.items():
        monkeypatch.setenv(f"DATAFLOW_{name.upper()}", str(value))
    dialect = DataFlow("postgresql://u@h/d").database.dialect
    assert dialect._tls.mode == mode
    assert DataFlow(":memory:").name == "memory"  # what another database needs is none of its business


def test_the_password_of_a_key(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "authority").sign("someone")
    made = load_pem_private_key(key.read_bytes(), None)
    locked = BestAvailableEncryption(b"0pen")
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    for scheme in ("postgresql", "mysql"):
        db = DataFlow(f"{scheme}://u@h/d?sslpassword=0pen", ssl_cert=certificate, ssl_key=str(key))
        dialect: Any = db.database.dialect
        assert dialect._tls.context()
        assert "0pen" not in repr(vars(dialect)) + repr(dialect.address) + repr(vars(db))
        wrong: Any = DataFlow(f"{scheme}://u@h/d", ssl_cert=certificate, ssl_key=key).database.dialect
        with pytest.raises(DatabaseUrlError, match="files for TLS cannot be used"):
            wrong._tls.context()
        with pytest.raises(DatabaseUrlError, match="belongs to a key") as caught:
            DataFlow(f"{scheme}://u@h/d", ssl_key_password="0pen")
        assert "0pen" not in str(caught.value)


def test_a_unix_socket_or_a_host_in_the_options() -> None:
    def place(url: str) -> str:
        dialect: Any = DataFlow(url).database.dialect
        return repr(dialect.address)

    assert place("postgresql:///shop?host=/var/run/postgresql") == "postgres@/var/run/postgresql/shop"
    assert place("postgresql:///shop?host=db.example") == "postgres@db.example:5432/shop"
    assert place("mysql://u@/shop?unix_socket=/run/my+sql.sock") == "u@/run/my+sql.sock/shop"


def test_too_many_connections(server: Private) -> None:
    make_user(server, "only_one", "x", "WITH MAX_USER_CONNECTIONS 1")
    if server.kind == "postgresql":
        run(server, DataFlow(server.url), "ALTER ROLE only_one CONNECTION LIMIT 1")
    first, second = (DataFlow(server.where("only_one", "x")) for _ in range(2))

    async def both() -> None:
        held = await first.database.pools.readers.take()
        try:
            with pytest.raises(Unavailable, match="takes no more connections") as caught:
                await second.database.pools.readers.take()
            assert caught.value.code == "NX-503"
        finally:
            first.database.pools.readers.give(held)
            await first.close()
            await second.close()

    server.runner.run(both())
