"""What schemathesis does before each request: it knows no header whose values may be used only once."""

import itertools

import schemathesis

KEY = "Idempotency-Key"
_LONGEST = 255
_numbers = itertools.count()


@schemathesis.hook
def before_call(ctx, case, kwargs):  # type: ignore[no-untyped-def]
    """Make of every key another that was not used before: else two requests that have nothing to do with each
    other are refused, rightly, as one key with two bodies."""
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and key:
        case.headers[KEY] = f"{key}-{next(_numbers)}" if len(key) < _LONGEST - 10 else key
