"""The programs of the terminal, as processes and in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from nexus_channels.cli.main import program

THINGS = Path(__file__).with_name("things_app.py")


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Terminal:
    """A folder with an application in it, where programs are run."""

    def __init__(self, folder: Path, application: Path = THINGS) -> None:
        self.folder = folder
        shutil.copy(application, folder / "app.py")

    def call(self, *words: str, stdin: str = "", of: click.Command = program) -> Ended:
        """In this process, whose current folder must be this one."""
        result = CliRunner().invoke(of, list(words), input=stdin, prog_name=of.name)
        return Ended(result.exit_code, result.stdout, result.stderr)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """As a process that is not waited for."""
        environment = {**os.environ, **options.pop("env", {})}
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-m", "nexus_channels.cli.main", *words]
        return subprocess.Popen(command, cwd=self.folder, env=environment, **{**streams, **options})

    def run(self, *words: str, stdin: bytes = b"", **env: str) -> Ended:
        """As a process, to its end."""
        process = self.start(*words, env=env)
        out, err = process.communicate(stdin, timeout=30)
        return Ended(process.returncode, out.decode(), err.decode())

    @property
    def log(self) -> str:
        """Everything that was written, ever."""
        file = self.folder / "things.log"
        return file.read_text() if file.exists() else ""
