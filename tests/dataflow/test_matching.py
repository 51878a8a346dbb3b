"""Changing a record only in the state that was seen: by its tag."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.demands import Demands
from nexus.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    RegistrationError,
)
from tests.dataflow.test_types import declare as declare_samples
from tests.support.increments import ROUTES, application, count_up, invoke, tag_of

ALL = ["papers", "drafts"]


@pytest.fixture
async def app(database: str) -> AsyncIterator[Nexus]:
    db = DataFlow(database)

    @db.model
    class Paper:
        """Its tag is that of what it holds."""

        id: str
        title: str
        data: dict[str, Any] | None = None

    @db.model
    class Draft:
        """Its tag is its version."""

        id: str
        title: str
        __dataflow__ = {"versioned": True, "soft_delete": True}

    @db.model
    class Careful:
        title: str
        __tablename__ = "carefuls"
        __dataflow__ = {"require_if_match": True, "versioned": True}

    @db.model
    class Wary:
        title: str
        __tablename__ = "waries"
        __dataflow__ = {"require_if_match": True}

    declare_samples(db)
    made = Nexus(db, channels=())
    async with made.running():
        yield made


async def made_with_tag(app: Nexus, route: str, **values: Any) -> str:
    tag = tag_of(app, f"{route}.create", await invoke(app, f"{route}.create", **values))
    assert tag is not None
    return tag


@pytest.mark.parametrize("route", ALL)
class TestOneRecord:
    async def test_a_change_of_what_was_seen_is_made_once(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        changed = await invoke(app, f"{route}.update", first, id="a", title="two")
        second = tag_of(app, f"{route}.update", changed)
        assert first != second
        with pytest.raises(PreconditionFailed) as failed:
            await invoke(app, f"{route}.update", first, id="a", title="three")
        assert failed.value.etag == second
        assert "record a" in str(failed.value)
        kept = await invoke(app, f"{route}.get", id="a")
        assert (kept.title, tag_of(app, f"{route}.get", kept)) == ("two", second)

    async def test_a_deletion_too(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        second = tag_of(app, f"{route}.update", await invoke(app, f"{route}.update", id="a", title="two"))
        with pytest.raises(PreconditionFailed) as failed:
            await invoke(app, f"{route}.delete", first, id="a")
        assert failed.value.etag == second
        assert (await invoke(app, f"{route}.get", id="a")).title == "two"
        assert (await invoke(app, f"{route}.delete", second, id="a")).deleted == 1

    async def test_one_of_several_is_enough(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        await invoke(app, f"{route}.update", f'"x", {first}, W/"y"', id="a", title="two")
        with pytest.raises(PreconditionFailed):
            await invoke(app, f"{route}.update", f'"x", {first}', id="a", title="three")

    async def test_a_tag_may_come_without_its_quotes(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        assert (await invoke(app, f"{route}.update", first.strip('"'), id="a", title="two")).title == "two"

    async def test_any_state(self, app: Nexus, route: str) -> None:
        await made_with_tag(app, route, id="a", title="one")
        assert (await invoke(app, f"{route}.update", "*", id="a", title="two")).title == "two"
        assert (await invoke(app, f"{route}.delete", "*", id="a")).deleted == 1

    async def test_no_record_is_no_record(self, app: Nexus, route: str) -> None:
        for tag in ("*", '"a"', '"1-5e-0000"', '"a", "b"'):
            for verb, more in (("update", {"title": "x"}), ("delete", {}), ("get", {})):
                with pytest.raises(NotFound):
                    await invoke(app, f"{route}.{verb}", tag, id="a", **more)

    async def test_weak_tags_never_match(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        for tag in (f"W/{first}", f'W/{first}, "x"'):
            with pytest.raises(PreconditionFailed):
                await invoke(app, f"{route}.update", tag, id="a", title="two")
            with pytest.raises(PreconditionFailed):
                await invoke(app, f"{route}.delete", tag, id="a")

    async def test_tags_of_nothing(self, app: Nexus, route: str) -> None:
        await made_with_tag(app, route, id="a", title="one")
        large = [f'"{10**18}-ffffffffffffffff-0000"', f'"{"9" * 19}-1-0000"']
        for tag in ('"0-0-0000"', '"1--1-ffff"', '"é"', '""', *large):
            with pytest.raises(PreconditionFailed):
                await invoke(app, f"{route}.update", tag, id="a", title="two")

    async def test_whichever_way_the_record_is_found(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        await made_with_tag(app, route, id="b", title="other")
        about: dict[str, Any] = {"filter": {"title": "one"}}
        changed = await invoke(app, f"{route}.update", first, **about, fields={"title": "two"})
        second = tag_of(app, f"{route}.update", changed)
        about = {"filter": {"title": "two"}}
        for verb, more in (("update", {"fields": {"title": "x"}}), ("delete", {})):
            with pytest.raises(PreconditionFailed) as failed:
                await invoke(app, f"{route}.{verb}", first, **about, **more)
            assert failed.value.etag == second
        assert (await invoke(app, f"{route}.delete", second, **about)).id == "a"

    async def test_a_record_that_was_made_again_is_another(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        more = {"soft_delete": False} if route == "drafts" else {}
        await invoke(app, f"{route}.delete", id="a", **more)
        assert await made_with_tag(app, route, id="a", title="one") != first
        with pytest.raises(PreconditionFailed):
            await invoke(app, f"{route}.update", first, id="a", title="two")

    async def test_reading(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        assert (await invoke(app, f"{route}.get", first, id="a")).title == "one"
        with pytest.raises(PreconditionFailed) as failed:
            await invoke(app, f"{route}.get", '"x"', id="a")
        assert failed.value.etag == first
        with pytest.raises(InvalidInput, match="weak"):
            await invoke(app, f"{route}.get", first, id="a", include=[])

    async def test_a_change_that_fails_otherwise_changes_nothing(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, id="a", title="one")
        with pytest.raises(InvalidInput):
            await invoke(app, f"{route}.update", first, id="a", fields={"title": 3})
        assert tag_of(app, f"{route}.get", await invoke(app, f"{route}.get", id="a")) == first


@pytest.mark.databases("file", "postgresql")
async def test_of_a_versioned_record_it_is_one_statement(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    db = DataFlow(database, echo=True)

    @db.model
    class Draft:
        title: str
        __dataflow__ = {"versioned": True, "changes": False}

    app = Nexus(db, channels=())
    async with app.running():
        first = await made_with_tag(app, "drafts", title="one")
        caplog.set_level("INFO", "dataflow.sql")
        caplog.clear()
        changed = await invoke(app, "drafts.update", first, id=1, title="two")
        await invoke(app, "drafts.delete", tag_of(app, "drafts.update", changed), id=1)
    said = [record.getMessage() for record in caplog.records if record.name == "dataflow.sql"]
    assert [sql.split()[0] for sql in said if "drafts" in sql] == ["UPDATE", "DELETE"]


async def test_a_version_is_asked_as_well(app: Nexus) -> None:
    first = await made_with_tag(app, "drafts", id="a", title="one")
    for tag in (first, f'{first}, "x"', "*"):
        with pytest.raises(Conflict):
            await invoke(app, "drafts.update", tag, id="a", title="two", version=7)
    with pytest.raises(PreconditionFailed):
        await invoke(app, "drafts.update", '"x"', id="a", title="two", version=7)
    assert (await invoke(app, "drafts.update", first, id="a", title="two", version=1)).version == 2


async def test_what_is_softly_deleted_has_a_tag_as_well(app: Nexus) -> None:
    first = await made_with_tag(app, "drafts", id="a", title="one")
    await invoke(app, "drafts.delete", first, id="a")
    with pytest.raises(NotFound):
        await invoke(app, "drafts.update", first, id="a", title="two")
    with pytest.raises(PreconditionFailed) as failed:
        await invoke(app, "drafts.delete", first, id="a", soft_delete=False, include_deleted=True)
    gone = failed.value.etag
    await invoke(app, "drafts.delete", gone, id="a", soft_delete=False, include_deleted=True)


async def test_the_tag_is_of_what_is_stored_whatever_its_type(app: Nexus) -> None:
    values: dict[str, Any] = {
        "moment": "2026-01-02T03:04:05.678901+02:00",
        "day": "2026-01-02",
        "clock": "03:04:05.5",
        "amount": "1.10",
        "token": "01890a5d-ac96-774b-bcce-b302099a8057",
        "blob": "AP8=",
        "colour": "red",
        "level": -1,
        "size": "m",
        "step": 2,
        "days": ["2026-01-02"],
        "prices": {"z": "1.50", "a": "2"},
        "by_number": {10: "x", 9: "y"},
        "anything": {"b": [1, 2.5, None, "ä😀"], "a": {"z": True}},
    }
    made = await invoke(app, "samples.create", **values)
    read = await invoke(app, "samples.get", id=made.id)
    first = tag_of(app, "samples.get", read)
    assert tag_of(app, "samples.create", made) == first
    changed = await invoke(app, "samples.update", first, id=made.id, size="l")
    second = tag_of(app, "samples.update", changed)
    assert second == tag_of(app, "samples.get", await invoke(app, "samples.get", id=made.id)) != first
    await invoke(app, "samples.delete", second, id=made.id)


@pytest.mark.parametrize("route", ALL)
async def test_what_is_told_of_again_has_the_tag_that_it_had(app: Nexus, route: str) -> None:
    demands = Demands(key="k")
    values = {"id": "a", "title": "one"} | ({"data": {"b": 1, "a": [2]}} if route == "papers" else {})
    for _ in range(2):
        result = await app.runtime.invoke(f"{route}.create", values, LOCAL, channel="test", demands=demands)
        read = await invoke(app, f"{route}.get", id="a")
        assert tag_of(app, f"{route}.create", result) == tag_of(app, f"{route}.get", read)
    assert tag_of(app, f"{route}.get", read) == tag_of(app, f"{route}.get", msgspec.to_builtins(read))


async def test_with_related_records_the_tag_is_weak(app: Nexus) -> None:
    first = await made_with_tag(app, "papers", id="a", title="one")
    read = await invoke(app, "papers.get", id="a", include=[])
    assert tag_of(app, "papers.get", read) == first
    tag = tag_of(app, "papers.get", {**read, "author": None})
    assert tag is not None
    assert tag.startswith('W/"')
    missing = await invoke(
        app, "papers.get", filter={"title": "x"}, return_null_if_not_found=True, include=[]
    )
    assert tag_of(app, "papers.get", missing) is None
    nothing = await invoke(app, "papers.get", filter={"title": "x"}, return_null_if_not_found=True)
    assert tag_of(app, "papers.get", nothing) is None


async def test_operations_that_cannot_be_asked_say_so(app: Nexus) -> None:
    asked = {
        "create": {"id": "a", "title": "x"},
        "list": {},
        "count": {},
        "upsert": {"where": {"id": "a"}, "create": {"title": "x"}},
        "bulk_create": {"data": []},
        "bulk_update": {"filter": {}, "update": {"title": "x"}},
        "bulk_delete": {"filter": {}},
        "bulk_upsert": {"data": []},
    }
    for verb, arguments in asked.items():
        with pytest.raises(InvalidInput, match=rf"'papers\.{verb}' cannot have 'if_match'"):
            await invoke(app, f"papers.{verb}", '"a"', **arguments)


class TestRequired:
    @pytest.mark.parametrize("route", ["carefuls", "waries"])
    async def test_from_outside_a_change_must_say_it(self, app: Nexus, route: str) -> None:
        first = await made_with_tag(app, route, title="one")
        for verb, more in (("update", {"title": "x"}), ("delete", {})):
            with pytest.raises(PreconditionRequired) as refused:
                await invoke(app, f"{route}.{verb}", id=1, **more)
            assert "if_match" in refused.value.remedy
        changed = await invoke(app, f"{route}.update", first, id=1, title="two")
        assert changed.title == "two"
        assert (await invoke(app, f"{route}.delete", "*", id=1)).deleted == 1

    async def test_a_version_says_it_too(self, app: Nexus) -> None:
        await made_with_tag(app, "carefuls", title="one")
        assert (await invoke(app, "carefuls.update", id=1, title="two", version=1)).version == 2

    @pytest.mark.parametrize("route", ["carefuls", "waries"])
    async def test_there_is_no_way_around_it(self, app: Nexus, route: str) -> None:
        await made_with_tag(app, route, title="one")
        ways: dict[str, dict[str, Any]] = {
            "upsert": {"where": {"id": 1}, "update": {"title": "x"}},
            "bulk_update": {"filter": {}, "update": {"title": "x"}},
            "bulk_delete": {"filter": {}},
            "bulk_upsert": {"data": [{"id": 1, "title": "x"}]},
            "bulk_create": {"data": [{"id": 1, "title": "x"}], "conflict_resolution": "update"},
        }
        for verb, arguments in ways.items():
            with pytest.raises(PreconditionRequired):
                await invoke(app, f"{route}.{verb}", **arguments)
        assert (await invoke(app, f"{route}.get", id=1)).title == "one"
        await invoke(app, f"{route}.bulk_create", data=[{"title": "two"}])
        await invoke(app, f"{route}.upsert", where={"id": 7}, create={"title": "three"})

    async def test_a_program_and_a_workflow_are_trusted(self, app: Nexus) -> None:
        await made_with_tag(app, "waries", title="one")

        @app.operation
        async def rename(call: Any, title: str) -> str:
            changed = await call.run("waries.update", {"id": 1, "title": title})
            return str(changed.title)

        assert await invoke(app, "rename", title="two") == "two"
        arguments = {"id": 1, "title": "three"}
        assert (
            await app.runtime.invoke("waries.update", arguments, LOCAL, channel="python")
        ).title == "three"

    def test_is_a_switch(self) -> None:
        class Thing:
            name: str
            __dataflow__ = {"require_if_match": "yes"}

        with pytest.raises(RegistrationError, match="require_if_match"):
            DataFlow(":memory:").model(Thing)

        class Other:
            if_match: str

        with pytest.raises(RegistrationError, match="if_match"):
            DataFlow(":memory:").model(Other)


@pytest.mark.parametrize("route", ROUTES)
async def test_no_increment_is_lost_between_connections(database: str, route: str) -> None:
    """Every change that was answered as done is one increment, whoever else counts."""
    first = application(database)
    second = first if database == ":memory:" else application(database)
    async with first.running():
        await invoke(first, f"{route}.create")
        async with asyncio.TaskGroup() as group:
            counting = [
                group.create_task(count_up(app, route, 12)) for app in (first, second) for _ in range(3)
            ]
        kept = sum(task.result()[0] for task in counting)
        assert (await invoke(first, f"{route}.get", id=1)).count == kept > 0
        if second is not first:
            await second.contributors[0].close()


@pytest.mark.databases("file", "postgresql", "mysql", "mysql-without-returning")
@pytest.mark.parametrize("route", ROUTES)
async def test_no_increment_is_lost_between_processes(database: str, route: str) -> None:
    app = application(database)
    async with app.running():
        await invoke(app, f"{route}.create")
        words = [sys.executable, "-m", "tests.support.increments", database, route, "60"]
        others = [
            await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE) for _ in range(2)
        ]
        said = [(await other.communicate())[0].decode().split() for other in others]
        assert [other.returncode for other in others] == [0, 0]
        kept = sum(int(words[0]) for words in said)
        assert (await invoke(app, f"{route}.get", id=1)).count == kept > 0
