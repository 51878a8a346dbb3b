"""The resources and workflows of an application as commands."""

from __future__ import annotations

import json

import pytest

from tests.channels.cli.terminal import Terminal

LAMP = {"id": 1, "name": "Lamp", "price": 9.5, "color": "green", "in_stock": False, "tags": ["a"]}
MAKE_LAMP = [
    *["things", "create", "--name", "Lamp", "--price", "9.5", "--color", "green", "--no-in-stock", "--tags"],
    '["a"]',
]


def test_a_record_from_its_making_to_its_end(terminal: Terminal) -> None:
    assert terminal.run(*MAKE_LAMP).result == LAMP
    assert terminal.run("things", "get", "1").result == LAMP
    assert terminal.run("things", "update", "1", "--price", "3").result == {**LAMP, "price": 3.0}
    assert terminal.run("things", "list").result["records"] == [{**LAMP, "price": 3.0}]
    assert terminal.run("things", "delete", "1", "--yes").result == {"deleted": 1, "id": 1}
    missing = terminal.run("things", "get", "1")
    assert (missing.code, missing.out) == (3, "")
    assert missing.err == "error DF-404: things: there is no record 1.\n"


def test_json_is_compact_and_alone_on_stdout(terminal: Terminal) -> None:
    ended = terminal.run(*MAKE_LAMP)
    assert ended.out == json.dumps(LAMP, separators=(",", ":")) + "\n"
    assert ended.err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--in-stock", "--name", "x", "--price", "1"],
        ["--in_stock", "--name=x", "--price=1"],
        ["--in-stock=true", "--name", "x", "--price", "1e0"],
        ["--json", '{"name": "x", "price": 1, "in_stock": true}'],
        ["-j", '{"name": "x"}', "--price", "1"],
        ["-o", "json", "--name", "x", "--price", "1"],
        ["--output=json", "--name", "x", "--price", "1"],
    ],
)
def test_spellings_of_the_same_arguments(terminal: Terminal, words: list[str]) -> None:
    made = terminal.call("things", "create", *words).result
    assert made == {"id": 1, "name": "x", "price": 1.0, "color": None, "in_stock": True, "tags": []}


@pytest.mark.parametrize("word", ["--no-in-stock", "--no_in_stock", "--in-stock=false"])
def test_a_switch_switched_off(terminal: Terminal, word: str) -> None:
    assert terminal.call("things", "create", "--name", "x", "--price", "1", word).result["in_stock"] is False


@pytest.mark.parametrize("name", ["-x", "-1", "", "a=b", "null", "true", "1", "--x"])
def test_a_text_stays_as_it_was_typed(terminal: Terminal, name: str) -> None:
    assert terminal.call("things", "create", f"--name={name}", "--price", "1").result["name"] == name


def test_a_value_may_begin_with_one_dash(terminal: Terminal) -> None:
    assert terminal.call("things", "create", "--name", "-x", "--price", "1").result["name"] == "-x"
    assert terminal.call("things", "get", "-1").err == "error DF-404: things: there is no record -1.\n"
    assert terminal.call("things", "get", "--", "-1").code == 3


def test_the_document_may_come_from_a_file_or_from_stdin(terminal: Terminal) -> None:
    document = json.dumps({"name": "ü", "price": 2})
    (terminal.folder / "new.json").write_text(document, encoding="utf-8")
    assert terminal.call("things", "create", "--json", "@new.json").result["name"] == "ü"
    assert terminal.run("things", "create", "--json", "-", stdin=document.encode()).result["name"] == "ü"


def test_a_field_named_as_an_option_of_the_program_takes_its_long_form(terminal: Terminal) -> None:
    listed = terminal.call("things", "list", "--output", "hello", "-o", "json")
    assert listed.result["said"] == "hello"


def test_filters(terminal: Terminal) -> None:
    for name, price in (("a", "1"), ("b", "5"), ("c", "9")):
        terminal.call("things", "create", "--name", name, "--price", price)
    found = terminal.call("things", "list", "--filter", '{"price": {"$gt": 3}}', "--limit", "1").result
    assert [record["name"] for record in found["records"]] == ["b"]


@pytest.mark.parametrize(
    "words",
    [
        ["things.create", "--name", "x", "--price", "1"],
        ["things_create", "--name", "x", "--price", "1"],
        ["ThingCreateNode", "--name", "x", "--price", "1"],
    ],
)
def test_execute_knows_every_spelling(terminal: Terminal, words: list[str]) -> None:
    assert terminal.call("execute", *words).result["id"] == 1


def test_execute_takes_the_id_by_name_or_without(terminal: Terminal) -> None:
    terminal.call(*MAKE_LAMP)
    assert terminal.call("execute", "ThingGetNode", "--id", "1").result == LAMP
    assert terminal.call("execute", "things.get", "1").result == LAMP


def test_workflows(terminal: Terminal) -> None:
    assert terminal.run("run", "restock", "--thing-id", "7").result == {"thing_id": 7, "amount": 10}
    assert terminal.call("execute", "restock", "--thing_id=7", "--amount=-2").result["amount"] == -2


def test_what_is_added_to_the_application_is_a_command(terminal: Terminal) -> None:
    more = "\n@app.operation\nasync def shout(call: Call, text: str) -> str:\n    return text.upper()\n"
    with (terminal.folder / "app.py").open("a") as file:
        file.write(more)
    assert terminal.call("run", "shout", "--text", "hey").result == "HEY"


def test_operations_says_what_there_is(terminal: Terminal) -> None:
    found = {each["name"]: each for each in terminal.call("operations").result}
    assert set(found) >= {"things.create", "things.list", "restock", "explode"}
    assert "secret" not in found
    assert found["things.create"]["command"] == "nexus things create"
    assert found["things.create"]["node"] == "ThingCreateNode"
    assert found["things.create"]["input"]["required"] == ["name", "price"]
    assert found["restock"]["command"] == "nexus run restock"
    table = terminal.call("operations", "-o", "table").out
    assert "nexus things delete" in table
    assert "Bring new ones." in table
    assert "input" not in table


def test_deleting_without_a_terminal_needs_yes(terminal: Terminal) -> None:
    terminal.call(*MAKE_LAMP)
    before = terminal.log
    for words in (["things", "delete", "1"], ["execute", "ThingDeleteNode", "--id", "1"]):
        refused = terminal.run(*words)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "error NX-400: things.delete deletes, and there is no terminal to ask on. Give --yes to do it.\n"
        )
    assert terminal.log == before
    assert terminal.call("execute", "ThingDeleteNode", "--id", "1", "-y").result["deleted"] == 1


def test_what_would_be_refused_anyway_is_not_asked_about(terminal: Terminal) -> None:
    assert terminal.call("things", "delete", "x").err.startswith("error DF-102: things.delete: 'ID': ")
