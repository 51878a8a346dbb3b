"""The program `dataflow`."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from nexus_channels.cli.developer import program
from tests.channels.cli.terminal import Ended, Terminal

SHOP = """
from dataflow import DataFlow
from nexus import Nexus

db = DataFlow("sqlite:///shop.db")


@db.model
class Product:
    name: str
    price: float = 1.5
    note: str | None = None
    tags: list[str] = []


@db.model
class Order:
    product_id: int


app = Nexus(db)
"""


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    (terminal.folder / "app.py").write_text(SHOP)
    return terminal


def dataflow(terminal: Terminal, *words: str) -> Ended:
    return terminal.call(*words, of=program)


def test_models_as_json(shop: Terminal) -> None:
    product, order = dataflow(shop, "models").result
    assert (product["name"], product["table"], product["route"]) == ("Product", "products", "products")
    fields = {field["field"]: field for field in product["fields"]}
    assert list(fields) == ["id", "name", "price", "note", "tags", "created_at", "updated_at"]
    assert fields["name"] | {"required": True, "null": False, "type": "text"} == fields["name"]
    assert fields["price"]["default"] == 1.5
    assert fields["note"] | {"null": True, "required": False, "default": None} == fields["note"]
    assert fields["tags"]["type"] == "json"
    assert fields["created_at"]["automatic"] is True
    assert order["table"] == "orders"


def test_models_as_a_table(shop: Terminal) -> None:
    lines = dataflow(shop, "-o", "table", "models").out.splitlines()
    assert lines[0].split()[:4] == ["model", "table", "field", "type"]
    assert any(line.split()[:4] == ["Order", "orders", "product_id", "integer"] for line in lines)


def test_sql_is_what_makes_the_tables(shop: Terminal) -> None:
    script = dataflow(shop, "sql").out
    assert not (shop.folder / "shop.db").exists()
    database = sqlite3.connect(":memory:")
    database.executescript(script)
    made = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert {"products", "orders", "dataflow_changes", "dataflow_products_create"} <= made


@pytest.mark.parametrize("name", ["Order", "orders"])
def test_sql_of_one_model(shop: Terminal, name: str) -> None:
    script = dataflow(shop, "sql", name).out
    assert "orders" in script
    assert "products" not in script


def test_a_model_that_there_is_not(shop: Terminal) -> None:
    ended = dataflow(shop, "sql", "Prodct")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error NX-400: There is no model 'Prodct'. Did you mean 'Product'?\n"


def test_mistakes_and_help(terminal: Terminal, tmp_path: Path) -> None:
    assert dataflow(terminal, "models").result == []
    misspelt = dataflow(terminal, "modls")
    assert misspelt.err == "error DF-701: There is no command 'modls'. Did you mean 'models'?\n"
    assert dataflow(terminal, "--app", "nope.py", "models").code == 2
    assert "dataflow --app shop/app.py sql Product" in dataflow(terminal, "--help").out
