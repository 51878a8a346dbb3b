"""Arguments as they come: numbers that are integers to JSON Schema, and values that are only text."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
import pytest

from nexus.arguments import Arguments
from nexus.errors import InvalidArguments


class Given(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(le=10)] = 0
    several: list[int] = []
    price: float = 0.0
    anything: Any = None
    at: datetime.datetime | None = None
    day: datetime.date = datetime.date(2026, 1, 1)
    text: str | None = None


ARGUMENTS = Arguments("test", Given)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_number_without_a_fraction_is_an_integer(as_bytes: bool) -> None:
    given = {"count": 3.0, "several": [1.0, 2], "price": 3, "anything": {"x": 1.0}}
    accepted = ARGUMENTS.accept(msgspec.json.encode(given) if as_bytes else given)
    assert (accepted.count, accepted.several) == (3, [1, 2])
    assert type(accepted.count) is int
    assert type(accepted.anything["x"]) is float


@pytest.mark.parametrize("given", [{"count": 3.5}, {"count": 11.0}, {"several": [1.0, 1.5]}, {"count": "3"}])
def test_no_other_is(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments) as caught:
        ARGUMENTS.accept(given)
    assert caught.value.problems[0].pointer.startswith(("/count", "/several"))


def test_all_that_is_wrong_is_named_beside() -> None:
    with pytest.raises(InvalidArguments) as caught:
        ARGUMENTS.accept({"count": 3.0, "price": "x", "nothing": 1})
    assert [problem.pointer for problem in caught.value.problems] == ["/nothing", "/price"]


def test_a_number_is_no_moment() -> None:
    assert ARGUMENTS.from_text("at", "null") is None
    assert ARGUMENTS.from_text("at", "2026-01-31T12:00:00Z") is not None
    for name in ("at", "day"):
        with pytest.raises(InvalidArguments):
            ARGUMENTS.from_text(name, "0.5")
    assert ARGUMENTS.from_text("text", "null") == "null"
    assert ARGUMENTS.from_text("count", "3") == 3


def test_names_are_looked_at_by_themselves() -> None:
    ARGUMENTS.check_names(["count", "text"])
    with pytest.raises(InvalidArguments, match="Did you mean 'count'"):
        ARGUMENTS.check_names(["text", "cuont"])
