"""The retry budget: a floor that is always allowed, then a share of what is under way."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.budget import may_retry


@pytest.mark.parametrize(
    ("retries", "requests", "floor", "share", "allowed"),
    [
        (0, 1, 3, 0.2, True),
        (2, 1, 3, 0.2, True),
        (3, 1, 3, 0.2, False),
        (3, 15, 3, 0.2, False),
        (3, 16, 3, 0.2, True),
        (19, 100, 3, 0.2, True),
        (20, 100, 3, 0.2, False),
        (0, 0, 0, 0.2, False),
        (0, 1, 0, 0.2, True),
        (5, 100, 0, 0.0, False),
    ],
)
def test_a_retry_fits_below_the_floor_or_within_the_share(
    retries: int, requests: int, floor: int, share: float, allowed: bool
) -> None:
    assert may_retry(retries, requests, floor, share) is allowed


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 50), st.floats(0, 1))
def test_one_retry_fewer_never_forbids_what_was_allowed(
    retries: int, requests: int, floor: int, share: float
) -> None:
    if may_retry(retries + 1, requests, floor, share):
        assert may_retry(retries, requests, floor, share)
