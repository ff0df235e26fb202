"""When an endpoint is left out, for how long, and how many may be."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.outlier import (
    CONSECUTIVE,
    DUE,
    EJECTED,
    LIVE,
    LOCAL,
    LOCAL_SUCCESS_RATE,
    PROBING,
    SUCCESS_RATE,
    Policy,
    Tally,
    ejection_time,
    may_eject,
    outliers,
)

POLICY = Policy()


def tally(events: str = "") -> Tally:
    """Return what comes of `events`: g good and b bad answers, c connections, f failures to answer."""
    found = Tally()
    for event in events:
        if event == "f":
            found.went_without()
        elif event == "c":
            found.reached()
        else:
            found.answered(well=event == "g")
    return found


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ("", ""),
        ("bbbb", ""),
        ("bbbbb", CONSECUTIVE),
        ("bbbbgb", ""),
        ("ffff", ""),
        ("fffff", LOCAL),
        ("ffffgf", ""),
        ("ffffbf", ""),  # a bad answer is one: it can be reached
        ("ffffcf", ""),
        ("bbbffbb", CONSECUTIVE),  # who gives no answer has not mended its answers
        ("bbfbbfb", CONSECUTIVE),
    ],
)
def test_failures_in_a_row_eject_and_the_two_kinds_are_kept_apart(events: str, reason: str) -> None:
    assert tally(events).verdict(POLICY) == reason


def test_a_row_of_0_never_ejects() -> None:
    policy = Policy(consecutive_5xx=0, consecutive_local_origin_failure=0)
    assert tally("b" * 100 + "f" * 100).verdict(policy) == ""


def test_each_ejection_is_twice_as_long_up_to_the_cap() -> None:
    times = [ejection_time(times, POLICY) for times in (0, 1, 2, 3, 4, 5, 1000)]
    assert times == [30, 60, 120, 240, 300, 300, 300]


def test_a_window_spent_well_makes_up_for_one_ejection() -> None:
    one = tally("bbbbb")
    one.eject(CONSECUTIVE, 0.0, POLICY)
    assert (one.until, one.times, one.verdict(POLICY)) == (30.0, 1, "")
    one.close_window()
    assert one.times == 1  # it is out: that is not well spent
    for state in (DUE, PROBING, LIVE):
        one.step(state)
    for event, times in (("b", 1), ("f", 1), ("g", 0), ("g", 0)):
        if event == "f":
            one.went_without()
        else:
            one.answered(well=event == "g")
        one.close_window()
        assert one.times == times


@pytest.mark.parametrize(
    ("start", "to"), [(LIVE, DUE), (LIVE, PROBING), (EJECTED, LIVE), (DUE, LIVE), (DUE, EJECTED)]
)
def test_a_step_that_is_not_in_the_table_is_a_bug(start: int, to: int) -> None:
    one = Tally()
    one.state = start
    with pytest.raises(AssertionError, match="is no step"):
        one.step(to)


@pytest.mark.parametrize(
    ("out", "available", "size", "panic", "share", "allowed"),
    [
        (0, 1, 1, 0.5, None, False),
        (0, 2, 2, 0.5, None, True),
        (1, 1, 2, 0.5, None, False),
        (0, 3, 3, 0.5, None, True),
        (1, 2, 3, 0.5, None, False),
        (1, 3, 4, 0.5, None, True),
        (2, 2, 4, 0.5, None, False),
        (0, 5, 5, 0.5, None, True),
        (1, 4, 5, 0.5, None, False),  # a tenth of five is none: one
        (1, 19, 20, 0.5, None, True),
        (2, 18, 20, 0.5, None, False),
        (5, 15, 20, 0.5, 1.0, True),
        (0, 10, 20, 0.5, 1.0, False),  # half of them are away for other reasons
        (0, 2, 2, 0.0, 1.0, True),
        (1, 1, 2, 0.0, 1.0, False),  # the last
        (0, 4, 4, 0.5, 0.0, True),  # always one
    ],
)
def test_no_more_are_ejected_than_the_rest_can_bear(
    out: int, available: int, size: int, panic: float, share: float | None, allowed: bool
) -> None:
    policy = replace(POLICY, max_ejection_share=share)
    assert may_eject(out, available, size, panic, policy) is allowed


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1) | st.none())
def test_ejecting_all_one_can_leaves_no_panic(size: int, panic: float, share: float | None) -> None:
    policy = replace(POLICY, max_ejection_share=share)
    out = 0
    while may_eject(out, size - out, size, panic, policy):
        out += 1
    assert size - out >= 1
    assert out == 0 or size - out >= size * panic


GOOD, BAD, WORSE = "g" * 100, "g" * 70 + "b" * 30, "g" * 30 + "b" * 70
GONE = "g" * 70 + "f" * 30


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([GOOD, GOOD, BAD], [(2, SUCCESS_RATE)]),
        ([GOOD, GONE + "g" * 30, GOOD], [(1, LOCAL_SUCCESS_RATE)]),
        ([GOOD, BAD], []),  # fewer than can be compared
        ([BAD, BAD, BAD], []),  # all alike: it is not the endpoint
        ([GOOD, GOOD, "g" * 70 + "b" * 29], []),  # too few requests to tell
        ([GOOD, GOOD, "g" * 93 + "b" * 7], []),  # chance
        ([GOOD, GOOD, GOOD, GOOD, WORSE, BAD], [(4, SUCCESS_RATE)]),
        ([], []),
    ],
)
def test_who_is_far_below_the_others_is_an_outlier(
    events: list[str], found: list[tuple[int, str]]
) -> None:
    assert outliers([tally(each) for each in events], POLICY) == found


@pytest.mark.parametrize("least", [0, 1, 2])
def test_rates_are_compared_with_others_or_not_at_all(least: int) -> None:
    policy = replace(POLICY, success_rate_minimum_hosts=least)
    found = outliers([tally(GOOD), tally(BAD)], policy)
    assert found == ([(1, SUCCESS_RATE)] if least else [])
    assert outliers([tally(BAD)], policy) == []
