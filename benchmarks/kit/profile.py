"""Where the time goes, as py-spy sees it from outside; for what only starts, as the imports tell."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kit.peers import INCUMBENT
from benchmarks.kit.processes import first_core
from benchmarks.kit.rounds import Measure

SECONDS = 4.0
_SHOWN = 22
_SETTLING = 0.5


def profiled(title: str, pid: int, work: Callable[[float], object]) -> None:
    """Print in which functions a process spends its time while `work` goes on for so many seconds: alone in
    them, and with all that they call."""
    work(_SETTLING)
    with _recorded(title, pid):
        work(SECONDS + _SETTLING)


async def profiled_here(title: str, candidates: Mapping[str, Measure]) -> None:
    """As `profiled`, of this process while it is taken up with one of `candidates` after the other; not with
    the incumbent, which runs in another."""
    for label, once in candidates.items():
        if label == INCUMBENT:
            continue
        with _recorded(f"{title}: {label}", os.getpid()):
            until = time.monotonic() + SECONDS + _SETTLING
            while time.monotonic() < until:
                found = once()
                if inspect.isawaitable(found):
                    await found


def profiled_imports(title: str, command: Sequence[str | Path]) -> None:
    """Print which modules take how long to import, for a program of Python's: alone, and with all that they
    import."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
    )
    found = []
    for line in done.stderr.splitlines():
        about, _, rest = line.partition("import time:")
        alone, _, within = rest.partition("|")
        if not about and alone.strip().isdigit():
            whole, _, name = within.partition("|")
            found.append((int(alone), int(whole), name.strip()))
    print(f"\n{title}: {len(found)} imports; ms alone, and with what is imported")
    for alone, whole, name in sorted(found, reverse=True)[:_SHOWN]:
        print(f"  {alone / 1e3:5.1f}  {whole / 1e3:5.1f}  {name}")
    sys.stdout.flush()


@contextmanager
def _recorded(title: str, pid: int) -> Iterator[None]:
    """What a process does meanwhile, for `SECONDS`, is printed afterwards."""
    tool = Path(sys.executable).with_name("py-spy")
    found = str(tool) if tool.exists() else shutil.which("py-spy")
    if found is None:
        print(f"{title}: py-spy is not installed: no profile", flush=True)
        yield
        return
    with tempfile.NamedTemporaryFile() as stacks, tempfile.TemporaryFile() as said:
        command = [found, "record", "--pid", str(pid), "--duration", f"{SECONDS:.0f}", "--rate", "1000"]
        command += ["--format", "raw", "--output", stacks.name, "--nonblocking"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said) as spy:
            if pid == os.getpid() and (core := first_core()) is not None:
                os.sched_setaffinity(spy.pid, {core})
            yield
            if spy.wait(30) != 0:
                said.seek(0)
                print(
                    f"{title}: no profile: {said.read().decode(errors='replace').strip()[-300:]}", flush=True
                )
                return
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
