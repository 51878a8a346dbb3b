"""`nexus install`: the tables on purpose, or what would make them."""

from __future__ import annotations

import sqlite3

import pytest

from tests.channels.cli.terminal import Terminal

SHOP = """
from dataflow import DataFlow
from nexus import Nexus

db, other = DataFlow("sqlite:///shop.db"), DataFlow("sqlite:///people.db")


@db.model
class Product:
    name: str


@other.model
class Person:
    name: str


app = Nexus(db)
app.attach(other)
"""


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    (terminal.folder / "app.py").write_text(SHOP)
    return terminal


def tables(terminal: Terminal, name: str) -> set[str]:
    with sqlite3.connect(terminal.folder / name) as database:
        found = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    return found


def test_it_makes_the_tables_of_every_database(shop: Terminal) -> None:
    assert shop.call("install").result == {"installed": ["products", "people"]}
    assert {"products", "dataflow_changes", "dataflow_products_create"} <= tables(shop, "shop.db")
    assert {"people", "dataflow_changes"} <= tables(shop, "people.db")
    assert shop.call("install").result == {"installed": ["products", "people"]}
    assert shop.call("products", "list").result["count"] == 0


def test_sql_is_printed_and_nothing_touched(shop: Terminal) -> None:
    script = shop.call("install", "--sql").out
    assert not (shop.folder / "shop.db").exists()
    database = sqlite3.connect(":memory:")
    database.executescript(script)
    made = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"products", "people", "dataflow_changes", "dataflow_people_create"} <= made


def test_without_models_there_is_nothing_to_do(terminal: Terminal) -> None:
    assert terminal.call("install").result == {"installed": []}
    assert terminal.call("install", "--sql").out == ""


def test_a_database_that_cannot_be_reached(shop: Terminal) -> None:
    (shop.folder / "app.py").write_text(SHOP.replace("sqlite:///shop.db", "sqlite:///no/shop.db"))
    ended = shop.call("install")
    assert (ended.code, ended.out) == (6, "")
    assert ended.err.startswith("error NX-503: ")
