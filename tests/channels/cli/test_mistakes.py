"""What is refused: with the code of every other channel, nothing on stdout, and nothing done."""

from __future__ import annotations

import json
import os

import pytest

from tests.channels.cli.terminal import Terminal

CREATE = ["things", "create", "--name", "x", "--price", "1"]

MISTAKES = [
    # an operation that there is not
    ("things lst", "error DF-701: 'things' has no operation 'lst'. Did you mean 'list'?"),
    ("thigs list", "error DF-701: There is no command or resource 'thigs'. Did you mean 'things'?"),
    ("srve", "error DF-701: There is no command or resource 'srve'. Did you mean 'serve'?"),
    ("run restok", "error DF-701: There is no workflow 'restok'. Did you mean 'restock'?"),
    (
        "execute ThingGtNode",
        "error DF-701: There is no operation 'ThingGtNode'. Did you mean 'ThingGetNode'?",
    ),
    (
        "execute secret --id 1",
        "error DF-701: There is no operation 'secret'. Known: batch, explode, parts.list, restock, rows,"
        " things.create, things.delete, things.get, things.list, things.update, wait.",
    ),
    (
        "run things.get",
        "error DF-701: 'things.get' is no workflow. Use 'nexus things get', or 'nexus execute things.get'.",
    ),
    # an argument that there is not
    (
        "things create --name x --price 1 --colour red",
        "error DF-106: things.create: unknown argument '--colour'. Did you mean '--color'?",
    ),
    (
        "things get 1 --bogus",
        "error DF-106: things.get: unknown argument '--bogus'. Known: ID.",
    ),
    ("things get 1 -x", "error DF-106: things.get: unknown argument '-x'. Known: ID."),
    (
        "things get 1 2",
        "error DF-106: things.get: unknown argument '2'. Arguments are given as --name value.",
    ),
    (
        'things create --price 1 --json {"name":"x","colour":"red"}',
        "error DF-106: things.create: unknown argument '--colour'. Did you mean '--color'?",
    ),
    # a wrong type
    ("things get abc", "error DF-102: things.get: 'ID': expected int, got str"),
    (
        "things create --name x --price abc",
        "error DF-102: things.create: '--price': expected float, got str",
    ),
    ("things create --name x --price -1", "error DF-102: things.create: '--price': expected float >= 0.0"),
    (
        "things create --name x --price 1 --color blue",
        "error DF-102: things.create: '--color': invalid enum value 'blue'",
    ),
    (
        "things create --name x --price 1 --in-stock=perhaps",
        "error DF-102: things.create: '--in-stock': expected bool, got str",
    ),
    (
        "things create --name x --price 1 --tags [1]",
        "error DF-102: things.create: '--tags': expected str, got int",
    ),
    ("things create --json []", "error DF-102: things.create: the arguments: expected object, got array"),
    # a missing argument
    ("things create --name x", "error DF-101: things.create: missing argument '--price'"),
    ("things get", "error DF-101: things.get: missing argument 'ID'"),
    ("run restock", "error DF-101: restock: missing argument '--thing-id'"),
    ("things create --name x --price", "error DF-101: things.create: missing value of argument '--price'"),
    # JSON that is none
    ("things create --json {", "error NX-400: The input is not valid JSON: Input data was truncated."),
    (
        "things list --filter {",
        "error NX-400: things.list: 'filter' is not valid JSON: Input data was truncated.",
    ),
    ("things watch --filter {", "error NX-400: '--filter' is not valid JSON: Input data was truncated."),
    ("things create --json @nope", "error NX-400: 'nope' cannot be read: No such file or directory."),
    # twice
    ("things get 1 --id 1", "error NX-400: '--id' is given twice. Give it once."),
    (
        'things create --json {"name":"x"} --name y --price 1',
        "error NX-400: '--name' is given twice. Give it once.",
    ),
    # a filter, a cursor, a topic
    ('things list --filter {"nme":1}', "error DF-107: things has no field 'nme'. Did you mean 'name'?"),
    ('things watch --filter {"nme":1}', "error DF-107: things has no field 'nme'. Did you mean 'name'?"),
    (
        "things watch --since abc",
        "error NX-410: This cursor was not written by this server. Subscribe without 'since'.",
    ),
    ("parts watch", "error NX-404: There is no topic 'parts'. Known: things."),
    ("nowhere watch", "error NX-404: There is no topic 'nowhere'. Known: things."),
    # words that click refuses itself
    ("serve --prt 1", "error DF-106: nexus serve: unknown argument '--prt'. Did you mean '--port'?"),
    (
        "serve --port abc",
        "error DF-102: nexus serve: Invalid value for '--port': 'abc' is not a valid integer.",
    ),
    (
        "things watch --snap",
        "error DF-106: nexus things watch: unknown argument '--snap'. Did you mean '--snapshot'?",
    ),
    (
        "--bogus",
        "error DF-106: nexus: unknown argument '--bogus'. Known: --app, --debug, --output, --version.",
    ),
    ("things create -o yaml", "error DF-102: things.create: '--output': 'yaml' is none of json, table"),
]


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes(terminal: Terminal, words: str, line: str) -> None:
    ended = terminal.call(*words.split())
    assert ended.err.splitlines() == [line]
    assert (ended.code, ended.out, terminal.log) == (2, "", "")


@pytest.mark.parametrize("words", ["things create --colour red", "run restok", "things get abc", "thigs"])
def test_a_process_says_the_same(terminal: Terminal, words: str) -> None:
    assert terminal.run(*words.split()) == terminal.call(*words.split())


def test_each_further_problem_has_its_line(terminal: Terminal) -> None:
    ended = terminal.call("things", "create", "--price", "abc", "--colour", "red", "--in-stock=no?")
    assert ended.err.splitlines() == [
        "error DF-106: things.create: unknown argument '--colour'. Did you mean '--color'?",
        "error DF-101: things.create: missing argument '--name'",
        "error DF-102: things.create: '--price': expected float, got str",
        "error DF-102: things.create: '--in-stock': expected bool, got str",
    ]
    assert (ended.code, ended.out) == (2, "")


def test_json_output_describes_errors_as_json_on_stderr(terminal: Terminal) -> None:
    ended = terminal.call("-o", "json", "things", "create", "--colour", "red", "--json", '{"price": 1}')
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    described = json.loads(line)
    assert described["code"] == "DF-106"
    assert [(problem["code"], problem["pointer"]) for problem in described["errors"]] == [
        ("DF-106", "/colour"),
        ("DF-101", "/name"),
    ]


@pytest.mark.parametrize("source", ["-", "@big.json", "text", "options"])
def test_arguments_over_the_limit(terminal: Terminal, source: str) -> None:
    document = json.dumps({"name": "x" * 300, "price": 1})
    (terminal.folder / "big.json").write_text(document)
    words = {"text": ["--json", document], "options": ["--name", "x" * 300, "--price", "1"]}
    ended = terminal.run(
        "things",
        "create",
        *words.get(source, ["--json", source]),
        stdin=document.encode() if source == "-" else b"",
        NEXUS_BODY_LIMIT="200",
    )
    assert (ended.code, ended.out, terminal.log) == (2, "", "")
    assert ended.err == (
        "error NX-413: The arguments are larger than 200 bytes. NEXUS_BODY_LIMIT sets another limit.\n"
    )


def test_arguments_at_the_limit(terminal: Terminal) -> None:
    document = b'{"name": "x", "price": 1}'
    limit = str(len(document))
    assert terminal.run("things", "create", "-j", "-", stdin=document, NEXUS_BODY_LIMIT=limit).code == 0


@pytest.mark.parametrize(
    "document", [b"", b"\xff", b'{"name": "\xff", "price": 1}', b'{"tags": ' + b"[" * 100_000]
)
def test_documents_that_are_no_json(terminal: Terminal, document: bytes) -> None:
    ended = terminal.run("things", "create", "--json", "-", stdin=document)
    assert (ended.code, ended.out, terminal.log) == (2, "", "")
    assert ended.err.startswith("error NX-400: The input is ")
    assert len(ended.err.splitlines()) == 1


def test_words_that_are_no_text(terminal: Terminal) -> None:
    ended = terminal.run("things", "create", "--price", "1", "--name", os.fsdecode(b"\xff"))
    assert (ended.code, ended.out, terminal.log) == (2, "", "")
    assert ended.err == "error NX-400: The arguments are not UTF-8.\n"


def test_what_was_typed_cannot_drive_the_terminal(terminal: Terminal) -> None:
    ended = terminal.call("things", "create", "--\x1b[31mx\ny", "1")
    assert len(ended.err.splitlines()) == 3
    assert "\x1b" not in ended.err


def test_a_handler_that_raises(terminal: Terminal) -> None:
    ended = terminal.run("run", "explode")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "error NX-500: 'explode' failed: RuntimeError: boom\\x1b[31m and more."
        " --debug, before the command, shows the traceback.\n"
    )
    debugged = terminal.run("--debug", "run", "explode")
    assert (debugged.code, debugged.out) == (1, "")
    assert 'raise RuntimeError("boom' in debugged.err
    assert debugged.err.splitlines()[-1].startswith("error NX-500: 'explode' failed")


def test_serving_to_the_world_without_a_key_is_refused(terminal: Terminal) -> None:
    ended = terminal.run("serve", "--host", "0.0.0.0", "--port", "0")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error NX-510: ")
