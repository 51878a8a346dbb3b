"""The shape of the house: arrows, sizes, names, and what an import costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHELVES = {
    "nexus": ROOT / "platform" / "nexus",
    "dataflow": ROOT / "dataflow" / "dataflow",
    "nexus_workflows": ROOT / "workflows" / "nexus_workflows",
    "nexus_channels": ROOT / "channels" / "nexus_channels",
}
SOURCES = sorted(path for shelf in SHELVES.values() for path in shelf.rglob("*.py"))
LONGEST = 500


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 40
    assert all((shelf / "py.typed").is_file() for shelf in SHELVES.values())


def test_imports_follow_the_arrows() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_standard_library_keeps_its_platform_module() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_only_dialects_know_a_database_by_name() -> None:
    named = re.compile(r"sqlite|postgres|mysql|mariadb|asyncpg|pymysql", re.I)
    dialects = SHELVES["dataflow"] / "dialects"
    # The default of DataFlow() is a URL, which users read in its documentation.
    shown = {SHELVES["dataflow"] / "app.py": "sqlite:///"}
    found = [
        f"{path.relative_to(ROOT)}: {m[0]}"
        for path in SOURCES
        if dialects not in path.parents
        for m in named.finditer(path.read_text().replace(shown.get(path, "\n"), "\n"))
    ]
    assert found == []


def test_package_files_only_name_what_is_inside() -> None:
    for path in SOURCES:
        if path.name == "__init__.py":
            body = re.sub(r'^""".*?"""', "", path.read_text(), flags=re.S)
            assert not re.search(r"^(def|class|if|for|try|async)\b", body, re.M), path


def _modules_after(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "import nexus",
            {"mcp", "starlette", "uvicorn", "alembic", "sqlalchemy", "click", "rich", "dataflow"},
        ),
        ("import dataflow", {"mcp", "starlette", "uvicorn", "alembic", "click", "rich", "nexus_workflows"}),
        ("import nexus_workflows", {"mcp", "starlette", "uvicorn", "sqlalchemy", "click", "dataflow"}),
        ("import nexus_channels.cli.main", {"mcp", "starlette", "uvicorn", "alembic", "sqlalchemy", "rich"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_imports_are_light(statement: str, unwanted: set[str]) -> None:
    assert _modules_after(statement) & unwanted == set()


def test_comments_speak_of_the_code() -> None:
    """No notes to self, no ticket numbers, no blanket silence."""
    unwanted = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|except:|raise NotImplementedError|#\s*issue\b", re.I)
    found = [
        f"{path.relative_to(ROOT)}: {m[0]}" for path in SOURCES for m in unwanted.finditer(path.read_text())
    ]
    assert found == []
