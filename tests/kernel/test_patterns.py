"""The subset of regular expressions: what it means, what it refuses, and that no text makes it slow."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nexus.errors import InvalidFilter
from nexus.patterns.match import Pattern, Walk, like
from nexus.patterns.syntax import parse_pattern
from tests.support.filters import LIKES, OPTIONS, PATTERNS, TEXTS

SUBJECTS = st.text(alphabet="aAbé0 .\n\\'😀", max_size=8)


@given(pattern=PATTERNS, subjects=st.lists(SUBJECTS, max_size=6))
def test_without_options_a_pattern_means_what_python_means(pattern: str, subjects: list[str]) -> None:
    try:
        made = Pattern(pattern).made
    except InvalidFilter:
        assume(False)
    wanted = re.compile(pattern.replace("\\z", "\\Z"), re.ASCII)
    for subject in subjects:
        assert made.found_in(subject) is (wanted.search(subject) is not None)


@given(pattern=PATTERNS, options=OPTIONS, subjects=st.lists(SUBJECTS, max_size=6))
def test_walking_finds_what_trying_finds(pattern: str, options: str, subjects: list[str]) -> None:
    try:
        made = Pattern(pattern, options).made
    except InvalidFilter:
        assume(False)
    walk, whole = Walk(made.node), Walk(parse_pattern(pattern, options))
    for subject in subjects:
        found = made.found_in(subject)
        assert walk.found_in(subject) is found
        assert whole.found_in(subject) is found  # what was left out as superfluous was so


@pytest.mark.parametrize(
    ("pattern", "options", "found", "not_found"),
    [
        ("^a$", "", ["a", "a\n"], ["ab", "b\na"]),
        ("^a$", "m", ["a", "b\na", "a\nb"], ["ab"]),
        ("\\Aa\\z", "m", ["a"], ["a\n", "b\na"]),
        ("a.b", "", ["axb", "a😀b"], ["a\nb", "ab"]),
        ("a.b", "s", ["a\nb"], ["ab"]),
        ("straße", "i", ["STRAßE", "Straße"], ["STRASSE"]),
        ("É", "i", ["é", "É"], ["e"]),
        ("[^é]", "i", ["e"], ["é", "É"]),
        ("[a-c]+x", "i", ["Bx", "ABCX"], ["dx"]),
        ("k", "i", ["\u212a", "K"], ["x"]),  # the sign of the kelvin is a k
        ("ß", "i", ["ẞ"], ["ss"]),
        ("\u03a3", "i", ["\u03c3", "\u03c2"], ["s"]),
        ("(?i)lamp", "", ["LAMP"], ["LAM"]),
        ("a b # comment", "x", ["ab"], ["a b"]),
        ("[ ]\\ a", "x", ["  a"], [" a"]),
        ("\\w", "", ["a", "_", "0"], ["é", "٣", "-"]),
        ("\\d", "", ["7"], ["٣"]),
        ("\\s", "", ["\v", "\f"], ["\u00a0"]),
        ("[\\]a]", "", ["]", "a"], ["b"]),
        ("[a\\-z]", "", ["-"], ["b"]),
        ("[\\d-]", "", ["-", "1"], ["a"]),
        ("a{2,3}?b", "", ["aab"], ["ab"]),
        (
            "John.*Smith.*Jr",
            "",
            ["John A Smith x Jr", "John Smith SmithJr"],
            ["Smith John Jr", "John\nSmith Jr"],
        ),
        ("(a|b)|", "", ["", "x"], []),
    ],
)
def test_meaning(pattern: str, options: str, found: list[str], not_found: list[str]) -> None:
    made = Pattern(pattern, options)
    assert [text for text in found if not made.found_in(text)] == []
    assert [text for text in not_found if made.found_in(text)] == []


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        *(
            ((f"(?{kind}a)"), "not of the subset")
            for kind in ("=", "!", "<=", "<!", ">", "P<n>", "#", "R", "i:")
        ),
        *(
            (f"(a){escape}", "not of the subset")
            for escape in ("\\1", "\\k", "\\b", "\\B", "\\p", "\\Z", "\\G", "\\0")
        ),
        ("a++", "possessive"),
        ("a**", "cannot be repeated"),
        ("a{2}{3}", "cannot be repeated"),
        ("^*", "anchor"),
        ("*a", "repeats nothing"),
        ("{2}", "repeats nothing"),
        ("a{", "begins no repetition"),
        ("a{,2}", "begins no repetition"),
        ("a{-1}", "begins no repetition"),
        ("a{٣}", "begins no repetition"),
        ("a{3,2}", "lower bound"),
        ("a{256}", "at most 255"),
        ("(a", "not closed"),
        ("a)", "nothing opens"),
        ("[a", "empty|ends"),
        ("[]", "empty|ends"),
        ("[]a]", "empty"),
        ("[^\\w\\W]", "empty"),
        ("[z-a]", "ends before"),
        ("[\\d-z]", "from a character to a character"),
        ("[[:alpha:]]", "names"),
        ("(*UTF8)a", "verbs"),
        ("\\", "ends in the middle"),
        ("\\xg1", "hexadecimal"),
        ("\\u00", "hexadecimal"),
        ("\\x00", "no character"),
        ("\\ud800", "no character"),
        ("a\0", "NUL"),
        ("\ud800", "surrogate"),
        ("a" * 1001, "at most 1000"),
        ("(a{200}b{200}){2}", "more than 600"),
        ("(" * 21 + "a" + ")" * 21, "more than 20"),
        ("(" * 400, "more than 20"),
    ],
)
def test_what_is_not_of_the_subset_is_refused(pattern: str, named: str) -> None:
    with pytest.raises(InvalidFilter, match=named):
        Pattern(pattern).check()


@pytest.mark.parametrize(
    "pattern",
    [
        "x(a+)+y",
        "x(a*)*y",
        "x(a|a)*y",
        "x(a|ab)*y",
        "x(.*,)*y",
        "x(a?){30}a{30}y",
        "x" + "a?" * 30 + "a" * 30,
        "x" + "(a|ab)" * 30 + "y",
        "x((ab*)+b?)+y",
        "x(\\d+,?)*y",
        "x[ab]*a[ab]*b[ab]*y",
        "x\\w*\\d*\\w*y",
        "z(x+x+)+y",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
    ],
)
def test_what_could_take_very_long_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidFilter, match="very long time"):
        Pattern(pattern).check()


@given(pattern=PATTERNS, options=OPTIONS, long=st.sampled_from(["a", "ab", "aA", "a0 ", "a.b", "0", "é"]))
def test_no_pattern_is_slow(pattern: str, options: str, long: str) -> None:
    try:
        made = Pattern(f"{pattern}!", options).made  # which never matches: all ways are tried
    except InvalidFilter:
        assume(False)
    begin = time.perf_counter()
    for length in (1000, 20_000):
        assert not made.found_in((long * length)[:length])
    assert time.perf_counter() - begin < 2


@given(pattern=LIKES, options=st.sampled_from(["", "i"]), texts=st.lists(TEXTS, max_size=6))
def test_like(pattern: str, options: str, texts: list[str]) -> None:
    parts = re.findall(r"\\.|.", pattern, re.S)
    wanted = "".join({"%": ".*", "_": "."}.get(part, re.escape(part[-1])) for part in parts)
    flags = re.S | (re.I if options else 0)
    for text in texts:
        assert like(pattern, options).found_in(text) is (re.fullmatch(wanted, text, flags) is not None)


def test_like_may_have_any_number_of_wildcards() -> None:
    text = "ab" * 500
    assert like("%" + "a%b%" * 100, "").found_in(text)
    assert not like("%" + "a%b%" * 100 + "c", "i").found_in(text)
