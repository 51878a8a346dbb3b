"""Upsert: one record of a key, however many ask for it at once, from however many programs."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.errors import Conflict, InvalidArguments, NexusError
from tests.conftest import Invoke

PROGRAM = """
import asyncio, sys
from dataflow import DataFlow
from nexus import LOCAL, Nexus

db = DataFlow(sys.argv[1])

@db.model
class Counter:
    name: str
    hits: int = 0

app = Nexus(db)

async def hit():
    arguments = {"where": {"name": "x"}, "create": {"hits": 1}, "update": {"$inc": {"hits": 1}}}
    return await app.runtime.invoke("counters.upsert", arguments, LOCAL, channel="test")

async def main():
    async with app.running():
        print("ready", flush=True)
        sys.stdin.readline()
        done = await asyncio.gather(*(hit() for _ in range(15)))
        print(sum(one.created for one in done), flush=True)

asyncio.run(main())
"""


async def test_a_record_is_created_once_and_changed_later(invoke: Invoke) -> None:
    arguments: dict[str, Any] = {
        "where": {"name": "Lamp"},
        "create": {"name": "Lamp", "price": 3},
        "update": {"price": {"$inc": 1}, "note": "again"},
    }
    first = await invoke("products.upsert", **arguments)
    assert (first.created, first.action) == (True, "created")
    assert (first.record.id, first.record.price, first.record.note) == (1, 3.0, None)
    second = await invoke("products.upsert", **arguments, conflict_on=["name"])
    assert (second.created, second.action) == (False, "updated")
    assert (second.record.id, second.record.price, second.record.note) == (1, 4.0, "again")
    assert second.record == await invoke("products.get", id=1)


async def test_an_empty_update_leaves_the_record_as_it_is(invoke: Invoke) -> None:
    made = await invoke("products.upsert", where={"name": "a", "stock": 2}, update={})
    assert (made.created, made.record.stock) == (True, 2)
    again = await invoke("products.upsert", where={"name": "a", "stock": 2}, create={"price": 5})
    assert (again.created, again.record) == (False, made.record)
    other = await invoke("products.upsert", where={"name": "a", "stock": 3})
    assert (other.created, other.record.id) == (True, 2)


async def test_by_id(invoke: Invoke) -> None:
    made = await invoke("products.upsert", where={"id": 5}, create={"name": "a"}, update={"name": "b"})
    assert (made.created, made.record.id, made.record.name) == (True, 5, "a")
    again = await invoke("products.upsert", where={"id": 5}, create={"name": "a"}, update={"name": "b"})
    assert (again.created, again.record.name) == (False, "b")
    assert (await invoke("products.create", name="c")).id > 5


async def test_an_update_needs_no_record_to_create(invoke: Invoke) -> None:
    await invoke("products.create", name="a")
    done = await invoke("products.upsert", where={"id": 1}, update={"stock": 4})
    assert (done.created, done.record.stock) == (False, 4)
    with pytest.raises(NexusError, match="missing argument 'name'") as refused:
        await invoke("products.upsert", where={"id": 2}, update={"stock": 4})
    assert refused.value.code == "DF-101"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({}, "DF-101", "missing argument 'where'"),
        ({"where": {}}, "DF-102", "'where'"),
        ({"where": {"nmae": "a"}}, "DF-106", "Did you mean 'name'"),
        ({"where": {"name": {"$in": ["a"]}}}, "DF-102", "'name'"),
        ({"where": {"name": None}}, "DF-101", "needs 'name'"),
        ({"where": {"tags": []}}, "DF-106", "by which it can be matched"),
        ({"where": {"name": "a"}, "conflict_on": ["id"]}, "DF-102", "'conflict_on' has not"),
        ({"where": {"name": "a"}, "conflict_on": ["name", "stock"]}, "DF-101", "needs 'stock'"),
        ({"where": {"name": "a"}, "create": {"name": "b"}}, "DF-102", "another than in 'where'"),
        ({"where": {"name": "a"}, "create": {"prcie": 1}}, "DF-106", "Did you mean 'price'"),
        ({"where": {"name": "a"}, "update": {"prcie": 1}}, "DF-106", "Did you mean 'price'"),
        ({"where": {"name": "a"}, "updates": {}}, "DF-106", "Did you mean 'update'"),
    ],
)
async def test_bad_input_is_named(invoke: Invoke, arguments: dict[str, Any], code: str, words: str) -> None:
    await invoke("products.create", name="Lamp")
    with pytest.raises(NexusError, match=words) as refused:
        await invoke("products.upsert", **arguments)
    assert refused.value.code == code
    assert (await invoke("products.count")).count == 1


async def test_several_that_match_are_refused(invoke: Invoke) -> None:
    await invoke("products.bulk_create", data=[{"name": "a"}, {"name": "a"}])
    with pytest.raises(Conflict, match="2 records of products match"):
        await invoke("products.upsert", where={"name": "a"}, update={"stock": 1})


@pytest.mark.parametrize("where", [{"name": "x"}, {"id": 7}])
async def test_many_at_once_make_one_record(invoke: Invoke, where: dict[str, Any]) -> None:
    arguments = {"where": where, "create": {"name": "x", "stock": 1}, "update": {"$inc": {"stock": 1}}}
    done = await asyncio.gather(*(invoke("products.upsert", **arguments) for _ in range(30)))
    assert sorted(one.record.stock for one in done) == list(range(1, 31))
    assert [one.created for one in done].count(True) == 1
    assert (await invoke("products.count")).count == 1


async def test_two_programs_make_one_record(database: str) -> None:
    if database == ":memory:":
        return  # it belongs to one program
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            database,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    async with asyncio.timeout(60):
        for program in programs:
            assert program.stdout is not None
            assert await program.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*(program.communicate(b"go\n") for program in programs))
        created = [json.loads(output) for output, _ in said]
    assert [program.returncode for program in programs] == [0, 0]
    assert sum(created) == 1
    db = DataFlow(database)

    @db.model
    class Counter:
        name: str
        hits: int = 0

    app = Nexus(db)
    async with app.running():
        listed = await app.runtime.invoke("counters.list", {}, LOCAL, channel="test")
    assert [record.hits for record in listed.records] == [30]


async def test_no_record_is_known_by_what_the_platform_fills(invoke: Invoke) -> None:
    moment = "2026-01-01T00:00:00Z"
    with pytest.raises(InvalidArguments, match="created_at"):
        await invoke("products.upsert", where={"created_at": moment}, create={"name": "x"})
    with pytest.raises(InvalidArguments, match="updated_at"):
        rows = [{"name": "x", "updated_at": moment}]
        await invoke(
            "products.bulk_upsert", data=rows, conflict_resolution="update", match_fields=["updated_at"]
        )
