"""A quantile of what was lately, within 5 %, whatever the distribution."""

import random

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.quantile import BUCKETS, ENOUGH, FRESH, LEAST, STEP, WINDOW, Recent


def told(values: list[float], now: float = 1.0) -> Recent:
    recent = Recent()
    for value in values:
        recent.observe(value, now)
    return recent


@given(
    st.lists(st.floats(2e-4, 90), min_size=ENOUGH, max_size=300),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_it_is_at_most_a_twentieth_too_high_and_never_too_low(
    values: list[float], share: float
) -> None:
    found = told(values).read(share, 1.0)
    assert found is not None
    below = sum(value <= found * (1 + 1e-9) for value in values)
    assert below >= len(values) * share * (1 - 1e-9)
    under = sum(value <= found / STEP * (1 - 1e-9) for value in values)
    assert under < len(values) * share


def test_the_tail_of_a_usual_distribution_is_found() -> None:
    chance = random.Random(1)  # noqa: S311 - seeded, so that a run can be repeated
    values = [chance.lognormvariate(-4, 0.5) for _ in range(5000)]
    for share in (0.5, 0.95, 0.99):
        exact = sorted(values)[int(5000 * share)]
        assert told(values).read(share, 1.0) == pytest.approx(exact, rel=0.06)


def test_a_few_mean_nothing() -> None:
    assert told([0.1] * (ENOUGH - 1)).read(0.5, 1.0) is None
    assert told([0.1] * ENOUGH).read(0.5, 1.0) is not None


def test_the_quickest_and_the_slowest_have_a_bucket_each() -> None:
    assert told([0.0] * ENOUGH).read(0.5, 1.0) == LEAST
    assert told([1e9] * ENOUGH).read(1.0, 1.0) == pytest.approx(LEAST * STEP ** (BUCKETS - 1))
    assert told([1e9] * ENOUGH).read(1.0 + 1e-9, 1.0) is not None


def test_what_is_older_than_two_windows_is_forgotten() -> None:
    recent = told([0.1] * ENOUGH, now=0.0)
    recent.observe(5.0, WINDOW)
    assert recent.read(0.5, WINDOW) == pytest.approx(0.1, rel=0.06)
    assert recent.read(0.5, 2 * WINDOW) is None  # only one is left
    again = told([0.1] * ENOUGH, now=0.0)
    assert again.read(0.5, 5 * WINDOW) is None


def test_it_is_worked_out_anew_from_time_to_time_only() -> None:
    recent = told([0.1] * ENOUGH)
    before = recent.read(0.9, 1.0)
    for _ in range(ENOUGH):
        recent.observe(1.0, 1.0)
    assert recent.read(0.9, 1.0 + FRESH / 2) == before
    assert recent.read(0.9, 1.0 + FRESH) == pytest.approx(1.0, rel=0.06)
