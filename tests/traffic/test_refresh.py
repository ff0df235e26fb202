"""When something is looked up next, by what came of the last look."""

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.refresh import DENIALS, LONGEST_DENIAL, Refresh


@pytest.mark.parametrize(("ttl", "wait"), [(60.0, 60.0), (0.0, 1.0), (86400.0, 300.0), (None, 5.0)])
def test_an_answer_is_asked_for_again_when_its_time_is_over_within_bounds(
    ttl: float | None, wait: float
) -> None:
    assert Refresh(5.0, 1.0, 300.0).succeeded(ttl, 0.0) == wait


def test_chance_makes_it_later_and_never_sooner() -> None:
    assert Refresh(5.0, 1.0, 300.0).succeeded(60.0, 0.5) == pytest.approx(63.0)


def test_failures_are_followed_by_longer_and_longer_waits_up_to_the_interval() -> None:
    pace = Refresh(5.0, 1.0, 300.0)
    assert [pace.failed(1.0) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    pace.succeeded(None, 0.0)
    assert pace.failed(0.0) == 0.25


def test_that_there_is_none_is_asked_again_soon_and_believed_after_a_while() -> None:
    pace = Refresh(5.0, 1.0, 300.0)
    waits = [pace.denied(ttl, 0.0) for ttl in (3600.0, 2.0)]
    assert (waits, pace.is_gone) == ([LONGEST_DENIAL, 2.0], False)
    assert DENIALS == 3
    assert (pace.denied(None, 0.0), pace.is_gone) == (5.0, True)
    pace.succeeded(1.0, 0.0)
    assert not pace.is_gone


def test_a_failure_between_does_not_make_an_absence_less_likely() -> None:
    pace = Refresh(5.0, 1.0, 300.0)
    for _ in range(DENIALS):
        pace.failed(0.5)
        pace.denied(1.0, 0.5)
    assert pace.is_gone


@given(
    st.lists(st.sampled_from(["good", "none", "bad"]), max_size=40),
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.floats(0.1, 1e4),
    st.floats(0, 1e5),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_without_bounds(
    course: list[str], ttl: float, interval: float, least: float, most: float, draw: float
) -> None:
    pace = Refresh(interval, least, most)
    for step in course:
        if step == "good":
            wait = pace.succeeded(ttl, draw)
        elif step == "none":
            wait = pace.denied(ttl, draw)
        else:
            wait = pace.failed(draw)
        assert least / 10 <= wait <= 1.1 * max(least, most, interval, LONGEST_DENIAL)
