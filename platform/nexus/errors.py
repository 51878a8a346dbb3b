"""Every failure a caller can meet, on every channel, is one of these.

NexusError                    NX-500   the root; a failure whose cause is ours
├── InvalidInput              NX-400   what was sent cannot be accepted
│   ├── Malformed             NX-400   not JSON, not UTF-8, nested without end
│   ├── TooLarge              NX-413   over the limit for one request
│   ├── UnsupportedMedia      NX-415   a body that is not declared as JSON
│   │   └── UnsupportedEncoding  NX-415  a body that is compressed
│   ├── HeadersTooLarge       NX-431   more header fields than a server reads
│   ├── SlowRequest           NX-408   a request that did not come to its end in time
│   ├── NotAcceptable         NX-406   an answer in a form that there is not
│   ├── InvalidArguments      DF-101 missing, DF-102 wrong type, DF-106 unknown argument
│   ├── InvalidFilter         DF-107   a filter, a sort order or a field list that cannot be meant
│   ├── InvalidCursor         NX-410   a cursor that this server did not write
│   ├── CursorExpired         NX-411   a cursor from which nothing can be resumed any more
│   ├── KeyReused             NX-422   an idempotency key that came again with another input
│   ├── ConfirmationRequired  NX-428   a deletion or change of many records that nobody confirmed
│   └── PreconditionRequired  NX-427   a change that must say which state of the record it is meant for
├── UnknownOperation          DF-701   no operation, node or workflow of that name
├── UnknownTopic              NX-404   nothing to subscribe to under that name
├── Misdirected               NX-421   a host that this server does not answer to
├── MethodNotAllowed          NX-405   the address exists, the verb does not apply
├── NotFound                  DF-404   no such record
├── Unauthenticated           NX-401   a credential is required or was not recognised
├── Forbidden                 NX-403   the session may not do this
├── TooManyAffected           NX-424   more records would be written than was allowed
├── Conflict                  NX-409   the database refuses: unique, foreign key, version
├── KeyInFlight               NX-423   an idempotency key whose first request has not ended yet
├── PreconditionFailed        NX-412   the record is in another state than the one that `if_match` says
├── RunCancelled              NX-499   somebody cancelled the run of the workflow
├── TimedOut                  NX-504   also an asyncio.TimeoutError
├── Unavailable               NX-503   a resource is busy or gone; trying again may help
│   ├── Retryable             NX-505   the database gave up in favour of another transaction; nothing was kept
│   └── CircuitOpen           NX-506   not tried, since it has failed too often (`resilience.py`)
├── SlowConsumer              NX-429   a subscriber that does not keep up
├── RateLimited               NX-430   more than a session may ask in this time
├── WriteInRead               NX-501   an operation declared as reading tries to write
├── RegistrationError         DF-801   a model, workflow or operation that cannot be registered
├── SchemaMismatch            DF-301   a table that is not, and cannot be made, what a model says
└── ConfigurationError        NX-510   a setting that cannot be honoured
    └── DatabaseUrlError      DF-401   a database URL that cannot be used

`code` is the same on every channel. `status` is for HTTP, `exit_code` for the shell; each channel only
chooses the form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the arguments; `pointer` is a JSON Pointer into them."""

    code: str
    pointer: str
    detail: str


class NexusError(Exception):
    """The root of the tree. `detail` names the offending thing, `remedy` says what to do about it."""

    code = "NX-500"
    title = "Internal error"
    status = 500
    exit_code = 1

    def __init__(self, detail: str, *, remedy: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.problems = problems
        self.node = ""  # in a workflow: where it happened

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}".rstrip()

    def describe(self) -> dict[str, object]:
        """What every channel sends, in its own envelope."""
        described: dict[str, object] = {
            "code": self.code,
            "title": self.title,
            "detail": self.detail,
        }
        if self.remedy:
            described["remedy"] = self.remedy
        if self.node:
            described["node"] = self.node
        if self.problems:
            described["errors"] = [
                {"pointer": p.pointer, "detail": p.detail, "code": p.code} for p in self.problems
            ]
        return described


class InvalidInput(NexusError):
    code = "NX-400"
    title = "Invalid input"
    status = 400
    exit_code = 2


class Malformed(InvalidInput):
    title = "Malformed input"


class TooLarge(InvalidInput):
    code = "NX-413"
    title = "Too large"
    status = 413


class UnsupportedMedia(InvalidInput):
    code = "NX-415"
    title = "Unsupported media type"
    status = 415


class UnsupportedEncoding(UnsupportedMedia):
    """Told from what is of another media type by the `Accept-Encoding` of the answer (RFC 7694)."""


class HeadersTooLarge(InvalidInput):
    code = "NX-431"
    title = "Header fields too large"
    status = 431


class SlowRequest(InvalidInput):
    code = "NX-408"
    title = "Request timeout"
    status = 408


class NotAcceptable(InvalidInput):
    code = "NX-406"
    title = "Not acceptable"
    status = 406


class InvalidArguments(InvalidInput):
    """`code` is that of the first problem: DF-101 missing, DF-102 wrong type, DF-106 unknown."""

    title = "Invalid arguments"
    status = 422

    MISSING = "DF-101"
    TYPE = "DF-102"
    UNKNOWN = "DF-106"

    def __init__(self, operation: str, problems: Iterable[Problem], *, remedy: str = "") -> None:
        found = tuple(problems)
        detail = f"{operation}: " + "; ".join(p.detail for p in found)
        super().__init__(detail, remedy=remedy, problems=found)
        self.code = found[0].code


class InvalidFilter(InvalidInput):
    code = "DF-107"
    title = "Invalid filter"
    status = 422


class KeyReused(InvalidInput):
    code = "NX-422"
    title = "Idempotency key reused"
    status = 422

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key '{key[:80]}' was used for another input.",
            remedy="Use a key for one input only.",
        )


class InvalidCursor(InvalidInput):
    code = "NX-410"
    title = "Invalid cursor"


class CursorExpired(InvalidInput):
    """A cursor from which nothing can be resumed any more: take a new snapshot."""

    code = "NX-411"
    title = "Cursor expired"
    status = 410


class ConfirmationRequired(InvalidInput):
    """What would be done to how many records, before it is done."""

    code = "NX-428"
    title = "Confirmation required"
    status = 428


class PreconditionRequired(InvalidInput):
    code = "NX-427"
    title = "Precondition required"
    status = 428


class UnknownOperation(NexusError):
    code = "DF-701"
    title = "Unknown operation"
    status = 404
    exit_code = 2


class UnknownTopic(NexusError):
    code = "NX-404"
    title = "Unknown topic"
    status = 404
    exit_code = 2


class MethodNotAllowed(NexusError):
    code = "NX-405"
    title = "Method not allowed"
    status = 405
    exit_code = 2

    def __init__(self, detail: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        super().__init__(detail, remedy=f"Allowed here: {', '.join(self.allowed)}.")


class Misdirected(NexusError):
    code = "NX-421"
    title = "Misdirected request"
    status = 421
    exit_code = 2


class NotFound(NexusError):
    code = "DF-404"
    title = "Not found"
    status = 404
    exit_code = 3


class Unauthenticated(NexusError):
    code = "NX-401"
    title = "Not authenticated"
    status = 401
    exit_code = 5


class Forbidden(NexusError):
    code = "NX-403"
    title = "Forbidden"
    status = 403
    exit_code = 5


class Conflict(NexusError):
    code = "NX-409"
    title = "Conflict"
    status = 409
    exit_code = 4


class TooManyAffected(NexusError):
    """How many records would be written, or at least were until then; all of it is undone."""

    code = "NX-424"
    title = "Too many affected"
    status = 409
    exit_code = 4


class KeyInFlight(NexusError):
    code = "NX-423"
    title = "Still going on"
    status = 409
    exit_code = 6

    def __init__(self, remedy: str = "Repeat it in a moment: the answer will be that of the first.") -> None:
        super().__init__("The first request with this idempotency key has not ended yet.", remedy=remedy)


class PreconditionFailed(NexusError):
    """`etag` is the tag that the record has now, where it has one."""

    code = "NX-412"
    title = "Precondition failed"
    status = 412
    exit_code = 4

    def __init__(self, detail: str, *, remedy: str = "", etag: str | None = None) -> None:
        super().__init__(detail, remedy=remedy)
        self.etag = etag

    def describe(self) -> dict[str, object]:
        described = super().describe()
        return described if self.etag is None else {**described, "etag": self.etag}


class RunCancelled(NexusError):
    """The run was cancelled, by somebody or because its client or its server ended."""

    code = "NX-499"
    title = "Cancelled"
    status = 409
    exit_code = 6


class TimedOut(NexusError, TimeoutError):  # which asyncio.TimeoutError is another name of
    code = "NX-504"
    title = "Timed out"
    status = 504
    exit_code = 6


class Unavailable(NexusError):
    code = "NX-503"
    title = "Unavailable"
    status = 503
    exit_code = 6


class Retryable(Unavailable):
    """A deadlock or a serialization failure: the database has undone the whole transaction in favour of
    another one. Run again from the beginning, it will probably succeed."""

    code = "NX-505"
    title = "Try again"


class SlowConsumer(NexusError):
    code = "NX-429"
    title = "Slow consumer"
    status = 429
    exit_code = 6


class RateLimited(NexusError):
    """Nothing was done; in `seconds` one more may be asked for."""

    code = "NX-430"
    title = "Too many requests"
    status = 429
    exit_code = 6

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            "More was asked for than this server allows in this time.",
            remedy=f"Try again in {math.ceil(seconds)} s.",
        )


class WriteInRead(NexusError):
    code = "NX-501"
    title = "A reading operation tried to write"


class RegistrationError(NexusError):
    code = "DF-801"
    title = "Cannot be registered"
    exit_code = 2


class SchemaMismatch(NexusError):
    code = "DF-301"
    title = "Schema mismatch"
    exit_code = 2


class ConfigurationError(NexusError):
    code = "NX-510"
    title = "Configuration error"
    exit_code = 2


class DatabaseUrlError(ConfigurationError):
    code = "DF-401"
    title = "Database URL error"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, if any is near."""
    import difflib  # for a message only

    names = list(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if found:
        return found[0]
    folded = {candidate.casefold(): candidate for candidate in names}
    return folded.get(name.casefold())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt name: the nearest known one, else all of them when they are few."""
    names = sorted(known)
    near = nearest(name, names)
    if near is not None:
        return f"Did you mean '{near}'?"
    if 0 < len(names) <= 12:
        return f"Known: {', '.join(names)}."
    return ""
