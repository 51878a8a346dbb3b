"""The id of a request: where it comes from, and where it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from nexus import LOCAL, Call, Nexus, Settings
from nexus.request import REQUEST, log_requests, new_request, part_of, request_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("parent", [PARENT, PARENT.replace("00-", "cc-", 1) + "-what-comes-later"])
def test_the_id_of_the_trace(parent: str) -> None:
    assert request_of(None, parent.encode()) == TRACE
    assert request_of(b"a b", parent.encode()) == TRACE
    assert request_of(b"mine", parent.encode()) == "mine"


@pytest.mark.parametrize(
    "parent",
    [
        "",
        TRACE,
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        PARENT.replace(TRACE, "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT[:-1],
        PARENT + "x",
        PARENT + "\n",
    ],
)
def test_what_is_no_trace(parent: str) -> None:
    assert request_of(None, parent.encode()) not in (TRACE, request_of(None, None))


def test_a_part_of_a_request() -> None:
    assert part_of("abc", "c1") == "abc/c1"
    assert part_of("abc", "a b\n\x1f") == "abc/a_b__"
    assert part_of(None, "c1").endswith("/c1")


async def test_a_call_knows_it() -> None:
    app = Nexus(settings=Settings())

    @app.operation
    async def which(call: Call) -> str | None:
        return call.request

    async with app.running():
        assert await app.runtime.invoke("which", {}, LOCAL, channel="test") is None
        token = REQUEST.set("abc")
        assert await app.runtime.invoke("which", {}, LOCAL, channel="test") == "abc"
        REQUEST.reset(token)


class TestLog:
    @pytest.fixture(autouse=True)
    def _factory(self) -> Iterator[None]:
        before = logging.getLogRecordFactory()
        yield
        logging.setLogRecordFactory(before)

    def test_every_line_names_it(self, caplog: pytest.LogCaptureFixture) -> None:
        log_requests()
        log_requests()
        token = REQUEST.set("abc")
        logging.getLogger("anybody").warning("within")
        REQUEST.reset(token)
        logging.getLogger("anybody").warning("outside")
        named = [record.request for record in caplog.records]  # type: ignore[attr-defined]
        assert named == ["abc", "-"]


def test_ids_differ() -> None:
    assert len({new_request() for _ in range(100)}) == 100
