"""Where the application comes from."""

from __future__ import annotations

import pytest

from tests.channels.cli.terminal import Terminal

EMPTY = "from nexus import Nexus\n"
ONE = EMPTY + "{name} = Nexus()\n@{name}.operation\nasync def hello(call) -> str:\n    return '{name}'\n"
TWO = ONE.format(name="first") + ONE.format(name="second")
APP_AND_ANOTHER = ONE.format(name="other") + ONE.format(name="app")


@pytest.mark.parametrize(
    ("source", "reference", "answer"),
    [
        (ONE.format(name="whatever"), "shop.py", "whatever"),
        (ONE.format(name="whatever") + "alias = whatever\n", "shop.py", "whatever"),
        (TWO, "shop.py:second", "second"),
        (TWO, "shop:first", "first"),
        (TWO, "./shop.py:first", "first"),
        (APP_AND_ANOTHER, "shop", "app"),
    ],
)
def test_references(terminal: Terminal, source: str, reference: str, answer: str) -> None:
    (terminal.folder / "shop.py").write_text(source)
    assert terminal.call("--app", reference, "run", "hello").result == answer


@pytest.mark.parametrize(
    ("source", "reference", "line"),
    [
        (EMPTY, "nope.py", "There is no application at 'nope.py'."),
        (EMPTY, "nope:app", "There is no module 'nope' here to load the application from."),
        (EMPTY, "nope.deeper:app", "There is no module 'nope' here to load the application from."),
        (EMPTY, "a b", "'a b' does not name an application."),
        (EMPTY, "shop.py", "'shop.py' holds no application. Make one in it: app = Nexus(…)."),
        (TWO, "shop.py", "'shop.py' holds several applications: first, second."),
        (TWO, "shop.py:secnd", "'shop.py:secnd': 'secnd' does not exist. Did you mean 'second'?"),
        (TWO, "shop.py:Nexus", "'shop.py:Nexus': 'Nexus' is not a Nexus. Known: first, second."),
        (EMPTY + "Nexus(title='a', settngs=1)", "shop.py", None),
        (
            EMPTY + "app = Nexus(enable_cli=False)",
            "shop.py",
            "enable_cli=False cannot be honoured. The CLI is a program",
        ),
    ],
)
def test_references_that_lead_nowhere(
    terminal: Terminal, source: str, reference: str, line: str | None
) -> None:
    (terminal.folder / "shop.py").write_text(source)
    ended = terminal.call("--app", reference, "operations")
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    if line is not None:
        assert ended.err.startswith(f"error NX-510: {line}")
        assert ended.code == 2


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x =", "SyntaxError: invalid syntax"),
        ("\n1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_application_that_fails_to_load(terminal: Terminal, source: str, reason: str) -> None:
    file = terminal.folder / "shop.py"
    file.write_text(source)
    for reference in ("shop.py", "shop"):
        ended = terminal.run("--app", reference, "operations")
        assert (ended.code, ended.out) == (1, "")
        assert len(ended.err.splitlines()) == 1
        assert ended.err.startswith("error NX-500: The application ")
        assert reason in ended.err
    assert f"({file}, line 2)" in ended.err or not source.startswith("\n")
    debugged = terminal.run("--debug", "--app", "shop.py", "operations")
    assert "Traceback" in debugged.err


def test_without_an_application(terminal: Terminal) -> None:
    (terminal.folder / "app.py").unlink()
    ended = terminal.call("products", "list")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error NX-510: There is no application here to look 'products' up in.")
    misspelt = terminal.call("srve")
    assert misspelt.err.endswith("Did you mean 'serve'?\n")
    for words in (["operations"], ["run", "x"], ["execute", "x"], ["serve"], ["mcp"]):
        ended = terminal.call(*words)
        assert ended.err.startswith("error NX-510: There is no application at 'app.py'.")
        assert ended.code == 2


def test_the_environment_names_the_application(terminal: Terminal) -> None:
    (terminal.folder / "shop.py").write_text(ONE.format(name="shop"))
    assert terminal.run("run", "hello", NEXUS_APP="shop.py").result == "shop"
    assert terminal.run("--app", "app.py", "run", "restock", "--thing-id=1", NEXUS_APP="shop.py").code == 0


def test_a_misspelt_setting_is_refused(terminal: Terminal) -> None:
    ended = terminal.run("operations", NEXUS_PROT="1")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error NX-510: There is no setting NEXUS_PROT. Did you mean 'NEXUS_PORT'?\n"


def test_a_file_imports_what_is_beside_it_and_may_be_named_as_a_module_of_python(terminal: Terminal) -> None:
    inner = terminal.folder / "inner"
    inner.mkdir()
    (inner / "beside.py").write_text("WORD = 'found'\n")
    (inner / "platform.py").write_text("import beside\n" + ONE.format(name="app") + "print(beside.WORD)\n")
    ended = terminal.run("--app", "inner/platform.py", "run", "hello")
    assert ended.result == "app"  # and what it printed is not in the way
    assert ended.err == "found\n"
