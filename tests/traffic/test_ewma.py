"""The average rises at once, falls slowly, and forgets."""

from math import exp

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.ewma import PeakEwma

TIMES = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 60)), max_size=20)


@pytest.mark.parametrize(
    ("observed", "after", "value"),
    [
        ([], 0.0, 0.01),
        ([], 99.0, 0.01),  # nothing is known, and nothing forgotten
        ([(0.001, 5.0)], 5.0, 0.001),
        ([(0.5, 0.0)], 0.0, 0.5),  # above: at once
        ([(0.5, 0.0), (0.1, 10.0)], 10.0, 0.1 + 0.4 * exp(-1)),  # below: by what time has passed
        ([(0.5, 0.0), (0.1, 0.0)], 0.0, 0.5),
        ([(0.5, 0.0)], 10.0, 0.5 * exp(-1)),
        ([(0.5, 5.0), (0.1, 3.0)], 3.0, 0.5),  # a clock that stood still or worse changes nothing
    ],
)
def test_it_rises_at_once_and_falls_with_time(
    observed: list[tuple[float, float]], after: float, value: float
) -> None:
    average = PeakEwma(10.0, 0.01)
    for seconds, now in observed:
        average.observe(seconds, now)
    assert average.read(after) == pytest.approx(value)


@given(TIMES)
def test_it_is_never_over_what_was_seen_nor_below_zero(steps: list[tuple[float, float]]) -> None:
    average, now, peak = PeakEwma(10.0, 0.01), 0.0, 0.01
    for seconds, later in steps:
        now += later
        peak = max(peak, seconds)
        average.observe(seconds, now)
        assert seconds * (1 - 1e-9) <= average.read(now) <= peak * (1 + 1e-9)
