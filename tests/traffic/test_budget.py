"""The retry budget: a floor that is always allowed, then a share of what is under way."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.budget import FREE, WINDOW, Ledger, may_retry


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


def retried(ledger: Ledger, now: float, attempts: int, most: int = 10**6) -> int:
    """Retry as often as is allowed; return how often that was."""
    for count in range(most):
        if not ledger.allows(now, attempts + count, 0.2):
            return count
        ledger.retried(now, attempts + count)
    return most


def test_a_few_are_free_and_then_they_are_a_share_of_the_requests_since() -> None:
    ledger = Ledger()
    assert retried(ledger, 0.0, 5000) == FREE  # what was before it was first asked is not known
    assert retried(ledger, 0.5, 5000 + FREE) == 0
    assert retried(ledger, 1.5, 5000 + FREE + 100) == 20
    assert retried(ledger, 2.5, 5000 + FREE + 120 + 100) == 20


def test_what_is_older_than_the_window_is_forgotten() -> None:
    ledger = Ledger()
    retried(ledger, 0.0, 0)
    assert retried(ledger, WINDOW - 0.1, FREE + 1000) == 200
    # The requests are, and the retries that they paid for not yet: that errs on the safe side.
    assert retried(ledger, WINDOW + 0.1, FREE + 1200) == 0
    assert retried(ledger, 2 * WINDOW, 10**6) == FREE


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 200)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.1, 0.2, 0.5]),
)
def test_retries_never_exceed_their_share_of_any_window(
    steps: list[tuple[float, int]], share: float
) -> None:
    ledger, now, attempts = Ledger(), 0.0, 0
    log: list[tuple[float, int, int]] = []
    for gap, requests in steps:
        now += gap
        attempts += requests
        count = 0
        while ledger.allows(now, attempts, share):
            ledger.retried(now, attempts)
            attempts += 1
            count += 1
        log.append((now, requests, count))
    for end, _, _ in log:
        window = [entry for entry in log if end - WINDOW + 2 < entry[0] <= end]
        before = [entry for entry in log if end - WINDOW - 2 < entry[0] <= end]
        retries = sum(count for _, _, count in window)
        assert retries <= FREE + 1 + share * sum(requests for _, requests, _ in before)


def test_a_fleet_that_loses_all_gets_no_more_than_a_fifth_on_top() -> None:
    ledger, attempts, requests, retries = Ledger(), 0, 0, 0
    for step in range(3000):
        now = step / 100
        attempts += 1
        requests += 1
        if now >= 10 and ledger.allows(now, attempts, 0.2):  # from then on all fail
            ledger.retried(now, attempts)
            attempts += 1
            retries += 1
    assert retries <= 0.2 * requests
    assert retries >= 0.15 * 2000
