"""The wheel of timers: what is due is called once, and the runtime is asked to wake in time."""

import pytest

from sidecar.core.timers import NEVER, NONE, TICK, Timer, Wheel


class Bench:
    """A wheel, the moments it asked to be woken at, and the calls its timers got."""

    def __init__(self) -> None:
        self.wakes: list[float] = []
        self.wheel = Wheel(self.wakes.append)
        self.calls: list[tuple[str, float]] = []

    def timer(self, name: str) -> Timer:
        return Timer(lambda now: self.calls.append((name, now)))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_timer_is_called_once_with_the_moment(bench: Bench) -> None:
    bench.wheel.arm(bench.timer("a"), 1.0)
    bench.wheel.advance(2.0)
    bench.wheel.advance(3.0)
    assert bench.calls == [("a", 2.0)]


def test_a_timer_is_never_early_and_at_most_one_tick_late(bench: Bench) -> None:
    bench.wheel.arm(bench.timer("a"), 1.005)
    bench.wheel.advance(1.005 - TICK / 10)
    assert bench.calls == []
    assert bench.wakes[-1] - 1.005 <= TICK
    bench.wheel.advance(bench.wakes[-1])
    assert [name for name, _ in bench.calls] == ["a"]


def test_a_stopped_timer_is_not_called(bench: Bench) -> None:
    timer = bench.timer("a")
    bench.wheel.arm(timer, 1.0)
    timer.stop()
    bench.wheel.advance(2.0)
    assert bench.calls == []
    assert timer.deadline == NEVER


def test_a_stopped_timer_can_be_armed_again(bench: Bench) -> None:
    timer = bench.timer("a")
    bench.wheel.arm(timer, 1.0)
    timer.stop()
    bench.wheel.arm(timer, 3.0)
    bench.wheel.advance(2.0)
    assert bench.calls == []
    bench.wheel.advance(4.0)
    assert bench.calls == [("a", 4.0)]


def test_a_deadline_moved_later_is_called_at_the_later_moment_only(bench: Bench) -> None:
    timer = bench.timer("a")
    bench.wheel.arm(timer, 1.0)
    bench.wheel.arm(timer, 5.0)
    assert len(bench.wakes) == 1  # moving later costs nothing
    bench.wheel.advance(2.0)
    assert bench.calls == []
    assert 5.0 <= bench.wakes[-1] <= 5.0 + TICK
    bench.wheel.advance(6.0)
    assert bench.calls == [("a", 6.0)]


def test_a_deadline_moved_earlier_is_called_at_the_earlier_moment_only(bench: Bench) -> None:
    timer = bench.timer("a")
    bench.wheel.arm(timer, 5.0)
    bench.wheel.arm(timer, 1.0)
    assert 1.0 <= bench.wakes[-1] <= 1.0 + TICK
    bench.wheel.advance(2.0)
    bench.wheel.advance(6.0)
    assert bench.calls == [("a", 2.0)]


def test_timers_of_one_advance_are_called_in_the_order_of_their_ticks(bench: Bench) -> None:
    for name, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        bench.wheel.arm(bench.timer(name), deadline)
    bench.wheel.advance(9.0)
    assert [name for name, _ in bench.calls] == ["a", "b", "c"]


def test_timers_of_one_tick_share_one_wake(bench: Bench) -> None:
    bench.wheel.arm(bench.timer("a"), 1.001)
    bench.wheel.arm(bench.timer("b"), 1.002)
    assert len(bench.wakes) == 1
    bench.wheel.advance(2.0)
    assert [name for name, _ in bench.calls] == ["a", "b"]


def test_a_later_timer_does_not_ask_to_be_woken_before_the_earlier_one_was(bench: Bench) -> None:
    bench.wheel.arm(bench.timer("a"), 1.0)
    bench.wheel.arm(bench.timer("b"), 2.0)
    assert len(bench.wakes) == 1
    bench.wheel.advance(1.5)
    assert len(bench.wakes) == 2
    assert 2.0 <= bench.wakes[-1] <= 2.0 + 2 * TICK


def test_a_callback_may_arm_its_own_timer_again(bench: Bench) -> None:
    calls: list[float] = []

    def again(now: float) -> None:
        calls.append(now)
        bench.wheel.arm(timer, now + 1.0)

    timer = Timer(again)
    bench.wheel.arm(timer, 1.0)
    bench.wheel.advance(1.5)
    bench.wheel.advance(3.0)
    assert calls == [1.5, 3.0]


def test_a_retired_timer_calls_nobody_and_serves_another_when_armed_again(bench: Bench) -> None:
    timer = bench.timer("a")
    bench.wheel.arm(timer, 1.0)
    timer.retire()
    bench.wheel.advance(1.5)
    timer.callback(1.5)
    assert bench.calls == []
    timer.callback = bench.timer("b").callback
    bench.wheel.arm(timer, 2.0)
    bench.wheel.advance(2.5)
    assert [name for name, _ in bench.calls] == ["b"]


def test_a_timer_given_back_serves_the_next_and_forgets_whose_it_was(bench: Bench) -> None:
    def call(name: str) -> Timer:
        return bench.wheel.timer(lambda now: bench.calls.append((name, now)))

    first = call("a")
    bench.wheel.arm(first, 5.0)
    assert bench.wheel.give_back(first) is NONE
    second = call("b")
    assert second is first
    bench.wheel.arm(second, 2.0)
    third = call("c")
    assert third is not second
    bench.wheel.arm(third, 9.0)
    bench.wheel.advance(6.0)
    assert bench.calls == [("b", 6.0)]
    bench.wheel.advance(9.5)
    assert bench.calls == [("b", 6.0), ("c", 9.5)]


def test_a_timer_given_back_twice_is_not_two(bench: Bench) -> None:
    timer = bench.wheel.timer(lambda now: None)
    timer = bench.wheel.give_back(timer)
    timer = bench.wheel.give_back(timer)
    assert timer is NONE
    assert bench.wheel.timer(lambda now: None) is not bench.wheel.timer(lambda now: None)


def test_what_stands_in_for_a_timer_given_back_calls_nobody(bench: Bench) -> None:
    timer = bench.wheel.give_back(bench.timer("a"))
    bench.wheel.arm(timer, 1.0)
    bench.wheel.advance(2.0)
    assert bench.calls == []


def test_an_empty_wheel_asks_for_nothing(bench: Bench) -> None:
    bench.wheel.advance(100.0)
    assert bench.wakes == []


def test_a_callback_that_raises_keeps_no_other_waiting(bench: Bench) -> None:
    bugs: list[tuple[str, str]] = []
    bench.wheel.bug = lambda where, error: bugs.append((where, str(error)))

    def broken(now: float) -> None:
        raise ValueError("broken")

    bench.wheel.arm(Timer(broken), 1.0)
    bench.wheel.arm(bench.timer("same tick"), 1.0)
    bench.wheel.arm(bench.timer("next"), 1.5)
    bench.wheel.arm(bench.timer("later"), 3.0)
    bench.wheel.advance(2.0)
    assert [name for name, _ in bench.calls] == ["same tick", "next"]
    assert bugs == [("timer", "broken")]
    assert 3.0 <= bench.wakes[-1] <= 3.0 + 2 * TICK


def test_a_wheel_without_an_engine_tells_nobody(bench: Bench) -> None:
    def broken(now: float) -> None:
        raise ValueError("broken")

    bench.wheel.arm(Timer(broken), 1.0)
    bench.wheel.arm(bench.timer("a"), 1.0)
    bench.wheel.advance(2.0)
    assert bench.calls == [("a", 2.0)]
