"""What a client would like (RFC 7240): the header Prefer, and Preference-Applied.

return=minimal           no body, where something was written; return=representation is the usual
respond-async            do not wait for the run of a workflow
tx=rollback              do everything, answer, and keep nothing; tx=commit is the usual
max-affected=N           refuse to write more than N records
handling=strict          400 for a preference that is unknown or does not apply, instead of leaving it aside

`tx` and `max-affected` are more than wishes: who sends them relies on them. So they are never left aside, and
400 where they cannot be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import Scope

from nexus.errors import InvalidInput
from nexus_channels.asgi import Reply

ASYNC = "respond-async"

_SCOPE = "nexus.preferences"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'({_TOKEN})(?:\s*=\s*({_TOKEN}|"(?:[^"\\]|\\.)*"))?'
_PREFERENCE = re.compile(rf"\s*{_PAIR}\s*((?:;\s*(?:{_PAIR}\s*)?)*)")
_ELEMENTS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_GUARDS = re.compile(r"\b(tx|max-affected)\b", re.I)
_VALUES = {"return": ("minimal", "representation"), "tx": ("rollback", "commit")}
_MOST = 2**63 - 1


class Preferences:
    """Those of one request, and which of them were applied."""

    __slots__ = ("_applied", "_given", "_left")

    def __init__(self, lines: Iterable[str]) -> None:
        """Raises InvalidInput for `tx` and `max-affected` that cannot be understood, and with handling=strict
        for whatever is malformed or unknown."""
        self._given: dict[str, str] = {}
        self._applied: list[str] = []
        self._left: list[str] = []
        for line in lines:
            for element in _ELEMENTS.findall(line):
                self._read(element)
        if self.strict:
            self._applied.append("handling=strict")
            self.check()

    @property
    def strict(self) -> bool:
        return self._given.get("handling") == "strict"

    @property
    def background(self) -> bool:
        return ASYNC in self._given

    @property
    def dry_run(self) -> bool:
        return self._given.get("tx") == "rollback"

    @property
    def max_affected(self) -> int | None:
        most = self._given.get("max-affected")
        return None if most is None else int(most)

    def check(self, *others: str) -> None:
        """Raises InvalidInput when handling is strict, and something is left aside: also `others`, where they
        were asked for."""
        left = [*self._left, *(name for name in others if name in self._given)]
        if self.strict and left:
            raise InvalidInput(
                f"The preference '{left[0][:80]}' cannot be honoured here.",
                remedy="Leave it out, or leave out handling=strict.",
            )

    def applied(self, name: str) -> None:
        """What was asked for under this name, if it was, is done."""
        if name in self._given:
            value = self._given[name]
            self._applied.append(f"{name}={value}" if value else name)

    def answer(self, reply: Reply, *, wrote: bool) -> Reply:
        """The reply as it was preferred, and what of that was done."""
        status, body, headers = reply
        if status == 202:
            self.applied(ASYNC)
        if wrote and status in (200, 201):
            if self._given.get("return") == "minimal":
                status, body = 204 if status == 200 else status, b""
                headers = [header for header in headers if header[0] != b"content-type"]
            self.applied("return")
        if self._applied and status < 400:
            named = ", ".join(dict.fromkeys(self._applied)).encode()
            headers += [(b"preference-applied", named), (b"vary", b"prefer")]
        return status, body, headers

    def _read(self, element: str) -> None:
        found = _PREFERENCE.fullmatch(element)
        if found is None or (found[3] and _GUARDS.search(found[3])):
            if _GUARDS.search(element):
                raise _not_understood(element)
            if element.strip():
                self._left.append(element.strip())
            return
        name, value = found[1].lower(), _unquoted(found[2] or "")
        if name == "max-affected":
            if not value.isdecimal() or not value.isascii() or int(value[:20]) > _MOST:
                raise _not_understood(element)
        elif name == "tx":
            if value not in _VALUES["tx"]:
                raise _not_understood(element)
        elif not (
            (name == ASYNC and not value)
            or (name == "handling" and value in ("strict", "lenient"))
            or value in _VALUES.get(name, ())
        ):
            self._left.append(element.strip())
            return
        if self._given.setdefault(name, value) != value and _GUARDS.fullmatch(name):
            raise InvalidInput(f"Prefer says two different things of '{name}'.", remedy="Say one.")


def preferences_of(scope: Scope, lines: Iterable[str]) -> Preferences:
    """Those of a request, read once."""
    known: Preferences | None = scope.get(_SCOPE)
    if known is None:
        known = scope[_SCOPE] = Preferences(lines)
    return known


def as_preferred(scope: Scope, reply: Reply) -> Reply:
    """The reply to a request whose operation may have been asked for preferences."""
    known: Preferences | None = scope.get(_SCOPE)
    if known is None:
        return reply
    return known.answer(reply, wrote=scope["method"] not in ("GET", "HEAD"))


def _not_understood(element: str) -> InvalidInput:
    return InvalidInput(
        f"Prefer: '{element.strip()[:80]}' cannot be understood.",
        remedy="Say tx=rollback, tx=commit or max-affected=N, each apart from the others by a comma.",
    )


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value
