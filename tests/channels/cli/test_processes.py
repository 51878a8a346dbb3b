"""How the program behaves as a process: what it costs, what signals, pipes and terminals do to it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nexus_channels.cli.output import BROKEN_PIPE
from nexus_channels.cli.program import INTERRUPTED
from tests.channels.cli.terminal import Terminal

HEAVY = {"app", "asyncio", "mcp", "msgspec", "nexus", "rich", "sqlalchemy", "starlette", "uvicorn"}
SHOW_MODULES = """
import sys
from nexus_channels.cli.{module} import program
try:
    program({words!r}, prog_name={name!r})
except SystemExit:
    print("MODULES", *sys.modules, file=sys.stderr)
"""


def modules_after(module: str, words: list[str]) -> tuple[str, list[str]]:
    """What a program says, and the modules that it has imported when it ends."""
    script = SHOW_MODULES.format(module=module, words=words, name="nexus")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    errors, _, modules = done.stderr.partition("MODULES ")
    return done.stdout + errors, modules.split()


@pytest.mark.parametrize(
    ("module", "words"),
    [("main", ["--help"]), ("main", []), ("main", ["serve", "--help"]), ("developer", ["--help"])],
)
def test_help_imports_neither_the_kernel_nor_the_application(
    terminal: Terminal, module: str, words: list[str]
) -> None:
    said, modules = modules_after(module, words)
    assert "Usage: nexus" in said
    assert HEAVY.isdisjoint(modules)


def test_ordinary_commands_import_no_server(terminal: Terminal) -> None:
    said, modules = modules_after("main", ["things", "list"])
    assert json.loads(said)["count"] == 0
    assert {"mcp", "rich", "sqlalchemy", "starlette", "uvicorn"}.isdisjoint(modules)


class Lines:
    """What a process writes to stdout, line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def next(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        return json.loads(line)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, bytes, bytes]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=5)
        return self.process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watching_until_a_signal(terminal: Terminal, number: int) -> None:
    lines = Lines(terminal.start("things", "watch"))
    assert lines.next()["type"] == "ready"
    terminal.call("things", "create", "--name", "Lamp", "--price", "1")
    change = lines.next()
    assert (change["type"], change["event"], change["key"]) == ("change", "enter", 1)
    assert change["record"]["name"] == "Lamp"
    terminal.call("things", "update", "1", "--price", "2")
    assert (change := lines.next())["event"] == "update"
    assert (change["old"]["price"], change["record"]["price"]) == (1.0, 2.0)
    terminal.call("things", "delete", "1", "--yes")
    assert lines.next()["event"] == "leave"
    assert lines.end(number) == (0, b"", b"")


def test_watching_a_query_from_a_snapshot(terminal: Terminal) -> None:
    for price in ("1", "5"):
        terminal.call("things", "create", "--name", "x", "--price", price)
    lines = Lines(terminal.start("things", "watch", "--snapshot", "--filter", '{"price": {"$gt": 3}}'))
    snapshot = lines.next()
    assert (snapshot["type"], snapshot["more"]) == ("snapshot", False)
    assert [record["id"] for record in snapshot["records"]] == [2]
    assert lines.next()["type"] == "ready"
    terminal.call("things", "create", "--name", "not in it", "--price", "2")
    terminal.call("things", "update", "1", "--price", "7")
    terminal.call("things", "update", "2", "--price", "0")
    assert [(change["event"], change["key"]) for change in (lines.next(), lines.next())] == [
        ("enter", 1),
        ("leave", 2),
    ]
    assert lines.end() == (0, b"", b"")


def test_watching_again_from_a_cursor(terminal: Terminal) -> None:
    first = Lines(terminal.start("things", "watch"))
    cursor = first.next()["cursor"]
    first.end()
    terminal.call("things", "create", "--name", "meanwhile", "--price", "1")
    again = Lines(terminal.start("things", "watch", "--since", cursor))
    assert again.next()["type"] == "ready"
    assert again.next()["record"]["name"] == "meanwhile"
    assert again.end()[0] == 0


def test_a_watch_that_nobody_reads_still_ends(terminal: Terminal) -> None:
    record = {"id": 1, "name": "x" * 500_000, "price": 1}
    (terminal.folder / "things.log").write_text(json.dumps({"key": 1, "old": None, "record": record}) + "\n")
    with terminal.start("things", "watch", "--snapshot") as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it writes now, and gets no further than the pipe holds
        time.sleep(0.3)
        process.terminate()
        assert process.wait(timeout=5) == 0


def test_watch_ends_quietly_when_its_reader_goes(terminal: Terminal) -> None:
    with terminal.start("things", "watch") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        terminal.call("things", "create", "--name", "x", "--price", "1")
        assert ended_quietly(process)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_broken_pipe_is_a_quiet_end(terminal: Terminal, unbuffered: str) -> None:
    with terminal.start("run", "rows", "--count", "5000", env={"PYTHONUNBUFFERED": unbuffered}) as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == b'[{"n":0,"t'
        process.stdout.close()
        assert ended_quietly(process)


def ended_quietly(process: subprocess.Popen[bytes]) -> bool:
    assert process.stderr is not None
    return process.wait(timeout=5) == BROKEN_PIPE and process.stderr.read() == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_long_results_are_complete(terminal: Terminal, unbuffered: str) -> None:
    assert len(terminal.run("run", "rows", "--count", "5000", PYTHONUNBUFFERED=unbuffered).result) == 5000


def test_interrupting_a_command(terminal: Terminal) -> None:
    process = terminal.start("run", "wait")
    waiting = terminal.folder / "waiting"
    deadline = time.monotonic() + 10
    while not waiting.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert Lines(process).end(signal.SIGINT) == (INTERRUPTED, b"", b"\n")


class Screen:
    """A process on a terminal of its own, `columns` wide."""

    def __init__(self, terminal: Terminal, *words: str, columns: int = 80, **env: str) -> None:
        self._master, slave = pty.openpty()
        size = {"COLUMNS": str(columns), "TERM": "xterm", **env}
        self.process = terminal.start(*words, stdin=slave, stdout=slave, stderr=slave, env=size)
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def shown(self) -> str:
        """Everything until its end."""
        found = b""
        while True:
            try:
                found += (more := os.read(self._master, 1 << 16))
            except OSError:  # how Linux says that nobody has the other side any more
                more = b""
            if not more:
                break
        os.close(self._master)
        self.process.wait(timeout=10)
        return found.decode().replace("\r\n", "\n")


def test_on_a_terminal_results_are_tables(terminal: Terminal) -> None:
    terminal.call("things", "create", "--name", "Lamp", "--price", "9.5")
    assert Screen(terminal, "things", "list", NO_COLOR="1").shown() == (
        "id  name  price  color  in_stock  tags\n1   Lamp  9.5           true      []\ncount: 1\n"
    )
    assert "\x1b[1m" in Screen(terminal, "things", "list").shown()
    assert '"name": "Lamp",\n' in Screen(terminal, "things", "get", "1", "-o", "json").shown()


def test_columns_that_do_not_fit_are_named(terminal: Terminal) -> None:
    terminal.call("things", "create", "--name", "A very long name of a thing", "--price", "9.5")
    assert Screen(terminal, "things", "list", columns=24, NO_COLOR="1").shown() == (
        "id  name         price\n"
        "1   A very lon…  9.5\n"
        "(not shown: color, in_stock, tags; -o json shows everything)\n"
        "count: 1\n"
    )


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("\n", 1, True)])
def test_deleting_is_asked_about(terminal: Terminal, typed: str, code: int, left: bool) -> None:
    terminal.call("things", "create", "--name", "Lamp", "--price", "1")
    screen = Screen(terminal, "things", "delete", "1")
    screen.type(typed)
    shown = screen.shown()
    assert "things.delete 1: delete? [y/N]" in shown
    assert ("Nothing was deleted." in shown) == left
    assert screen.process.returncode == code
    assert (terminal.call("things", "get", "1").code == 0) == left


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("nexus th", ["things"]),
        ("nexus --app app.py se", ["serve"]),
        ("nexus things w", ["watch"]),
        ("nexus things create --co", ["--color"]),
        ("nexus things create --color g", ["green"]),
        ("nexus run res", ["restock"]),
        ("nexus execute ThingU", ["ThingUpdateNode"]),
        ("nexus --app nope.py th", []),
        ("nexus nothing li", []),
    ],
)
def test_completion(terminal: Terminal, words: str, offered: list[str]) -> None:
    count = len(words.split()) - 1
    ended = terminal.run(_NEXUS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(count))
    assert [line.partition(",")[2] for line in ended.out.splitlines() if line] == offered
    assert ended.err == ""


def test_the_installed_program_is_the_same(terminal: Terminal) -> None:
    program = Path(sys.executable).with_name("nexus")
    if not program.exists():
        pytest.skip("the distribution is not installed in this environment")
    done = subprocess.run([program, "things", "list"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == terminal.call("things", "list").result
