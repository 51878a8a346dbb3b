"""Entity tags: how they are read, and what they are compared with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus import LOCAL, Call, Effect, Nexus, Operation
from nexus.demands import Demands
from nexus.errors import InvalidInput, PreconditionFailed, PreconditionRequired
from nexus.etag import Match, is_known, parse_match, strong, weak

CHARACTERS = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f')
TAGS = st.builds(lambda w, text: f'{w}"{text}"', st.sampled_from(["", "W/"]), st.text(CHARACTERS))


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("*", None),
        (" * ", None),
        ('"a"', ('"a"',)),
        ('""', ('""',)),
        ('"a,b"', ('"a,b"',)),
        ('"a", W/"b" ,"c"', ('"a"', 'W/"b"', '"c"')),
        (' , "a",, "b" ,', ('"a"', '"b"')),
        ("a-1.b_2", ('"a-1.b_2"',)),
    ],
)
def test_what_is_read(text: str, tags: tuple[str, ...] | None) -> None:
    assert parse_match(text).tags == tags


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", '"', '"a', 'a"', '"a" "b"', '"a"b', 'w/"a"', "W/a b", "a, b", '*, "a"', '"a b"', '"a\n"'],
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_match(text)
    assert (refused.value.code, refused.value.status) == ("NX-400", 400)
    assert "if_match" in str(refused.value)


@given(st.lists(TAGS, min_size=1), st.sampled_from([",", ", ", " , ", ",\t,"]))
def test_every_list_is_read(tags: list[str], between: str) -> None:
    assert parse_match(between.join(tags)).tags == tuple(tags)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_match(text)
    except InvalidInput:
        return


def test_a_long_text_takes_no_longer_than_it_is() -> None:
    many = parse_match(", ".join(['"a"'] * 50_000)).tags
    assert many is not None
    assert len(many) == 50_000
    with pytest.raises(InvalidInput):
        parse_match("," * 100_000 + "x")


def test_strong_comparison() -> None:
    assert Match(('"b"', '"a"')).holds('"a"')
    assert not Match(('W/"a"',)).holds('"a"')
    assert not Match(('"a"',)).holds('W/"a"')
    assert not Match(('W/"a"',)).holds('W/"a"')
    assert Match(None).holds('"a"')
    assert not Match(None).holds(None)


def test_weak_comparison() -> None:
    assert is_known(Match(('W/"a"',)), '"a"')
    assert is_known(Match(('"b"', '"a"')), 'W/"a"')
    assert is_known(Match(None), '"a"')
    assert not is_known(Match(('"b"',)), '"a"')


def test_what_failed_says_what_is_there_now() -> None:
    with pytest.raises(PreconditionFailed) as failed:
        Match(('"a"',)).check("The record 1", '"b"')
    assert failed.value.describe()["etag"] == '"b"'
    assert (failed.value.status, failed.value.exit_code) == (412, 4)
    assert "weak" not in str(failed.value)
    assert "weak" in str(Match(('W/"a"',)).failure("The record 1", '"a"'))


def test_tags_are_the_same_in_every_process() -> None:
    assert strong(b'{"id":1}') == '"18809ecf0b42efebe110"'
    assert weak(b'{"id":1}') == "W/" + strong(b'{"id":1}')


class TestDemands:
    """Of operations that were made by hand."""

    @pytest.fixture
    def app(self) -> Nexus:
        app = Nexus()

        async def seen(call: Call, given: object) -> object:
            return call.match and call.match.tags

        async def inside(call: Call, given: object) -> object:
            return [await call.run("one.update", {}), call.match]

        one = Operation("one.update", seen, effect=Effect.UPDATE, resource="one", verb="update", matches=True)
        asking = Operation("asking", seen, matches=True, asks_match=lambda given: True)
        app.registry.add(one, asking, Operation("around", inside), Operation("plain", seen))
        return app

    async def run(self, app: Nexus, name: str, tag: str | None = None, channel: str = "test") -> object:
        demands = None if tag is None else Demands(if_match=tag)
        return await app.runtime.invoke(name, {}, LOCAL, channel=channel, demands=demands)

    async def test_the_handler_sees_what_was_asked(self, app: Nexus) -> None:
        assert await self.run(app, "one.update", '"a", "b"') == ('"a"', '"b"')
        assert await self.run(app, "one.update") is None

    @pytest.mark.parametrize("tag", ['"a"', "*"])
    async def test_refused_by_name_where_it_means_nothing(self, app: Nexus, tag: str) -> None:
        for name in ("plain", "around"):
            with pytest.raises(InvalidInput, match=f"'{name}' cannot have 'if_match'"):
                await self.run(app, name, tag)

    async def test_cannot_be_read(self, app: Nexus) -> None:
        with pytest.raises(InvalidInput, match="cannot be read"):
            await self.run(app, "one.update", '"a')

    async def test_what_runs_inside_is_not_asked(self, app: Nexus) -> None:
        assert await self.run(app, "around") == [None, None]

    async def test_asked_for_from_outside_only(self, app: Nexus) -> None:
        with pytest.raises(PreconditionRequired) as refused:
            await self.run(app, "asking")
        assert (refused.value.code, refused.value.status, refused.value.exit_code) == ("NX-427", 428, 2)
        assert await self.run(app, "asking", "*") is None
        assert await self.run(app, "asking", channel="python") is None
