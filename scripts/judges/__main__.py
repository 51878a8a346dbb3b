"""Installs the judges, serves the shop, and lets each of them say what it finds. See scripts/judge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT / ".judges"
PYTHON_TOOLS = ["schemathesis==4.32.5", "openapi-python-client==0.29.1"]
NODE_TOOLS = ["@stoplight/spectral-cli@6", "openapi-typescript@7", "typescript@5"]
PHASES = "examples,coverage,fuzzing,stateful"
QUICK = "examples,fuzzing,stateful"
_PATIENCE = 20.0


def main(arguments: list[str]) -> int:
    phases = QUICK if "--quick" in arguments else PHASES
    more = [word for word in arguments if word != "--quick"]
    _install_python()
    has_node = _install_node()
    failed = [] if has_node or not os.environ.get("CI") else ["spectral and openapi-typescript: no npm"]
    with tempfile.TemporaryDirectory() as folder:
        databases = {"SQLite": f"sqlite:///{folder}/shop.db"}
        if url := os.environ.get("NEXUS_TEST_POSTGRESQL_URL"):
            asyncio.run(_emptied(url))
            databases["PostgreSQL"] = url
        for name, database in databases.items():
            with _served(database) as address:
                if name == "SQLite":
                    failed += _judge_description(address, Path(folder), has_node)
                command = [
                    *(
                        "st",
                        "--config-file",
                        str(HERE / "schemathesis.toml"),
                        "run",
                        f"{address}/openapi.json",
                    ),
                    *("--phases", phases, "-n", "50", "--seed", "1", "--no-color", *more),
                ]
                failed += _run(f"schemathesis on {name}", command, cwd=folder)
    for one in failed:
        print(f"failed: {one}", file=sys.stderr)
    print(f"{'Not all' if failed else 'All'} judges are content.")
    return 1 if failed else 0


def _judge_description(address: str, folder: Path, has_node: bool) -> list[str]:
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=30) as response:
        (folder / "shop.json").write_bytes(response.read())
    failed = []
    if has_node:
        rules = str(HERE / "spectral.yaml")
        command = ["spectral", "lint", "shop.json", "--ruleset", rules, "--fail-severity", "hint"]
        failed += _run("spectral", command, cwd=str(folder))
        command = ["openapi-typescript", "shop.json", "--output", "shop.ts"]
        failed += _run("openapi-typescript", command, cwd=str(folder))
        command = ["tsc", "--noEmit", "--strict", "shop.ts"]
        failed += _run("the types that it made", command, cwd=str(folder))
    generate = ["openapi-python-client", "generate", "--path", "shop.json", "--output-path", "client"]
    failed += _run("openapi-python-client", generate, cwd=str(folder))
    crud = ["python", str(HERE / "crud.py"), str(folder / "client"), address]
    return failed + _run("the generated client", crud, cwd=str(folder))


def _run(what: str, command: Sequence[str], *, cwd: str) -> list[str]:
    """Run a judge, and give what failed."""
    print(f"\n### {what}", flush=True)
    places = (TOOLS / "bin", TOOLS / "node_modules" / ".bin", os.environ["PATH"])
    path = os.pathsep.join(str(place) for place in places)
    program = shutil.which(command[0], path=path) or command[0]
    environment = {**os.environ, "PATH": path, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")}
    done = subprocess.run([program, *command[1:]], cwd=cwd, env=environment, check=False)
    return [] if done.returncode == 0 else [what]


async def _emptied(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await connection.close()


@contextlib.contextmanager
def _served(database: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    nexus = str(Path(sys.executable).with_name("nexus"))
    server = subprocess.Popen(
        [nexus, "--app", str(ROOT / "examples" / "shop" / "app.py"), "serve", "--port", str(port)],
        env={**os.environ, "DATABASE_URL": database},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"{address}/readyz")
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _install_python() -> None:
    wanted = "\n".join(PYTHON_TOOLS)
    stamp = TOOLS / "python-tools"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"Installing {', '.join(PYTHON_TOOLS)} into {TOOLS.name}", flush=True)
    venv.create(TOOLS, with_pip=True)
    pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PYTHON_TOOLS], check=True)
    stamp.write_text(wanted)


def _install_node() -> bool:
    """Whether there are the tools that need npm; it says so where there are not."""
    wanted = "\n".join(NODE_TOOLS)
    stamp = TOOLS / "node-tools"
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    npm = shutil.which("npm")
    if npm is None:
        print("spectral and openapi-typescript are left out: there is no npm.", file=sys.stderr)
        return False
    print(f"Installing {', '.join(NODE_TOOLS)} into {TOOLS.name}", flush=True)
    install = [npm, "install", "--prefix", str(TOOLS), "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([*install, *NODE_TOOLS], check=True)
    stamp.write_text(wanted)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
