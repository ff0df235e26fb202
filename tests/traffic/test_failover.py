"""What tiers carry, by the numbers that Envoy's documentation gives, and how the new warm up."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.failover import tier_loads
from sidecar.traffic.slow_start import warmth

COUNTS = st.integers(0, 50).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size)))


@pytest.mark.parametrize(
    ("tiers", "loads", "enough"),
    [
        ([(10, 10)], [1.0], True),
        ([(100, 100), (100, 100)], [1.0, 0.0], True),
        ([(72, 100), (100, 100)], [1.0, 0.0], True),
        ([(71, 100), (100, 100)], [0.994, 0.006], True),
        ([(50, 100), (100, 100)], [0.7, 0.3], True),
        ([(25, 100), (100, 100)], [0.35, 0.65], True),
        ([(0, 100), (100, 100)], [0.0, 1.0], True),
        ([(5, 100), (50, 100), (20, 100)], [0.07, 0.7, 0.23], True),
        ([(25, 100), (25, 100)], [0.5, 0.5], False),
        ([(5, 100), (0, 100), (5, 100)], [0.5, 0.0, 0.5], False),
        ([(0, 100), (0, 100)], [1.0, 0.0], False),
        ([(0, 0), (1, 1)], [0.0, 1.0], True),
        ([(0, 0)], [1.0], False),
    ],
)
def test_a_tier_carries_14_tenths_of_what_is_available(
    tiers: list[tuple[int, int]], loads: list[float], enough: bool
) -> None:
    found, is_enough = tier_loads(tiers)
    assert found == pytest.approx(loads)
    assert is_enough is enough


@given(st.lists(COUNTS, min_size=1, max_size=6))
def test_the_shares_make_one(tiers: list[tuple[int, int]]) -> None:
    loads, enough = tier_loads(tiers)
    assert sum(loads) == pytest.approx(1)
    assert all(load >= 0 for load in loads)
    for (up, _), load in zip(tiers[1:], loads[1:], strict=True):
        assert up or not load
    if enough:
        last = max(i for i, load in enumerate(loads) if load)
        for (up, size), load in zip(tiers[:last], loads, strict=False):
            assert size == 0 or load == pytest.approx(min(1, 1.4 * up / size))


@pytest.mark.parametrize(
    ("age", "aggression", "part"),
    [
        (-1, 1, 0.1),
        (0, 1, 0.1),
        (5, 1, 0.1),
        (25, 1, 0.5),
        (25, 2, 0.5**0.5),
        (50, 1, 1),
        (99, 1, 1),
    ],
)
def test_a_new_endpoint_warms_up(age: float, aggression: float, part: float) -> None:
    assert warmth(age, 50.0, aggression, 0.1) == pytest.approx(part)
