"""docs/performance.md: prose by hand, and tables that the command puts between markers."""

from __future__ import annotations

import os
import platform
import re
import time

from benchmarks.kit import report
from benchmarks.kit.processes import ROOT
from benchmarks.kit.rounds import Row

PLACE = ROOT / "docs" / "performance.md"


def write(area: str, rows: list[Row]) -> None:
    """Put an area's tables between its markers. Raises ValueError where there are none."""
    begin, end = f"<!-- {area} -->", f"<!-- /{area} -->"
    text = PLACE.read_text()
    day = time.strftime("%Y-%m-%d")
    machine = (
        f"{day}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    )
    table = "\n".join([begin, machine, "", *report.markdown(rows), end])
    made, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: table, text, flags=re.S)
    if count != 1:
        raise ValueError(f"{PLACE.name} has no place for '{area}'.")
    PLACE.write_text(made)
