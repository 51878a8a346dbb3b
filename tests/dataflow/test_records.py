"""The rows that the platform keeps for itself: the same in every database and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dataflow import DataFlow
from nexus.errors import Conflict
from nexus.memory_records import MemoryRecords
from nexus.ports import Column, Records, RecordTable
from nexus.run_record import RUNS

EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in RUNS.columns)


def _row(identity: str, **more: Any) -> dict[str, Any]:
    return {**EMPTY, "id": identity, "state": "running", **more}


@pytest.fixture
async def stores(database: str) -> AsyncIterator[list[Records]]:
    db = DataFlow(database)
    yield [db.records, MemoryRecords()]
    await db.close()


async def _ids(records: Records, *where: Any, **more: Any) -> list[str]:
    return [row["id"] for row in await records.find(RUNS, where, columns=("id",), limit=100, **more)]


async def test_rows_are_found_by_what_they_hold(stores: list[Records]) -> None:
    for records in stores:
        await records.write(RUNS, [_row("a", kept=1, tenant="é"), _row("b", state="done"), _row("c")], [])
        assert await _ids(records) == ["c", "b", "a"]
        assert await _ids(records, offset=1) == ["b", "a"]
        assert await _ids(records, ("state", "=", "running")) == ["c", "a"]
        assert await _ids(records, ("state", "!=", "running")) == ["b"]
        assert await _ids(records, ("tenant", "=", None)) == ["c", "b"]
        assert await _ids(records, ("tenant", "!=", None)) == ["a"]
        assert await _ids(records, ("id", "<", "c"), ("id", ">", "a")) == ["b"]
        assert await _ids(records, ("tenant", "<", "z")) == []  # a null is not less than anything
        assert (await records.find(RUNS, [("id", "=", "a")], limit=1)) == [_row("a", kept=1, tenant="é")]


async def test_what_is_unique_is_there_once(stores: list[Records]) -> None:
    for records in stores:
        assert await records.insert(RUNS, _row("a", repeat="k"))
        assert not await records.insert(RUNS, _row("b", repeat="k"))
        assert not await records.insert(RUNS, _row("a"))
        assert await records.insert(RUNS, _row("c"))  # any number of nulls
        assert await records.insert(RUNS, _row("d"))
        with pytest.raises(Conflict):
            await records.write(RUNS, [_row("e", repeat="k")], [])
        assert await _ids(records) == ["d", "c", "a"]


async def test_at_once_one_of_many_inserts(stores: list[Records]) -> None:
    for records in stores:
        inserted = await asyncio.gather(*(records.insert(RUNS, _row(f"r{n}", repeat="k")) for n in range(20)))
        assert sum(inserted) == 1


@pytest.mark.parametrize("many", [1, 2, 50])
async def test_many_are_written_together(stores: list[Records], many: int) -> None:
    keys = [f"{number:04}" for number in range(many)]
    for records in stores:
        await records.write(RUNS, [_row(key, repeat=key) for key in keys], [])
        whole = [(key, _row(key, repeat=key, state="done", output="{}")) for key in keys]
        await records.write(RUNS, [_row("x")], whole)
        parts: list[tuple[str, dict[str, Any]]] = [(key, {"kept": 1}) for key in keys]
        await records.write(RUNS, [], parts)
        found = await records.find(RUNS, [("state", "=", "done")], limit=100)
        assert found == [_row(key, repeat=key, state="done", output="{}", kept=1) for key in reversed(keys)]


async def test_of_a_write_that_fails_nothing_stays(database: str) -> None:
    db = DataFlow(database)
    await db.records.insert(RUNS, _row("a", repeat="k"))
    with pytest.raises(Conflict):
        await db.records.write(RUNS, [_row("b"), _row("c", repeat="k")], [("a", {"state": "done"})])
    assert await _ids(db.records, ("state", "=", "running")) == ["a"]
    await db.close()


async def test_changing_and_deleting_say_how_many(stores: list[Records]) -> None:
    for records in stores:
        await records.write(RUNS, [_row("a"), _row("b"), _row("c", state="done")], [])
        assert await records.change(RUNS, [("state", "=", "running")], {"lease": "x"}) == 2
        assert await records.change(RUNS, [("id", "=", "nobody")], {"lease": "x"}) == 0
        assert await records.delete(RUNS, [("state", "=", "running")]) == 2
        assert await _ids(records) == ["c"]


async def test_a_table_is_made_once_by_whoever_comes(database: str) -> None:
    first, second = DataFlow(database), DataFlow(database)
    rows = await asyncio.gather(
        *(db.records.insert(RUNS, _row(f"{n}")) for n, db in enumerate([first, second] * 5))
    )
    assert all(rows)
    await first.close()
    await second.close()


async def test_memory_keeps_the_newest() -> None:
    records = MemoryRecords(most=3)
    table = RecordTable("t", (Column("id", "key"),))
    for number in range(5):
        await records.insert(table, {"id": str(number)})
    assert [row["id"] for row in await records.find(table, limit=10)] == ["4", "3", "2"]
