"""Child processes on a core of their own, and what they use."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0

_cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def has_two_cores() -> bool:
    return len(_cores) > 1


def first_core() -> int | None:
    """Where servers run, if there is another for the load."""
    return _cores[0] if has_two_cores() else None


def pin_here() -> None:
    """Keep this process, which makes the load, away from the core of the servers."""
    if has_two_cores():
        os.sched_setaffinity(0, {_cores[1]})


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Child:
    """A running program. `said` is what it has printed, which is shown when it fails."""

    def __init__(self, process: subprocess.Popen[bytes], output: Any) -> None:
        self.process = process
        self.pid = process.pid
        self._output = output

    def cpu(self) -> float:
        """Seconds of CPU, user and system, of all its threads. The scheduler's own count is exact; the
        other comes in hundredths of a second."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        return int(kilobytes) / 1024

    @property
    def said(self) -> str:
        self._output.seek(0)
        text: str = self._output.read().decode(errors="replace")
        return text.strip()[-600:]

    def check(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}: {self.said}")


@contextlib.contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A program on the first core, in a folder of its own; asked to end at the end, and then made to."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        if has_two_cores():
            os.sched_setaffinity(process.pid, {_cores[0]})
        try:
            yield Child(process, output)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def serving(
    module: str, *arguments: str, python: str | Path = sys.executable, settle: bool = True
) -> Iterator[tuple[Child, int]]:
    """A module, or a file of ours, that is given a port to serve at and the arguments; it answers, and loads
    nothing more beside that, if it is to `settle`."""
    port = free_port()
    start = [str(ROOT / module)] if module.endswith(".py") else ["-m", module]
    with running([python, *start, str(port), *arguments]) as child:
        deadline = time.monotonic() + PATIENCE
        while True:
            child.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"did not answer within {PATIENCE:g} s: {child.said}")
            time.sleep(0.05)
        if settle:
            _settle(child)
        yield child, port


def _settle(child: Child) -> None:
    """Wait until it loads nothing more beside its serving; not for ever."""
    until = time.monotonic() + 8
    before = -1.0
    while (used := child.cpu()) - before > 0.02 and time.monotonic() < until:
        before = used
        time.sleep(0.3)
