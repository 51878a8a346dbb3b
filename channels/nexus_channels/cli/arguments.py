"""From the words of a command line to the arguments of an operation.

Here they are only split and looked up: whether they are right is for the operation's own validator
to say, so that a mistake has the same code as on every other channel.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nexus.arguments import UNREADABLE, Given, pointer
from nexus.demands import Demands
from nexus.errors import InvalidArguments, InvalidInput, Malformed, Problem, TooLarge
from nexus_channels.cli.options import (
    BACKGROUND,
    DEMANDS,
    DRY_RUN,
    FLAGS,
    ID,
    IDEMPOTENCY_KEY,
    MAX_AFFECTED,
    Options,
    closest,
)

_NUMBER = re.compile(r"-[\d.].*")


@dataclass
class Words:
    """A command line, taken apart. `texts` are arguments by name, not yet understood."""

    texts: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    size: int = 0


def split(words: Sequence[str], options: Options) -> Words:
    """Raises InvalidInput for what is given twice or is no text; other mistakes are kept for `gather`."""
    try:
        found = Words(size=sum(len(word.encode()) for word in words))
    except UnicodeEncodeError as failure:
        raise Malformed("The arguments are not UTF-8.") from failure
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            while rest:
                _positional(found, options, rest.popleft())
        elif not word.startswith("-") or word == "-" or _NUMBER.fullmatch(word):
            _positional(found, options, word)
        else:
            _option(found, options, word, rest)
    return found


def _positional(found: Words, options: Options, word: str) -> None:
    if options.takes_id and ID not in found.texts:
        found.texts[ID] = word
    else:
        detail = f"unknown argument '{_short(word)}'. Arguments are given as --name value."
        found.problems.append(Problem(InvalidArguments.UNKNOWN, "", detail))


def _option(found: Words, options: Options, word: str, rest: deque[str]) -> None:
    value: str | None
    head, assigned, value = word.partition("=")
    own = options.own.get(head)
    if own is not None:
        if own in FLAGS:
            found.own[own] = ""
        else:
            value = value if assigned else _next(found, options, head, own, rest)
            _give(found.own, own, head, value)
        return
    name = head.lstrip("-")
    meant = options.find(name) if head.startswith("--") else None
    if meant is None:
        if not assigned and rest and not _is_option(rest[0], options):
            value = rest.popleft()
        _give(found.texts, name if head.startswith("--") else head, head, value)
    elif meant.says is None:
        value = value if assigned else _next(found, options, head, meant.field, rest)
        _give(found.texts, meant.field, head, value)
    else:
        _give(found.texts, meant.field, head, value if assigned else meant.says)


def _next(found: Words, options: Options, head: str, name: str, rest: deque[str]) -> str | None:
    if rest and not _is_option(rest[0], options):
        return rest.popleft()
    detail = f"missing value of argument '{head}'"
    found.problems.append(Problem(InvalidArguments.MISSING, pointer(name), detail))
    return None


def _is_option(word: str, options: Options) -> bool:
    return word.startswith("--") or word in options.own


def _give(texts: dict[str, str], name: str, head: str, value: str | None) -> None:
    if value is None:
        return
    if name in texts:
        raise _twice(head)
    texts[name] = value


def demanded(words: Words, operation: str) -> Demands | None:
    """What is asked for beside the arguments. Raises InvalidInput."""
    if BACKGROUND in words.own:
        raise InvalidInput(
            "A command's process ends with it, and what runs in its background would end, too.",
            remedy="Wait for it, or start it on a server: POST …/execute with 'Prefer: respond-async'.",
        )
    asked = {name: words.own[name] for name in DEMANDS if name in words.own}
    if IDEMPOTENCY_KEY in words.own:
        asked["key"] = words.own[IDEMPOTENCY_KEY]
    if not asked:
        return None
    asked |= {DRY_RUN: "true"} if DRY_RUN in asked else {}
    try:
        return msgspec.convert(asked, Demands, strict=False)
    except msgspec.ValidationError:
        detail = f"'--max-affected': '{_short(asked[MAX_AFFECTED])}' is no number of records"
        raise InvalidArguments(operation, [Problem(InvalidArguments.TYPE, "", detail)]) from None


def gather(words: Words, options: Options, limit: int) -> Given:
    """What the runtime is to be given. Of several mistakes all are named, in the order in which
    the validator names them.

    Raises InvalidArguments, InvalidInput, Malformed, and TooLarge beyond `limit` bytes."""
    if words.size > limit:
        raise too_large(limit)
    document = read_json(words.own["json"], limit) if "json" in words.own else None
    values, mistyped = _understood(words.texts, options)
    if document is not None:
        given = _merged(document, values, words.texts, options)
    else:
        given = values
    if words.problems or mistyped:
        raise _all_problems(given, words, mistyped, options)
    return given


def _understood(texts: dict[str, str], options: Options) -> tuple[dict[str, object], list[Problem]]:
    values: dict[str, object] = {}
    mistyped: list[Problem] = []
    for name, text in texts.items():
        if name not in options.fields:
            values[name] = text  # the validator will name it
            continue
        try:
            values[name] = options.operation.arguments.from_text(name, text)
        except InvalidArguments as failure:
            mistyped += failure.problems
    return values, mistyped


def _merged(document: bytes, values: dict[str, object], texts: dict[str, str], options: Options) -> Given:
    if not texts:
        return document
    try:
        members = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    except (msgspec.ValidationError, *UNREADABLE):
        return document  # no object: the validator says so
    for name in texts:
        if name in members:
            raise _twice(options.spelling(name))
    # As bytes again, since a number or a date means what it does in JSON only while it is JSON.
    members |= {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}
    return msgspec.json.encode(members)


def _all_problems(given: Given, words: Words, mistyped: list[Problem], options: Options) -> InvalidArguments:
    known = {problem.pointer for problem in (*words.problems, *mistyped)}
    found = [*words.problems, *mistyped]
    try:
        options.operation.arguments.accept(given)
    except InvalidArguments as failure:
        found += [problem for problem in failure.problems if problem.pointer not in known]
    order = (InvalidArguments.UNKNOWN, InvalidArguments.MISSING, InvalidArguments.TYPE)
    found.sort(key=lambda problem: order.index(problem.code))
    return InvalidArguments(options.operation.name, found)


def as_typed(failure: InvalidArguments, options: Options) -> InvalidArguments:
    """The same error in the spelling of this channel: `--name` instead of `name`."""
    if not failure.detail.startswith(options.operation.name + ": "):
        return failure  # of an operation inside, whose arguments nobody typed here
    problems = [_problem_as_typed(problem, options) for problem in failure.problems]
    return InvalidArguments(options.operation.name, problems, remedy=failure.remedy)


def _problem_as_typed(problem: Problem, options: Options) -> Problem:
    name = problem.pointer[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")
    if name in options.fields:
        detail = problem.detail.replace(f"'{name}'", f"'{options.spelling(name)}'", 1)
    elif name and problem.code == InvalidArguments.UNKNOWN:
        word = name if name.startswith("-") else f"--{name}"
        meant = word.removeprefix("--").replace("-", "_")
        if meant in options.operation.arguments.refused:
            detail = options.operation.arguments.refusal(meant).replace(f"'{meant}'", f"'{_short(word)}'", 1)
            return Problem(problem.code, problem.pointer, detail)
        known = [options.spelling(known) for known in options.fields]
        detail = f"unknown argument '{_short(word)}'. {closest(word, known)}".rstrip()
    else:
        detail = problem.detail
    return Problem(problem.code, problem.pointer, detail)


def read_json(source: str, limit: int) -> bytes:
    """The bytes that `TEXT`, `@FILE` or `-` means.

    Raises TooLarge, and InvalidInput for a file that cannot be read."""
    if source == "-":
        document = sys.stdin.buffer.read(limit + 1)
    elif source.startswith("@"):
        try:
            with Path(source[1:]).open("rb") as file:
                document = file.read(limit + 1)
        except OSError as failure:
            raise InvalidInput(f"'{source[1:]}' cannot be read: {failure.strerror}.") from failure
    else:
        document = source.encode()
    if len(document) > limit:
        raise too_large(limit)
    return document


def too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The arguments are larger than {limit} bytes.", remedy="NEXUS_BODY_LIMIT sets another limit."
    )


def _twice(word: str) -> InvalidInput:
    return InvalidInput(f"'{word}' is given twice.", remedy="Give it once.")


def _short(word: str) -> str:
    return word if len(word) <= 60 else word[:60] + "…"
