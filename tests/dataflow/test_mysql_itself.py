"""What MySQL would be told: nothing that only MariaDB knows. The texts are looked at; there is no server."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa

from dataflow import DataFlow
from dataflow.assignments import parse_assignments
from dataflow.database import Database
from dataflow.dialects.mysql_driver import check_single
from dataflow.query import Where, compiled
from dataflow.schema import all_sql
from dataflow.store import Store
from dataflow.table import ModelTable
from nexus.errors import ConfigurationError, InvalidInput, Unavailable

ONLY_MARIADB = re.compile(
    r"RETURNING|JSON_EQUALS|JSON_(COMPACT|DETAILED|LOOSE|EXISTS)|nopad|CREATE( UNIQUE)? INDEX IF NOT EXISTS"
    r"|JSON_ARRAYAGG\([^)]*ORDER BY|ADD COLUMN IF NOT EXISTS|NEXT VALUE FOR|DELETE .* RETURNING",
    re.I,
)
DOCUMENTS: list[Any] = [
    {"tags": "a"},
    {"tags": {"$in": ["a", 1, None]}},
    {"tags": {"$contains": ["a", 2.5]}},
    {"tags": {"$overlap": ["a"]}},
    {"tags": {"$any": {"$gte": 90}}},
    {"tags": {"$size": 2}},
    {"meta.a.0.b": {"$gt": 3}},
    {"meta": {"a": [1, {"b": None}]}},
    {"meta": {"$contains": {"a": 1}}},
    {"meta.a": {"$regex": "^x", "$options": "i"}},
    {"meta.a": {"$exists": True}},
    {"name": {"$regex": "^x.*y$"}},
    {"name": {"$ilike": "%é%"}},
    {"name": {"$contains": "x"}},
    {"name": {"$in": ["a", "b"]}},
    {"$nor": [{"name": "x"}, {"tags": {"$elemMatch": {"a": {"$lt": "x"}}}}]},
]


@pytest.fixture
def store() -> Store:
    db = DataFlow("mysql://u@h/d")

    @db.model
    class Thing:
        name: str
        tags: list[Any] = []
        meta: dict[str, Any] = {}
        price: float = 0.0
        __indexes__ = [{"fields": ["name"], "unique": True}]

    dialect: Any = db.database.dialect
    dialect._learn("8.0.36")
    return db.store


def texts(store: Store) -> list[str]:
    database: Database = store._database
    dialect: Any = database.dialect
    (model,) = database.changes.models()
    table = ModelTable(model, dialect)
    made = all_sql(table, dialect)
    for document in DOCUMENTS:
        where = Where(model.parse_filter(document), table, dialect)
        made.append(compiled(store._select(table, where, (("name", True),), True), dialect).sql)
        made.append(compiled(sa.delete(table.table).where(where.clause()), dialect).sql)
    made.append(compiled(store._insert(table, {"v_name": "x", "v_id": 1}), dialect).sql)
    changes = parse_assignments(model, {"$inc": {"price": 1}, "$push": {"tags": 1}, "$set": {"name": "x"}})
    everything = store._everything(table)
    made.append(compiled(store._update(table, everything, changes, checked=False, seen=False), dialect).sql)
    return made


def table_of(told: list[str]) -> str:
    """The statement that makes the model's own table, and not one of the change log's."""
    return next(text for text in told if text.startswith("CREATE TABLE") and " things " in text)


def test_nothing_is_told_that_only_mariadb_knows(store: Store) -> None:
    told = texts(store)
    assert len(told) > 30
    assert [text for text in told if ONLY_MARIADB.search(text)] == []
    assert "utf8mb4_0900_bin" in table_of(told)
    assert store._dialect.returning == frozenset()
    assert not store._dialect.repeats_indexes


def test_mariadb_is_told_what_it_knows(store: Store) -> None:
    dialect: Any = store._dialect
    dialect._learn("5.5.5-10.11.6-MariaDB-0+deb12u1")
    told = texts(store)
    assert [text for text in told if "0900" in text] == []
    assert any("JSON_EQUALS" in text for text in told)
    assert "utf8mb4_nopad_bin" in table_of(told)
    assert store._dialect.returning == {"insert", "delete"}


@pytest.mark.parametrize("operator", ["$pull", "$addToSet"])
def test_what_mysql_cannot_do_yet_is_refused(store: Store, operator: str) -> None:
    (model,) = store._database.changes.models()
    table = ModelTable(model, store._dialect)
    changes = parse_assignments(model, {operator: {"tags": 1}})
    with pytest.raises(Unavailable, match="not available yet on this server"):
        store._update(table, store._everything(table), changes, checked=False, seen=False)


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("8.0.16", True),
        ("5.7.44-log", True),
        ("8.0.17", False),
        ("9.4.0", False),
        ("10.6.18-MariaDB", True),
        ("5.5.5-10.3.39-MariaDB-0+deb10u1", True),
        ("10.7.1-MariaDB", False),
        ("11.8.2-MariaDB-ubu2404", False),
    ],
)
def test_servers_that_are_too_old_are_refused(version: str, old: bool) -> None:
    dialect: Any = DataFlow("mysql://u@h/d").database.dialect
    if not old:
        dialect._learn(version)
        return
    with pytest.raises(ConfigurationError, match="too old"):
        dialect._learn(version)


@pytest.mark.parametrize(
    ("scheme", "collation"), [("mariadb", "utf8mb4_nopad_bin"), ("mysql", "utf8mb4_bin")]
)
def test_what_is_printed_before_the_server_is_known(scheme: str, collation: str) -> None:
    db = DataFlow(f"{scheme}://u@h/d")
    db.model(type("Thing", (), {"__annotations__": {"name": str}}))
    assert f"COLLATE {collation}" in table_of(db.install_sql())


@pytest.mark.parametrize(
    ("sql", "single"),
    [
        ("SELECT 1", True),
        ("SELECT 1 ; ", True),
        ("SELECT ';', \"a;b\", `c;d`, 'it''s; \\'; x' -- ; y", True),
        ("SELECT 1 /* ; */ # ; x\n + 1", True),
        ("SELECT 1; DELETE FROM x", False),
        ("SELECT 'a\\'; DELETE FROM x'", True),
        ("SELECT 'a\\\\'; DELETE FROM x", False),
        ("SELECT 1 --; x\n; COMMIT", False),
        ("SELECT 1 /*! ; COMMIT */", False),
        ("SELECT 1 /*M! + 1 */", False),
        ("SELECT 'unfinished; COMMIT", False),
    ],
)
def test_one_statement_at_a_time(sql: str, single: bool) -> None:
    if single:
        check_single(sql)
        return
    with pytest.raises(InvalidInput, match="one at a time"):
        check_single(sql)
