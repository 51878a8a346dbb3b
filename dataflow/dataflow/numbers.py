"""The decimal numbers that every database can hold exactly: 26 digits before the point and 12 after it.

DECIMAL(38, 12) is within the exact type of every server, and as a text of fixed width where a database has
none. One domain for all means that a number which is accepted once is accepted, equal, sorted and summed
alike everywhere; what does not fit is refused instead of being rounded.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation

DIGITS = 38
SCALE = 12
WHOLE = DIGITS - SCALE

_WIDE = Context(prec=4 * DIGITS, rounding=ROUND_HALF_UP)
_STEP = Decimal(1).scaleb(-SCALE)


def exact(value: Decimal) -> Decimal:
    """The same number in its one form, without trailing zeros. Raises ValueError saying why it does not
    fit."""
    if not value.is_finite():
        raise ValueError("a number must be finite")
    if not value:
        return Decimal(0)
    if value.adjusted() >= WHOLE:
        raise ValueError(f"a decimal has at most {WHOLE} digits before the point")
    if value.adjusted() < -SCALE:
        raise ValueError(f"a decimal has at most {SCALE} digits after the point")
    shortest = value.normalize(Context(prec=len(value.as_tuple().digits)))
    exponent = shortest.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent < -SCALE:
        raise ValueError(f"a decimal has at most {SCALE} digits after the point")
    return shortest if exponent <= 0 else shortest.quantize(Decimal(1), context=_WIDE)


def rounded(value: Decimal) -> Decimal:
    """The nearest number that fits, half away from zero, as servers round. Raises ValueError beyond the
    largest."""
    try:
        return exact(value.quantize(_STEP, context=_WIDE))
    except InvalidOperation as failure:
        raise ValueError(f"a decimal has at most {WHOLE} digits before the point") from failure


def multiplied(one: Decimal, other: Decimal) -> Decimal:
    """Raises ValueError beyond the largest."""
    return rounded(_WIDE.multiply(one, other))
