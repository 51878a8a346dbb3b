"""Changing a record in the state that was seen, in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.channels.cli.terminal import Terminal


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    return Terminal(terminal.folder, Path(__file__).with_name("shop_app.py"))


def test_the_tag_is_written_alone(shop: Terminal) -> None:
    created = shop.call("products", "create", "--name", "Lamp", "--etag")
    tag = created.out.strip()
    assert (created.code, created.out, created.err) == (0, f"{tag}\n", "")
    assert (tag[0], tag[-1]) == ('"', '"')
    assert shop.call("products", "get", "1", "--etag", "-o", "json").out.strip() == tag
    assert shop.run("products", "get", "1", "--etag").out.strip() == tag
    assert "etag" not in shop.call("products", "get", "1").result
    missing = shop.call("products", "get", "--name", "x", "--return-null-if-not-found", "--etag")
    assert (missing.code, missing.out) == (3, "")


def test_a_change_of_what_was_seen(shop: Terminal) -> None:
    tag = shop.call("products", "create", "--name", "Lamp", "--etag").out.strip()
    changed = shop.call("products", "update", "1", "--price", "3", "--if-match", tag, "--etag").out.strip()
    failed = shop.call("products", "update", "1", "--price", "4", f"--if-match={tag}")
    assert (failed.code, failed.out) == (4, "")
    assert failed.err.startswith("error NX-412: ")
    described = shop.call("-o", "json", "products", "delete", "1", "--yes", "--if-match", tag)
    assert json.loads(described.err)["etag"] == changed
    assert shop.call("products", "get", "1").result["price"] == 3.0
    bare = changed.strip('"')
    assert shop.call("products", "delete", "1", "--yes", "--if_match", bare).result["deleted"] == 1


def test_a_model_that_demands_it(shop: Terminal) -> None:
    shop.call("carefuls", "create", "--name", "Lamp")
    refused = shop.call("carefuls", "update", "1", "--name", "Desk")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("error NX-427: ")
    assert shop.call("carefuls", "update", "1", "--name", "Desk", "--version", "1").result["version"] == 2
    assert shop.call("carefuls", "delete", "1", "--yes", "--if-match", "*").result["deleted"] == 1


def test_mistakes(shop: Terminal) -> None:
    shop.call("products", "create", "--name", "Lamp")
    unreadable = shop.call("products", "update", "1", "--price", "3", "--if-match", "a b")
    assert (unreadable.code, unreadable.err[:13]) == (2, "error NX-400:")
    without = shop.call("products", "update", "1", "--price", "3", "--if-match")
    assert (without.code, without.err[:13]) == (2, "error DF-101:")
    for words in (("list",), ("create", "--name", "x"), ("get", "1")):
        unknown = shop.call("products", *words, "--if-match", "x")
        assert (unknown.code, unknown.err[:13]) == (2, "error DF-106:")


def test_help_says_where_it_is(shop: Terminal) -> None:
    for verb, shown in (("update", True), ("delete", True), ("get", False), ("create", False)):
        text = shop.call("products", verb, "--help").out
        assert ("--if-match TAG" in text) is shown
        assert ("--etag" in text) is (verb != "delete")
    assert "the record's tag" not in shop.call("carefuls", "update", "--help").out
    assert shop.call("carefuls", "create", "--name", "x", "--etag", "mine").result["etag"] == "mine"
