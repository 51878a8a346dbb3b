"""Ours, as a user gets it: two models of the same fields, one of them with its changes logged.

python -m benchmarks.ours PORT URL
"""

from __future__ import annotations

import sys

from dataflow import DataFlow
from nexus import Nexus

TABLES = ("benchmark_items", "benchmark_plains")


def application(url: str, *, channels: list[str] | None = None) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url)

    @db.model
    class BenchmarkItem:
        name: str
        price: float = 0.0
        stock: int = 0
        active: bool = True
        note: str | None = None

    @db.model
    class BenchmarkPlain:
        __dataflow__ = {"changes": False}
        name: str
        price: float = 0.0
        stock: int = 0
        active: bool = True
        note: str | None = None

    return db, Nexus(db, channels=channels)


if __name__ == "__main__":
    application(sys.argv[2])[1].serve(port=int(sys.argv[1]))
