"""Leases of a shared rate: how far all who hold some may go beyond it, and what they cost."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from sidecar.traffic.lease import AHEAD, KEPT, PAUSE, Lease
from sidecar.traffic.rate import Grant, Rate


class Mesh:
    """A bucket, and workers that lease of it; whoever is asked answers at once."""

    def __init__(self, rate: Rate, workers: int, start: float = 0.0) -> None:
        self.rate, self.full_at, self.asks = rate, 0.0, 0
        self.leases = [Lease(rate, start) for _ in range(workers)]

    @property
    def held(self) -> int:
        return sum(lease.held for lease in self.leases)

    def request(self, worker: int, now: float) -> bool:
        lease = self.leases[worker]
        if lease.take(now):
            if lease.is_low(now):
                self.ask(lease, now, 0)
            return True
        if lease.is_spent(now):
            return False
        self.ask(lease, now, 1)
        if not lease.held:
            return False
        lease.held -= 1
        return True

    def ask(self, lease: Lease, now: float, waiting: int) -> None:
        self.give_back(lease, now)
        wanted = lease.wish(now, waiting)
        if wanted:
            self.asks += 1
            grant, self.full_at = self.rate.grant(self.full_at, now, wanted)
            lease.put(grant, wanted, now)

    def give_back(self, lease: Lease, now: float) -> None:
        count = lease.give_back(now)
        if count:
            _, self.full_at = self.rate.grant(self.full_at, now, -count)


@given(
    st.integers(1, 400),
    st.integers(1, 40),
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from([0, 1, 1, 2, 5, 20, 60, 300]), st.integers(1, 30)
        ),
        min_size=1,
        max_size=40,
    ),
)
def test_all_together_let_no_more_through_than_is_stated(
    count: int, burst: int, workers: int, steps: list[tuple[int, int, int]]
) -> None:
    mesh, now = Mesh(Rate(count, 1, burst), workers), 0.0
    taken: list[tuple[float, int]] = []  # when, and what all held just before
    for worker, milliseconds, requests in steps:
        now += milliseconds / 1000
        for lease in mesh.leases:
            mesh.give_back(lease, now)
        for _ in range(requests):
            held = mesh.held
            if mesh.request(worker % workers, now):
                taken.append((now, held))
        assert all(lease.held <= AHEAD * count for lease in mesh.leases)
    for first, (start, held) in enumerate(taken):
        for last in range(first, len(taken)):
            spent = taken[last][0] - start
            assert last - first + 1 <= burst + count * spent + held + 1e-6


@given(
    st.integers(1, 50),
    st.integers(1, 6),
    st.lists(st.integers(0, 60), min_size=1, max_size=60),
)
def test_a_rare_rate_is_exact(interval: int, burst: int, gaps: list[int]) -> None:
    # Of less than one request in AHEAD seconds nothing is held in advance.
    mesh, tokens, at, now = Mesh(Rate(1, interval, burst), 2), Fraction(burst), 0, 0
    for turn, gap in enumerate(gaps):
        now += gap
        tokens, at = min(tokens + Fraction(now - at, interval), Fraction(burst)), now
        assert mesh.request(turn % 2, now) == (tokens >= 1)
        tokens -= tokens >= 1
        assert mesh.held == 0


@pytest.mark.parametrize("offered", [1100, 2000, 8000])
def test_under_more_load_than_the_rate_the_whole_rate_is_used(offered: int) -> None:
    mesh, seconds, burst = Mesh(Rate(1000, 1, 100), 4), 5, 100
    passed = sum(mesh.request(turn % 4, turn / offered) for turn in range(offered * seconds))
    assert passed == pytest.approx(burst + 1000 * seconds, rel=0.02)
    assert mesh.asks <= 4 * seconds / PAUSE * 1.1  # at its begin there is no pause


def test_a_hot_key_costs_a_small_part_of_a_question_for_each_request() -> None:
    mesh = Mesh(Rate(100_000, 1, 100_000), 1)
    assert all(mesh.request(0, turn / 2000) for turn in range(10_000))
    assert mesh.asks < 10_000 * 0.03


def test_one_that_falls_silent_gives_back_what_it_holds() -> None:
    mesh = Mesh(Rate(1000, 1, 1000), 2)
    for turn in range(1000):
        assert mesh.request(0, turn / 1000)
    lease = mesh.leases[0]
    assert 0 < lease.held <= AHEAD * 1000
    mesh.give_back(lease, 1.0)
    assert lease.held
    mesh.give_back(lease, 1.0 + KEPT)
    assert lease.held == 0
    granted, _ = mesh.rate.grant(mesh.full_at, 1.0 + KEPT, 2000)
    assert granted.granted == 1000  # nothing is missing


def test_what_is_held_too_long_is_not_used() -> None:
    lease = Lease(Rate(1000, 1, 1000), 0.0)
    lease.put(Grant(5, 0.005, 0.0), 5, 0.0)
    assert lease.take(KEPT - 0.001)
    assert not lease.take(KEPT)
    assert lease.give_back(KEPT) == 4


def test_the_bucket_is_asked_again_before_what_it_gets_meanwhile_is_lost() -> None:
    lease = Lease(Rate(1000, 1, 4), 0.0)  # full in 4 ms
    lease.put(Grant(0, 0.004, 0.001), 1, 0.0)
    assert lease.is_spent(0.0019)
    assert not lease.is_spent(0.0021)
    slow = Lease(Rate(1, 60, 1), 0.0)
    slow.put(Grant(0, 60.0, 45.0), 1, 0.0)
    assert slow.is_spent(44.9)
    assert not slow.is_spent(45.1)


def test_what_is_idle_can_be_forgotten() -> None:
    lease = Lease(Rate(1, 10, 1), 0.0)
    assert not lease.is_idle(0.5)
    lease.put(Grant(0, 10.0, 10.0), 1, 0.0)
    assert not lease.is_idle(9.0)
    assert lease.is_idle(10.0)
    lease.held = 1
    assert not lease.is_idle(10.0)
