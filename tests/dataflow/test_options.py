"""Every argument and variable that is documented somewhere is honoured, or refused by its name."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Session
from nexus.errors import ConfigurationError, DatabaseUrlError, NexusError, RegistrationError

HONOURED: list[tuple[dict[str, Any], str]] = [
    ({"database_url": ":memory:"}, ""),
    ({"database": ":memory:"}, ""),
    ({"name": "shop"}, ":memory:"),
    ({"auto_migrate": False, "existing_schema_mode": True}, ":memory:"),
    ({"enable_connection_pooling": True, "pool_size": 10, "max_overflow": 20}, ":memory:"),
    ({"pools": {"postgresql://prod-db/main": {"pool_size": 50, "max_overflow": 100}}}, ":memory:"),
    ({"pool_max_overflow": 30, "pool_recycle": 3600, "pool_pre_ping": True, "pool_timeout": 30}, ":memory:"),
    ({"connection_pool_size": 5}, ":memory:"),
    ({"enable_wal": True, "cache_size_mb": 64, "pool_size": 5}, ":memory:"),
    ({"charset": "utf8mb4", "pool_size": 15}, "mysql://user:pass@localhost:3306/db"),
    ({"application_name": "shop", "connect_timeout": 3}, "postgresql://user:pass@localhost:5432/db"),
    ({"monitoring": False, "echo": False, "audit_logging": False, "read_replica": None}, ":memory:"),
    ({"schema_cache_enabled": True, "schema_cache_ttl": None, "schema_cache_validation": False}, ":memory:"),
    ({"multi_tenant": True, "tenant_isolation": "strict"}, ":memory:"),
    ({"async_operations": True, "enable_metrics": True, "enable_model_persistence": False}, ":memory:"),
    ({"test_mode": False, "deterministic_ids": False, "encryption_at_rest": False}, ":memory:"),
]
REFUSED: dict[str, object] = {
    "analytics_db": "postgresql://u:p@localhost/analytics",
    "audit_logging": True,
    "bulk_batch_size": 1000,
    "cache_backend": "redis",
    "cache_ttl": 300,
    "data_retention_days": 90,
    "deterministic_ids": True,
    "enable_caching": True,
    "enable_connection_pooling": False,
    "enable_metrics": False,
    "enable_model_persistence": True,
    "encryption_at_rest": True,
    "encryption_enabled": True,
    "encryption_key": "from_env",
    "error_enhancement_mode": "FULL",
    "gdpr_compliance": True,
    "log_config": object(),
    "log_level": logging.WARNING,
    "monitoring": True,
    "pool_reset_on_return": "commit",
    "query_cache_enabled": True,
    "read_replica": "postgresql://readonly:Complex@Pass!@replica:5432/production",
    "read_replica_enabled": True,
    "safety_level": "maximum",
    "schema_cache_enabled": False,
    "schema_cache_max_size": 10000,
    "schema_cache_ttl": 300,
    "schema_cache_validation": True,
    "slow_query_threshold": 100,
    "tenant_database_prefix": "tenant_",
    "tenant_id_header": "X-Tenant-ID",
    "tenant_isolation": "none",
    "test_mode": True,
    "test_mode_aggressive_cleanup": True,
}


@pytest.mark.parametrize(("given", "url"), HONOURED)
def test_documented_arguments_are_honoured(given: dict[str, Any], url: str) -> None:
    db = DataFlow(url, **given) if url else DataFlow(**given)
    db.model(type("Product", (), {"__annotations__": {"name": str}}))


@pytest.mark.parametrize("name", REFUSED)
def test_or_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DataFlow(":memory:", **{name: REFUSED[name]})  # type: ignore[arg-type]
    assert caught.value.detail.startswith(name)
    assert caught.value.remedy
    assert "Complex@Pass!" not in str(caught.value)


@pytest.mark.parametrize("name", ["ssl_ca", "ssl_cert", "ssl_key"])
def test_files_are_looked_for_at_once(name: str) -> None:
    with pytest.raises(DatabaseUrlError, match=f"{name}: there is no file '/path/to/it.pem'"):
        DataFlow("mysql://user:password@localhost:3306/mydb", **{name: "/path/to/it.pem"})


@pytest.mark.parametrize(
    ("name", "near"),
    [("pool_sise", "pool_size"), ("sslmod", "sslmode"), ("databse_url", "database_url"), ("zzz", "")],
)
def test_what_there_is_not_is_a_type_error(name: str, near: str) -> None:
    with pytest.raises(
        TypeError, match=f"no option '{name}'" + (f"; did you mean '{near}'" if near else "$")
    ):
        DataFlow(":memory:", **{name: 1})  # type: ignore[arg-type]


OTHERS = """CORE_LOG_LEVEL ENABLE_METRICS EXECUTION_TIMEOUT HEALTH_ENDPOINT LIST_OPERATIONS_LOG_LEVEL
    LOG_LEVEL MASK_SENSITIVE METRICS_ENDPOINT MIGRATION_LOG_LEVEL NODE_EXECUTION_LOG_LEVEL READINESS_ENDPOINT
    REDIS_URL SQL_GENERATION_LOG_LEVEL"""


@pytest.mark.parametrize("variable", list(map("DATAFLOW_{}".format, OTHERS.split())))
def test_variables_of_others_are_left_to_them(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    DataFlow(":memory:")


def test_without_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataFlow().database.dialect.location == str(tmp_path / "data.db")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("DATAFLOW_DATABASE_URL", "postgresql://u:secret@h/second")
    assert DataFlow().database.dialect.location == "u@h:5432/second"
    monkeypatch.setenv("DATABASE_URL", "sqlite:///first.db")
    assert DataFlow().database.dialect.location == str(tmp_path / "first.db")
    with pytest.raises(ConfigurationError, match="another word for 'database_url'"):
        DataFlow(":memory:", database=":memory:")
    with pytest.raises(ConfigurationError, match="must be a text"):
        DataFlow("")


@pytest.mark.parametrize(
    ("url", "given", "name"),
    [
        (":memory:", None, "memory"),
        ("sqlite:///some/where/shop.db", None, "shop"),
        ("postgresql://u@h/shop_main", None, "shop_main"),
        ("mysql://u@h/shop?returning=off", None, "shop"),
        (":memory:", "Second shop", "Second shop"),
    ],
)
def test_an_instance_has_a_name(url: str, given: str | None, name: str) -> None:
    assert DataFlow(url, name=given).name == name


@pytest.mark.parametrize("name", ["", "  ", "n" * 101])
def test_a_name_says_something(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a DataFlow"):
        DataFlow(":memory:", name=name)


async def test_all_models_of_an_instance_can_be_multi_tenant(database: str) -> None:
    db = DataFlow(database, multi_tenant=True)

    @db.model
    class Product:
        name: str
        __indexes__ = [{"fields": ["name"], "unique": True}]

    @db.model
    class Country:
        name: str
        __dataflow__ = {"multi_tenant": False}

    with db.tenant("acme"):
        assert (await db.products.create(name="Lamp"))["tenant_id"] == "acme"
    with db.tenant("other"):
        assert (await db.products.list())["records"] == []
        await db.products.create(name="Lamp")
    assert "tenant_id" not in await db.countries.create(name="Chad")
    with pytest.raises(NexusError):
        await db.as_session(Session(id="1", user="ada", scopes=LOCAL.scopes)).products.list()
    await db.close()


def test_of_which_a_model_may_have_its_own() -> None:
    db = DataFlow(":memory:", multi_tenant=True)
    with pytest.raises(RegistrationError, match="'tenant_id' cannot be a field"):
        db.model(type("Product", (), {"__annotations__": {"tenant_id": str}}))


async def test_the_cache_of_a_file_is_as_large_as_it_is_said(tmp_path: Path) -> None:
    db = DataFlow(f"sqlite:///{tmp_path / 'x.db'}", cache_size_mb=64)
    for slots in (db.database.pools.readers, db.database.pools.writer):
        connection = await slots.take()
        assert (await connection.fetch("PRAGMA cache_size"))[0][0] == -65536
        slots.give(connection)
    await db.close()
    for wrong in (0, -1, "much", "nan"):
        with pytest.raises(DatabaseUrlError, match="cache_size_mb"):
            DataFlow(":memory:", cache_size_mb=wrong)


def test_memory_is_one_for_tasks_threads_and_loops() -> None:
    """And another for another instance."""
    db, other = DataFlow(":memory:"), DataFlow(":memory:")
    for each in (db, other):
        each.model(type("Product", (), {"__annotations__": {"name": str}}))

    async def some() -> None:
        await asyncio.gather(*(db.products.create(name=str(n)) for n in range(5)))

    asyncio.run(some())
    asyncio.run(some())
    threads = [threading.Thread(target=asyncio.run, args=(some(),)) for _ in range(2)]
    threads += [threading.Thread(target=db.sync.products.create, kwargs={"name": "x"}) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.sync.products.count() == {"count": 25}
    assert other.sync.products.count() == {"count": 0}
