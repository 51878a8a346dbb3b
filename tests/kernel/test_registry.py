"""The registry: one dictionary, whole after every change."""

from __future__ import annotations

import pytest

from nexus import Call, Effect, Operation, Registry, operation
from nexus.errors import RegistrationError, UnknownOperation


async def nothing(call: Call, arguments: object) -> None:
    return None


def listing(resource: str, node: str = "") -> Operation:
    return Operation(
        name=f"{resource}.list",
        handler=nothing,
        resource=resource,
        verb="list",
        node=node,
        effect=Effect.READ,
    )


def test_an_operation_answers_to_each_of_its_spellings() -> None:
    registry = Registry()
    made = listing("products", "ProductListNode")
    registry.add(made)
    for spelling in ("products.list", "products_list", "ProductListNode"):
        assert registry[spelling] is made
    assert registry.verbs("products") == {"list": made}
    assert registry.verbs("nothing") == {}


def test_what_is_taken_is_refused_and_nothing_of_the_rest_is_added() -> None:
    registry = Registry()
    registry.add(listing("products", "ProductListNode"))
    before = registry.version
    with pytest.raises(RegistrationError, match="'ProductListNode' is the name of"):
        registry.add(listing("orders"), listing("others", "ProductListNode"))
    assert "orders.list" not in registry
    assert registry.version == before


def test_removing_removes_every_spelling() -> None:
    registry = Registry()
    registry.add(listing("products", "ProductListNode"))
    registry.remove("products.list")
    assert len(registry) == 0
    assert registry.resources() == []
    with pytest.raises(UnknownOperation):
        registry["ProductListNode"]


def test_watchers_hear_of_each_change_after_it() -> None:
    registry = Registry()
    heard: list[tuple[int, int]] = []
    unwatch = registry.watch(lambda: heard.append((registry.version, len(registry))))
    registry.add(listing("products"), listing("orders"))
    registry.remove("orders.list")
    unwatch()
    registry.add(listing("orders"))
    assert heard == [(1, 2), (2, 1)]


@pytest.mark.parametrize("name", ["", "1x", "a b", "a/b", "a.B", "a.b.c", "x" * 65, "é"])
def test_names_that_a_channel_could_not_spell_are_refused(name: str) -> None:
    with pytest.raises(RegistrationError):
        Operation(name=name, handler=nothing)


@pytest.mark.parametrize("resource", ["workflows", "runs", "session", "serve"])
def test_resources_that_the_platform_takes_are_refused(resource: str) -> None:
    with pytest.raises(RegistrationError, match="__dataflow__"):
        listing(resource)


def test_a_function_without_annotations_cannot_be_an_operation() -> None:
    async def bare(call, name):  # type: ignore[no-untyped-def]
        return name

    async def starred(call: Call, **names: str) -> None: ...

    def synchronous(call: Call) -> None: ...

    for wrong in (bare, starred, synchronous):
        with pytest.raises(RegistrationError):
            operation(wrong)


def test_what_is_added_piece_by_piece_is_as_if_at_once() -> None:
    operations = [listing(name, node) for name, node in (("a", "AListNode"), ("b", ""), ("c", "CListNode"))]
    hidden = Operation(name="a.hide", handler=nothing, resource="a", verb="hide", internal=True)
    at_once, pieces = Registry(), Registry()
    at_once.add(*operations, hidden)
    before = pieces.verbs("a")
    for one in (*operations, hidden):
        pieces.add(one)
    assert before == {}
    assert pieces.resources() == at_once.resources() == ["a", "b", "c"]
    assert pieces.verbs("a") == at_once.verbs("a") == {"list": operations[0]}
    assert list(pieces) == list(at_once)
    pieces.remove("b.list")
    assert ("b.list" in pieces, "CListNode" in pieces, pieces.resources()) == (False, True, ["a", "c"])
