"""How each candidate is asked for items over HTTP, and how its answers are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.kit.load import Answer, Line, request
from benchmarks.kit.peers import INCUMBENT, check_installed, python_of
from benchmarks.ours import TABLES as OUR_TABLES

_WRITERS = 16
_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Candidate:
    """A REST resource at `path`; `page` is the query of a page, `member` where its items are, None where
    they are all there is."""

    label: str
    module: str
    tables: tuple[str, ...]
    path: str
    packages: tuple[str, ...] = ()
    page: str = "limit={}"
    member: str | None = None
    unlogged: str | None = None

    def command(self) -> str | Path:
        """Its interpreter. Raises NotInstalled where it is not installed."""
        check_installed(*self.packages)
        return python_of(self.label)

    def without_log(self) -> Candidate:
        return dataclasses.replace(self, path=self.unlogged) if self.unlogged else self

    def get(self, key: int) -> bytes:
        return request("GET", f"{self.path}/{key}")

    def list(self, limit: int) -> bytes:
        return request("GET", f"{self.path}?{self.page.format(limit)}")

    def create(self, name: str, price: float) -> bytes:
        return request("POST", self.path, _encode({"name": name, "price": price}))

    def update(self, key: int, stock: int) -> bytes:
        return request("PATCH", f"{self.path}/{key}", _encode({"stock": stock}))

    def record(self, answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = _decode(answer.body)
        return found

    def records(self, answer: Answer) -> list[dict[str, Any]]:
        found = self.record(answer)
        listed: Any = found if self.member is None else found[self.member]
        return list(listed)

    def prepare(self, port: int, records: int) -> None:
        """Make records, with the ids from 1 on, and check what every kind of request answers. Raises
        AssertionError."""
        line = Line(port)
        try:
            for number in range(1, records + 1):
                created = line.ask(self.create(f"item {number}", number / 4))
                _check(200 <= created.status < 300, "create", created)
            for key in (1, records):
                answer = line.ask(self.get(key))
                found = self.record(answer)
                wanted = {"id": key, "name": f"item {key}", "price": key / 4, "stock": 0}
                _check(found.items() >= wanted.items(), "get", answer)
            for limit in (20, 100):
                answer = line.ask(self.list(limit))
                keys = [item["id"] for item in self.records(answer)]
                _check(keys == list(range(1, limit + 1)), f"list {limit}", answer)
            for stock in (3, 0):
                answer = line.ask(self.update(7, stock))
                _check(answer.status == 200, "update", answer)
                answer = line.ask(self.get(7))
                _check(self.record(answer)["stock"] == stock, "get after update", answer)
        finally:
            line.close()


class Incumbent(Candidate):
    """A workflow for each operation, executed by POST; parameters go to its node, which is called `run`."""

    __slots__ = ()

    def get(self, key: int) -> bytes:
        return self._execute("get", {"id": key})

    def list(self, limit: int) -> bytes:
        return self._execute("list", {"limit": limit, "order_by": ["id"]})

    def create(self, name: str, price: float) -> bytes:
        return self._execute("create", {"name": name, "price": price})

    def update(self, key: int, stock: int) -> bytes:
        return self._execute("update", {"filter": {"id": key}, "fields": {"stock": stock}})

    def record(self, answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = _decode(answer.body)["outputs"]["run"]
        return found

    def _execute(self, workflow: str, parameters: dict[str, Any]) -> bytes:
        return request("POST", f"{self.path}/{workflow}/execute", _encode({"inputs": {"run": parameters}}))


def _check(right: bool, what: str, answer: Answer) -> None:
    if not right:
        shown = answer.body[:200].decode(errors="replace")
        raise AssertionError(f"{what} is answered wrongly, with {answer.status}: {shown}")


_ALL = (
    Candidate("floor", "benchmarks.floor.http", ("benchmark_floor",), "/api/items", member="records"),
    Candidate(
        "ours",
        "benchmarks.ours",
        OUR_TABLES,
        "/api/benchmark_items",
        member="records",
        unlogged="/api/benchmark_plains",
    ),
    Candidate(
        "FastAPI + SQLModel",
        "benchmarks.peers.fastapi_items",
        ("benchmark_fastapi",),
        "/items",
        packages=("fastapi", "sqlmodel"),
    ),
    Candidate(
        "Litestar + advanced-alchemy",
        "benchmarks.peers.litestar_items",
        ("benchmark_litestar",),
        "/items",
        packages=("litestar", "advanced_alchemy"),
        page="currentPage=1&pageSize={}",
        member="items",
    ),
    Incumbent(
        INCUMBENT,
        "benchmarks/peers/incumbent_items.py",
        ("benchmark_incumbents",),
        "/workflows",
        member="records",
    ),
)
CANDIDATES = {candidate.label: candidate for candidate in _ALL}
TABLES = tuple(table for candidate in _ALL for table in candidate.tables)
