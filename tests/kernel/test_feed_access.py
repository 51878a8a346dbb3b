"""Who may follow, while that changes: delivery ends at once, and what was visible leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dataflow import DataFlow
from nexus import LOCAL, Nexus, Session
from nexus.errors import Forbidden, Unauthenticated

pytestmark = pytest.mark.feed

EVERYTHING = frozenset({"*"})
ANN = Session(id="ann", user="ann", scopes=EVERYTHING, tenant="acme")


@pytest.fixture
def db(database: str) -> DataFlow:
    made = DataFlow(database)

    @made.model
    class Note:
        __dataflow__ = {"multi_tenant": True}
        text: str

    return made


async def run(app: Nexus, name: str, session: Session = ANN, /, **arguments: object) -> Any:
    return await app.runtime.invoke(name, arguments, session, channel="test")


async def rest(followed: Any) -> list[Any]:
    """What comes until the end, which must be an error, and that error."""
    seen: list[Any] = []
    async with asyncio.timeout(10):
        try:
            async for change in followed:
                seen.append(change)
        except (Forbidden, Unauthenticated) as failure:
            return [*seen, failure]
    raise AssertionError("the subscription went on")


CHANGES = {
    "permission": lambda app: app.policy.change(Session("ann", "ann", frozenset(), tenant="acme")),
    "tenant": lambda app: app.policy.change(Session("ann", "ann", EVERYTHING, tenant="other")),
    "revoked": lambda app: app.policy.revoke("ann"),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_ends_delivery_at_once(app: Nexus, kind: str) -> None:
    for text in "abc":
        await run(app, "notes.create", text=text)
    async with app.feed.subscribe(ANN, "notes", snapshot=True) as followed:
        assert followed.records is not None
        assert [record["text"] for record in followed.records] == ["a", "b", "c"]
        ending = asyncio.create_task(rest(followed))
        await run(app, "notes.delete", id=2)
        await run(app, "notes.create", text="d")
        await asyncio.sleep(0.3)
        CHANGES[kind](app)
        async with asyncio.timeout(0.9):  # before the second after which everybody looks anyway
            left, made, *leaves, failure = await ending
    assert [(c.event, c.key) for c in (left, made)] == [("leave", 2), ("enter", 4)]
    assert [(c.event, c.key, c.record, c.old) for c in leaves] == [
        ("leave", key, None, None) for key in (1, 3, 4)
    ]
    assert isinstance(failure, Unauthenticated if kind == "revoked" else Forbidden)
    assert kind == "tenant" or (await refused(app))


async def refused(app: Nexus) -> bool:
    try:
        await run(app, "notes.list")
    except (Forbidden, Unauthenticated):
        return True
    return False


async def test_what_happened_before_it_was_delivered_is_told_as_leave_only(app: Nexus) -> None:
    """A reader that is behind loses what it knows, and learns nothing that it did not know."""
    for text in "ab":
        await run(app, "notes.create", text=text)
    async with app.feed.subscribe(ANN, "notes", snapshot=True) as followed:
        await run(app, "notes.delete", id=1)
        await run(app, "notes.create", text="secret")
        await run(app, "notes.create", Session("x", "x", EVERYTHING, tenant="other"), text="elsewhere")
        app.policy.change(Session("ann", "ann", frozenset(), tenant="acme"))
        *leaves, failure = await rest(followed)
    assert sorted((c.event, c.key) for c in leaves) == [("leave", 1), ("leave", 2)]
    assert isinstance(failure, Forbidden)


async def test_calls_are_those_of_the_changed_session(app: Nexus) -> None:
    await run(app, "notes.create", text="a")
    app.policy.change(Session("ann", "ann", EVERYTHING, tenant="other"))
    assert (await run(app, "notes.count")).count == 0
    app.policy.revoke("ann")
    with pytest.raises(Unauthenticated):
        await run(app, "notes.count")
    assert app.policy.current(LOCAL) is LOCAL
