"""Measure, side by side, in one run.

    scripts/bench [AREA …] [--database sqlite|postgresql|mysql] [--quick] [--json] [--profile] [--write]

Without an area, all of them. `--quick` looks for crashes and wrong answers; its figures say nothing.
`--profile` shows where the time goes. `--write` puts the tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.kit import document, report
from benchmarks.kit.databases import KINDS, addresses, missing
from benchmarks.kit.processes import has_two_cores, pin_here
from benchmarks.kit.rounds import Row, reason_of
from benchmarks.kit.settings import Settings

AREAS = ("http", "operations", "bulk", "feed", "mcp", "workflows", "start", "growth")


def main() -> int:
    parser = argparse.ArgumentParser("scripts/bench", description="Measure, side by side, in one run.")
    parser.add_argument(
        "area", nargs="*", metavar="AREA", choices=[*AREAS, []], help=f"of {', '.join(AREAS)}; all by default"
    )
    parser.add_argument("--database", choices=KINDS, help="only this kind; all by default")
    parser.add_argument("--quick", action="store_true", help="for crashes and wrong answers only")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also show where the time of ours, and of what it is compared with by hand, goes",
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args()
    pin_here()
    with tempfile.TemporaryDirectory() as folder:
        databases = addresses(Path(folder), given.database)
        settings = Settings(databases, Path(folder), given.quick, given.profile)
        if not given.json:
            cores = "server and load on a core each" if has_two_cores() else "server and load share one core"
            print(f"load {os.getloadavg()[0]:.1f}; {cores}; on {', '.join(databases)}", flush=True)
            for kind in missing(databases, given.database):
                print(f"{kind}: NEXUS_TEST_{kind.upper()}_URL is not set: left out")
        wrong = 0
        for area in given.area or AREAS:
            wrong += _measured(area, settings, as_json=given.json, write=given.write)
    return 1 if wrong else 0


def _measured(area: str, settings: Settings, *, as_json: bool, write: bool) -> int:
    """How many candidates of ours, or hand-written ones, gave no figures."""
    begun = time.monotonic()
    module = importlib.import_module(f"benchmarks.areas.{area}")
    try:
        rows: list[Row] = asyncio.run(module.measure(settings))
    except Exception as failure:
        print(f"{area}: ended: {reason_of(failure)}", file=sys.stderr, flush=True)
        return 1
    if as_json:
        for row in rows:
            print(json.dumps(report.as_json(area, row)), flush=True)
    else:
        print(f"\n== {area} ({time.monotonic() - begun:.0f} s)")
        for line in report.brief(rows) if settings.quick else report.lines(rows):
            print(line, flush=True)
    if write:
        document.write(area, rows)
    return sum(name in ("ours", "floor") for row in rows for name in row.failed)


if __name__ == "__main__":
    sys.exit(main())
