"""What help says."""

from __future__ import annotations

import json
import re

from tests.channels.cli.terminal import Terminal


def test_the_program(terminal: Terminal) -> None:
    said = terminal.call("--help").out
    for command in ("serve", "install", "run", "execute", "mcp", "operations"):
        assert f"\n  {command} " in said
    assert "things" not in said
    assert """nexus products list --filter '{"price": {"$gt": 3}}' --limit 5\n""" in said
    assert "'nexus operations' lists what the application offers." in said
    (terminal.folder / "app.py").unlink()
    assert "'nexus operations' lists" not in terminal.call("--help").out


def test_without_a_command_help_is_an_error(terminal: Terminal) -> None:
    ended = terminal.call()
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: nexus ")


def test_a_resource_lists_its_verbs(terminal: Terminal) -> None:
    said = terminal.call("things", "--help").out
    for line in ("create  Create a thing.", "delete  Delete a thing.", "watch   Follow what happens"):
        assert line in said
    assert "watch" not in terminal.call("parts", "--help").out


def test_run_lists_the_workflows(terminal: Terminal) -> None:
    assert "restock  Bring new ones." in terminal.call("run", "--help").out
    (terminal.folder / "app.py").unlink()
    assert "Usage: nexus run" in terminal.call("run", "--help").out


def test_the_options_of_an_operation(terminal: Terminal) -> None:
    lines = [" ".join(line.split()) for line in terminal.call("things", "create", "--help").out.splitlines()]
    for line in (
        "Create a thing.",
        "--name TEXT What it is called. [required]",
        "--price NUMBER In euros. [required]",
        "--color red|green",
        "--in-stock / --no-in-stock [default: in-stock]",
        "--tags JSON [default: []]",
        "nexus things create --name TEXT --price NUMBER",
    ):
        assert line in lines
    assert "--yes" not in "".join(lines)


def test_the_id_is_an_argument(terminal: Terminal) -> None:
    said = terminal.call("things", "update", "--help").out
    assert said.startswith("Usage: nexus things update [OPTIONS] ID\n")
    assert not re.search(r"--id\b", said)
    assert "--yes" in terminal.call("things", "delete", "-h").out
    assert "--id INTEGER" in terminal.call("execute", "things.get", "--help").out


def test_options_that_a_field_has_taken_are_shown_short(terminal: Terminal) -> None:
    lines = [" ".join(line.split()) for line in terminal.call("things", "list", "--help").out.splitlines()]
    assert "--output TEXT" in lines
    assert "--limit INTEGER [default: 100]" in lines
    assert "--order name|price [default: name]" in lines
    assert any(line.startswith("-o [json|table] ") for line in lines)


def test_watch(terminal: Terminal) -> None:
    said = terminal.call("things", "watch", "--help").out
    assert "--since CURSOR" in said
    assert "nexus things watch --snapshot | jq ." in said


def test_the_version(terminal: Terminal) -> None:
    assert terminal.call("--version").out.startswith("nexus ")


def test_help_does_not_care_about_other_mistakes(terminal: Terminal) -> None:
    ended = terminal.call("things", "create", "--colour", "red", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(terminal.call("things", "list").out)["count"] == 0
