"""Every Python example in the documentation runs, and every command in it exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nexus.errors import InvalidArguments, NexusError, Problem
from nexus_channels.guard import Misdirected
from nexus_workflows.errors import InvalidParameter, MissingValue

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def _examples() -> list[tuple[str, str]]:
    """Each document's examples together: a later one may use what an earlier one declares."""
    found = [(str(path.relative_to(ROOT)), "\n".join(BLOCK.findall(path.read_text()))) for path in DOCUMENTS]
    return [(name, code) for name, code in found if code]


def test_there_are_examples() -> None:
    assert any(name == "README.md" for name, _ in _examples())


@pytest.mark.parametrize(("name", "code"), _examples(), ids=[name for name, _ in _examples()])
def test_examples_run(name: str, code: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    missing = [target for target in LINK.findall(path.read_text()) if not (path.parent / target).exists()]
    assert missing == []


def test_the_readme_begins_with_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text().splitlines()[:40]
    text = "\n".join(first_screen)
    assert "scripts/serve" in text
    assert "scripts/test" in text


def _classes(root: type[NexusError]) -> set[type[NexusError]]:
    return {root}.union(*(_classes(below) for below in root.__subclasses__()))


def test_every_error_code_is_documented_with_its_status_and_exit_code() -> None:
    table = (ROOT / "docs" / "errors.md").read_text()
    rows = {
        m[1]: (int(m[2]), int(m[3]))
        for m in re.finditer(r"^\| `(\S+)` \|.*\| (\d+) \| (\d+) \|$", table, re.M)
    }
    problems = InvalidArguments("x", [Problem("DF-101", "", "")])
    expected = {
        kind.code: (kind.status, kind.exit_code)
        for kind in _classes(NexusError)
        if kind not in (InvalidArguments, InvalidParameter)  # whose codes are those of what is wrong
        and kind.__module__.split(".")[0] in ("nexus", "dataflow", "nexus_workflows", "nexus_channels")
    }
    for code in (InvalidArguments.MISSING, InvalidArguments.TYPE, InvalidArguments.UNKNOWN):
        expected[code] = (problems.status, problems.exit_code)
    assert {MissingValue.code, Misdirected.code} <= set(expected)
    assert rows == expected
