"""Full jitter: between nothing and an edge that doubles up to a cap."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.backoff import full_jitter


@pytest.mark.parametrize(
    ("attempt", "edge"), [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.25), (5, 0.25), (100000, 0.25)]
)
def test_the_edge_doubles_with_each_attempt_up_to_the_cap(attempt: int, edge: float) -> None:
    assert full_jitter(attempt, 0.025, 0.25, 0.5) == pytest.approx(edge / 2)


def test_chance_zero_does_not_wait() -> None:
    assert full_jitter(3, 0.025, 0.25, 0.0) == 0.0


def test_a_base_of_zero_does_not_wait() -> None:
    assert full_jitter(3, 0.0, 0.25, 0.9) == 0.0


@given(
    attempt=st.integers(1, 1000),
    base=st.floats(0, 60),
    cap=st.floats(0, 600),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_negative_nor_beyond_the_cap(
    attempt: int, base: float, cap: float, chance: float
) -> None:
    assert 0 <= full_jitter(attempt, base, cap, chance) <= cap
