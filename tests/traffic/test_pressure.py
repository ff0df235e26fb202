"""How near a resource is to its end, and what a worker may have of it."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.pressure import (
    AGENT_SHARE,
    LASTS,
    LEAST_MEMORY,
    Lasting,
    connections_for,
    memory_of_worker,
    scaled,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.0), (90, 0.0), (91, 0.125), (94, 0.5), (98, 1.0), (200, 1.0)],
)
def test_pressure_grows_between_two_watermarks(value: float, expected: float) -> None:
    assert scaled(value, 90, 98) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "expected"), [(89.9, 0.0), (90, 0.0), (90.1, 1.0)])
def test_two_watermarks_in_one_place_are_a_step(value: float, expected: float) -> None:
    assert scaled(value, 90, 90) == expected


def test_what_has_no_saturation_is_not_looked_at() -> None:
    assert scaled(1e9, 90, 0) == 0.0


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(1, 1e3))
def test_more_is_never_less_pressure(a: float, b: float, scaling: float, more: float) -> None:
    low, high = sorted((a, b))
    first, second = (scaled(v, scaling, scaling + more) for v in (low, high))
    assert 0.0 <= first <= second <= 1.0


def test_a_worker_has_its_part_of_a_group_less_what_the_agent_takes() -> None:
    assert memory_of_worker(1024 * MIB, 1) == 1024 * MIB - AGENT_SHARE
    assert memory_of_worker(1024 * MIB, 4) == (1024 * MIB - AGENT_SHARE) // 4
    assert memory_of_worker(200 * MIB, 1) == 100 * MIB


def test_a_limit_at_which_every_worker_would_be_at_rest_is_none() -> None:
    assert memory_of_worker(0, 1) == 0
    assert memory_of_worker(128 * MIB, 1) == 0
    assert LEAST_MEMORY == 96 * MIB


def test_descriptors_are_kept_for_endpoints_and_for_the_rest() -> None:
    # 1000 less a tenth less 20 is 880: two for each caller.
    assert connections_for(1000, 20, 0, 0, 0.1) == 440
    # 400 callers with 10 connections to endpoints: 470 are left.
    assert connections_for(1000, 20, 400, 10, 0.1) == 635
    assert connections_for(1000, 20, 600, 600, 0.1) == 440
    assert connections_for(10, 20, 0, 0, 0.1) == 0


def test_what_comes_once_has_not_lasted() -> None:
    lasting = Lasting()
    assert [lasting.add(v) for v in (0, 9, 0, 0, 0)] == [0.0] * 5
    assert LASTS == 3
    assert [lasting.add(v) for v in (4, 5, 3, 6, 0)] == [0.0, 0.0, 3, 3, 0]
