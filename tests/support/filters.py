"""Random records and filters, and a model to hold the records."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.filters import matches
from tests.support.databases import empty_database

# One of each engine: what differs between two files of one engine is not what filters are about.
ENGINES = ["memory", "postgresql", "mysql"]

# Small alphabets, so that values meet: case, accents, a combining mark, an astral character, quotes,
# wildcards, lines, the empty text.
TEXTS = st.text(alphabet="aAbBéÉß%_'\"\\ 0\n\u0301😀", max_size=4)
INTS = st.one_of(st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]))
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 0.30000000000000004, 0.3, 1.0, -1.5, 1e300, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
MOMENTS = st.datetimes(
    min_value=datetime.datetime(1, 1, 2),
    max_value=datetime.datetime(9999, 12, 30),
    timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=5, minutes=30))]),
)

ATOMS = st.sampled_from(
    [
        "a",
        "A",
        "b",
        "é",
        "😀",
        "0",
        "\\.",
        "\\\\",
        "'",
        "%",
        '"',
        ".",
        "[ab]",
        "[^a]",
        "[A-Zé]",
        "\\d",
        "\\w",
        "\\s",
        "\\D",
        "\\W",
        "\\S",
        "[^\\w]",
        "[\\d\\]-]",
        "[^\n]",
        "\\n",
        "\\x41",
        "\\u00e9",
        "\\-",
        "\\[",
        "[\\^&~|]",
    ]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}", "*?"])
PATTERNS = st.recursive(
    st.tuples(ATOMS, QUANTIFIERS).map("".join) | st.sampled_from(["^", "$", "\\A", "\\z", ""]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, QUANTIFIERS).map(lambda two: f"(?:{two[0]}){two[1]}"),
    ),
    max_leaves=6,
)
OPTIONS = st.sampled_from(["", "", "i", "m", "s", "x", "ims"])
LIKES = st.lists(
    st.sampled_from(["%", "_", "\\%", "\\_", "\\\\", "a", "A", "é", "É", "😀", "'", "\n"]), max_size=4
).map("".join)


def text_tests(texts: st.SearchStrategy[str] = TEXTS) -> dict[str, st.SearchStrategy[Any]]:
    return {"$startswith": texts, "$endswith": texts, "$contains": texts, "$like": LIKES, "$ilike": LIKES}


REGEXES = st.tuples(PATTERNS, OPTIONS).map(lambda two: {"$regex": two[0], "$options": two[1]})


def combined(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves | st.just({}),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)).map(
                lambda pair: {pair[0]: pair[1]}
            ),
            inner.map(lambda part: {"$not": part}),
            st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        ),
        max_leaves=6,
    )


def declare(db: DataFlow) -> None:
    @db.model
    class Thing:
        title: str | None = None
        amount: int | None = None
        weight: float | None = None
        flag: bool | None = None
        moment: datetime.datetime | None = None
        day: datetime.date | None = None
        meta: dict[str, Any] | None = None
        tags: list[Any] | None = None


class Things:
    """A Thing model in one event loop that lasts, and what to compare about it."""

    def __init__(self, url: str) -> None:
        self.db = DataFlow(url)
        declare(self.db)
        self.app = Nexus(self.db)
        self.runner = asyncio.Runner()

    async def invoke(self, name: str, **arguments: Any) -> Any:
        return await self.app.runtime.invoke(name, arguments, LOCAL, channel="test")

    async def compare(self, records: list[Any], filters: list[Any]) -> None:
        """For each filter, the database finds those of the records that the predicate is true for."""
        stored = [await self.invoke("things.create", **record) for record in records]
        plain = [msgspec.structs.asdict(record) for record in stored]
        try:
            for document in filters:
                tree = self.db.models["Thing"].parse_filter(document)
                expected = [record["id"] for record in plain if matches(tree, record)]
                listed = await self.invoke("things.list", filter=document)
                assert [record.id for record in listed.records] == expected, (document, plain)
                assert (await self.invoke("things.count", filter=document)).count == len(expected)
        finally:
            for record in stored:
                await self.invoke("things.delete", id=record.id)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)


def opened(kind: str) -> Iterator[Things]:
    with tempfile.TemporaryDirectory() as folder:
        things = Things(empty_database(kind, Path(folder)))
        yield things
        things.run(things.db.close())
        things.runner.close()
