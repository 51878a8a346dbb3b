"""Where the time of a running server goes, as py-spy sees it from outside."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SECONDS = 4.0
_SHOWN = 22


def profiled(title: str, pid: int, work: Callable[[float], object]) -> None:
    """Print in which functions a process spends its time while `work` goes on for so many seconds: alone in
    them, and with all that they call."""
    tool = Path(sys.executable).with_name("py-spy")
    found = str(tool) if tool.exists() else shutil.which("py-spy")
    if found is None:
        print(f"{title}: py-spy is not installed: no profile", flush=True)
        return
    work(0.5)
    with tempfile.NamedTemporaryFile() as stacks:
        command = [found, "record", "--pid", str(pid), "--duration", f"{SECONDS:.0f}", "--rate", "1000"]
        command += ["--format", "raw", "--output", stacks.name, "--nonblocking"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as spy:
            work(SECONDS + 0.5)
            spy.wait(30)
        _show(title, Path(stacks.name).read_text())


def _show(title: str, text: str) -> None:
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        alone[frames[-1]] += int(count)
        within.update(dict.fromkeys(frames, int(count)))
    total = alone.total() or 1
    print(f"\n{title}: {total} samples; percent alone, and with what is called")
    for frame, count in alone.most_common(_SHOWN):
        print(f"  {100 * count / total:5.1f}  {100 * within[frame] / total:5.1f}  {frame}")
    sys.stdout.flush()


def _short(frame: str) -> str:
    """`name (package/module.py)`, without lines, so that a function counts as a whole."""
    name, _, place = frame.partition(" (")
    parts = place.rstrip(")").rpartition(":")[0].split("/")
    return f"{name} ({'/'.join(parts[-2:])})"
