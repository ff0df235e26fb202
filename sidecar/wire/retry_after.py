"""How long a response asks us to stay away: `Retry-After` in both its forms, or `RateLimit-Reset`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.wire.fields import Fields

_SECONDS: Final = re.compile(rb"[0-9]{1,9}")  # ten digits are more than a lifetime
_CLOCK: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH: Final = rb"(?P<month>[A-Z][a-z]{2})"
# RFC 9110 §5.6.7: of the three forms the first is to be sent, all are to be understood.
_DATES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rb"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) "
        + _MONTH
        + rb" (?P<year>[0-9]{4}) "
        + _CLOCK
        + rb" GMT",
        rb"[A-Z][a-z]+, (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _CLOCK + rb" GMT",
        rb"[A-Z][a-z]{2} " + _MONTH + rb" (?P<day>[ 0-9][0-9]) " + _CLOCK + rb" (?P<year>[0-9]{4})",
    )
)
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DAY: Final = 86400
_EPOCH: Final = 719468  # days from 0000-03-01 to 1970-01-01


def wait_asked(fields: Fields, wall: float) -> float | None:
    """Return the seconds that a response asks for; None: it asks for nothing.

    `wall` is seconds of the epoch, for a date.  What is malformed asks for nothing.
    """
    text = fields.get(b"retry-after")
    if text is not None:
        if _SECONDS.fullmatch(text):
            return float(text)
        moment = parse_date(text, wall)
        return None if moment is None else max(0.0, moment - wall)
    # draft-ietf-httpapi-ratelimit-headers-03: seconds; it may be there while there is room, too.
    text = fields.get(b"ratelimit-reset")
    if text is None or fields.get(b"ratelimit-remaining") not in (None, b"0"):
        return None
    return float(text) if _SECONDS.fullmatch(text) else None


def parse_date(text: bytes, wall: float) -> float | None:
    """Return the seconds of the epoch that an HTTP-date means; None for what is none.

    A year of two digits is the one that is at most 50 years after `wall` (RFC 9110 §5.6.7).
    """
    for pattern in _DATES:
        found = pattern.fullmatch(text)
        if found is not None and found["month"] in _MONTHS:
            break
    else:
        return None
    year, month = int(found["year"]), _MONTHS.index(found["month"]) + 1
    if len(found["year"]) == 2:
        this = 1970 + int(wall / (365.2425 * _DAY))
        year += this - this % 100
        if year > this + 50:
            year -= 100
    days = _days(year, month, int(found["day"]))
    hours, minutes, seconds = (int(found[part]) for part in ("hour", "minute", "second"))
    return float(days * _DAY + hours * 3600 + minutes * 60 + seconds)


def _days(year: int, month: int, day: int) -> int:
    """Return the days since the epoch; years begin in March here, so that a leap day is the last."""
    if month <= 2:
        year -= 1
    since_march = (month - 3) % 12
    return (
        365 * year
        + year // 4
        - year // 100
        + year // 400
        + (153 * since_march + 2) // 5
        + day
        - 1
        - _EPOCH
    )
