"""Programs that are asked over their own standard input and answer with one line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.kit.processes import ROOT, first_core
from benchmarks.kit.rounds import Figures, Measure, reason_of

_PATIENCE = 60.0


class Program:
    """`failed` says why there is none."""

    def __init__(self, process: asyncio.subprocess.Process | None, failed: str | None) -> None:
        self._process = process
        self.failed = failed

    async def ask(self, text: str) -> Any:
        """Its answer to a line. Raises RuntimeError for `{"error": …}` and for a program that has ended."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError(self.failed)
        process.stdin.write(text.encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the program has ended")
        answer = msgspec.json.decode(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def measuring(self, text: str) -> Measure:
        """A candidate whose rounds are this program's answers, a value for each unit."""

        async def once() -> Figures:
            found: Figures = await self.ask(text)
            return found

        return once


@contextlib.asynccontextmanager
async def asked(
    program: str, *arguments: str, python: Callable[[], str | Path], pinned: bool = False
) -> AsyncIterator[Program]:
    """A file of ours, run by the interpreter that `python` finds, which says `"ready"` first. Where there is
    none, or it fails, the reason is in `failed`."""
    process = None
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        try:
            process = await asyncio.create_subprocess_exec(
                python(),
                ROOT / program,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            if pinned and (core := first_core()) is not None:
                os.sched_setaffinity(process.pid, {core})
            found = Program(process, None)
            if await found.ask("ready") != "ready":
                raise RuntimeError("did not get ready")
        except Exception as failure:
            said.seek(0)
            found = Program(
                None, f"{reason_of(failure)} {said.read().decode(errors='replace')[-200:]}".strip()
            )
        try:
            yield found
        finally:
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
