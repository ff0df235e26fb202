"""How long a response asks us to stay away, in every form in which it may say so."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st

from sidecar.wire.fields import Fields
from sidecar.wire.retry_after import parse_date, wait_asked

WALL = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC).timestamp()
DATES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59))


def fields(*lines: str) -> Fields:
    return Fields("".join(f"{line}\r\n" for line in lines).encode(), {})


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ((), None),
        (("Retry-After: 0",), 0.0),
        (("Retry-After: 120",), 120.0),
        (("Retry-After: Mon, 30 Nov 2026 12:00:07 GMT",), 7.0),
        (("Retry-After: Monday, 30-Nov-26 12:00:07 GMT",), 7.0),
        (("Retry-After: Mon Nov 30 12:00:07 2026",), 7.0),
        (("Retry-After: Tue Dec  1 12:00:00 2026",), 86400.0),
        (("Retry-After: Mon, 30 Nov 2020 12:00:07 GMT",), 0.0),  # long ago
        (("Retry-After: Monday, 30-Nov-94 12:00:07 GMT",), 0.0),  # of 1994
        (("Retry-After: soon", "RateLimit-Reset: 3"), None),
        (("Retry-After: -1",), None),
        (("Retry-After: 1.5",), None),
        (("Retry-After: 9999999999",), None),
        (("Retry-After: 1", "Retry-After: 2"), None),  # which one?
        (("Retry-After: Mon, 30 Nox 2026 12:00:07 GMT",), None),
        (("RateLimit-Reset: 3",), 3.0),
        (("RateLimit-Reset: 3", "RateLimit-Remaining: 0"), 3.0),
        (("RateLimit-Reset: 3", "RateLimit-Remaining: 7"), None),  # there is room
        (("RateLimit-Reset: x",), None),
        (("Retry-After: 1", "RateLimit-Reset: 3"), 1.0),
    ],
)
def test_a_response_asks_for_so_many_seconds(lines: tuple[str, ...], seconds: float | None) -> None:
    assert wait_asked(fields(*lines), WALL) == seconds


@given(DATES)
def test_every_date_is_read_as_it_was_written(date: datetime) -> None:
    date = date.replace(microsecond=0, tzinfo=UTC)
    text = format_datetime(date, usegmt=True).encode()
    assert parse_date(text, WALL) == date.timestamp()


@given(st.integers(1977, 2075), st.integers(1, 12), st.integers(1, 28))
def test_a_year_of_two_digits_is_the_nearest(year: int, month: int, day: int) -> None:
    date = datetime(year, month, day, 1, 2, 3, tzinfo=UTC)
    text = date.strftime("%A, %d-%b-%y %H:%M:%S GMT").encode()
    assert parse_date(text, WALL) == date.timestamp()
