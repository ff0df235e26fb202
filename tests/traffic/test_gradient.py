"""The limit finds the number of requests that a server takes at once, whatever that is today."""

import heapq
import random
from dataclasses import replace
from statistics import median

import pytest

from sidecar.traffic.gradient import ENOUGH, MOST, STUCK, Gradient, Policy

POLICY = Policy()


class Server:
    """Serves `workers` requests at once, each for about `seconds`; the others queue."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.workers, self.seconds = workers, seconds


class Run:
    """Requests that come by chance at a rate, before a server, and through a limit or none."""

    def __init__(self, server: Server, gradient: Gradient | None, seed: int = 5) -> None:
        self.server, self.gradient = server, gradient
        self.chance = random.Random(seed)  # noqa: S311 - seeded, so that a run can be repeated
        self.now = 0.0
        self.refused: list[float] = []
        self.answers: list[tuple[float, float]] = []  # when, and after how many seconds
        self.limits: list[tuple[float, int]] = []
        self._queue: list[float] = []  # arrivals that nobody serves yet
        self._served: list[tuple[float, float]] = []  # when it will be answered, when it came

    def go_on(self, seconds: float, rate: float) -> None:
        """Let time pass while requests come."""
        end = self.now + seconds
        arrival = self.now + self.chance.expovariate(rate)
        while arrival < end:
            self._answer(until=arrival)
            self.now = arrival
            self._arrive()
            arrival += self.chance.expovariate(rate)
        self._answer(until=end)
        self.now = end

    def _arrive(self) -> None:
        under_way = len(self._queue) + len(self._served)
        if self.gradient is not None and under_way >= self.gradient.limit:
            self.refused.append(self.now)
            return
        self._queue.append(self.now)
        self._serve(self.now)

    def _serve(self, now: float) -> None:
        while self._queue and len(self._served) < self.server.workers:
            took = self.server.seconds * self.chance.uniform(0.8, 1.2)
            heapq.heappush(self._served, (now + took, self._queue.pop(0)))

    def _answer(self, until: float) -> None:
        while self._served and self._served[0][0] <= until:
            now, began = heapq.heappop(self._served)
            self._serve(now)
            self.answers.append((now, now - began))
            if self.gradient is not None:
                self.gradient.observe(began, now)
                if not self.gradient.is_measuring:
                    self.limits.append((now, self.gradient.limit))

    def latency(self, since: float) -> float:
        """Return the median."""
        return median(took for at, took in self.answers if at >= since)

    def limit(self, since: float) -> float:
        """Return the median, without measurements."""
        return median(limit for at, limit in self.limits if at >= since)

    def served(self, since: float) -> float:
        """Return the answers a second."""
        return sum(at >= since for at, _ in self.answers) / (self.now - since)


def test_the_limit_finds_the_knee_under_overload_and_keeps_the_server_busy() -> None:
    free = Run(Server(20, 0.05), None)
    held = Run(Server(20, 0.05), Gradient(POLICY, lambda: 0.5))
    for run in (free, held):
        run.go_on(5, rate=200)  # half of what it can
        run.go_on(40, rate=800)  # twice of what it can
    since = 25.0
    assert 20 <= held.limit(since) <= 40
    assert held.served(since) >= 0.95 * 400
    assert held.latency(since) <= 2 * 0.05
    assert free.latency(since) >= 100 * held.latency(since)  # nobody waits so long


def test_nothing_is_refused_while_the_server_has_room() -> None:
    run = Run(Server(20, 0.05), Gradient(POLICY, lambda: 0.5))
    run.go_on(55, rate=200)
    assert run.refused == []
    assert run.gradient is not None
    assert run.gradient.min_rtt == pytest.approx(0.05, rel=0.2)


def test_the_limit_follows_a_server_that_loses_half_and_recovers() -> None:
    run = Run(Server(40, 0.05), Gradient(POLICY, lambda: 0.5))
    run.go_on(20, rate=1200)
    before = run.limit(since=10)
    run.server.workers = 10
    run.go_on(20, rate=1200)
    during = run.limit(since=30)
    assert run.latency(since=30) <= 3 * 0.05
    run.server.workers = 40
    run.go_on(20, rate=1200)
    after = run.limit(since=50)
    assert 40 <= before <= 80
    assert during < before / 2
    assert after == pytest.approx(before, rel=0.15)
    assert run.served(since=50) >= 0.95 * 800


def test_a_server_that_has_become_slower_for_good_is_measured_anew() -> None:
    run = Run(Server(20, 0.02), Gradient(POLICY, lambda: 0.0))
    run.go_on(10, rate=500)
    run.server.seconds = 0.2
    run.go_on(50, rate=150)
    assert run.gradient is not None
    assert run.gradient.min_rtt == pytest.approx(0.2, rel=0.2)
    assert run.served(since=30) >= 0.95 * 100


def fed(gradient: Gradient, count: int, seconds: float, now: float) -> None:
    for _ in range(count):
        gradient.observe(now - seconds, now)


def test_a_step_takes_its_time_and_enough_answers() -> None:
    gradient = Gradient(POLICY, lambda: 0.0)
    fed(gradient, 50, 0.1, 1.0)
    assert gradient.min_rtt == pytest.approx(0.1)
    assert gradient.limit == 1000
    fed(gradient, 50, 0.5, 1.09)
    assert gradient.limit == 1000  # too soon
    fed(gradient, 1, 0.5, 1.1)
    assert gradient.limit == 522  # half, and the root of it
    fed(gradient, ENOUGH - 1, 0.5, 2.0)
    assert gradient.limit == 522
    fed(gradient, 1, 0.5, 2.0)
    assert gradient.limit < 522


def test_the_limit_stays_within_its_bounds() -> None:
    gradient = Gradient(replace(POLICY, max_concurrency_limit=50), lambda: 0.0)
    fed(gradient, 50, 0.1, 1.0)
    limits = []
    for step in range(STUCK + 20):
        fed(gradient, ENOUGH, 2.0, 2.0 + 3 * step)
        limits.append(gradient.limit)
        if gradient.is_measuring:
            break
    assert limits[-STUCK:] == [3] * STUCK
    assert gradient.is_measuring  # what was thought the least latency is none
    fed(gradient, 50, 2.0, 300.0)
    assert gradient.min_rtt == pytest.approx(2.0)
    for step in range(15):
        fed(gradient, ENOUGH, 2.0, 310.0 + 3 * step)
    assert gradient.limit == 50


def test_the_least_latency_is_measured_from_time_to_time_with_a_low_limit() -> None:
    gradient = Gradient(POLICY, lambda: 0.5)
    fed(gradient, 50, 0.1, 1.0)
    due = 1.0 + 60 * (1 + 0.15 / 2)
    fed(gradient, 1, 0.1, due - 0.01)
    assert not gradient.is_measuring
    fed(gradient, 1, 0.1, due)
    assert (gradient.is_measuring, gradient.limit) == (True, 3)
    fed(gradient, 60, 0.4, due + 0.3)  # they had begun before, among others
    assert (gradient.is_measuring, gradient.limit) == (True, 3)
    fed(gradient, 50, 0.2, due + 1)
    assert (gradient.is_measuring, gradient.limit) == (False, 1000)
    assert gradient.min_rtt == pytest.approx(0.2)


def test_a_measurement_that_meets_only_failures_ends_as_well() -> None:
    gradient = Gradient(POLICY, lambda: 0.0)
    for _ in range(100):
        gradient.observe_none(0.0)
    assert gradient.is_measuring  # the first goes on: it holds nobody back
    fed(gradient, 50, 0.1, 1.0)
    gradient.observe_none(2.0)
    fed(gradient, 1, 0.1, 99.0)
    assert gradient.limit == 3
    for _ in range(50):
        gradient.observe_none(99.0)
    assert (gradient.is_measuring, gradient.limit) == (False, 1000)
    assert gradient.min_rtt == pytest.approx(0.1)


def test_memory_is_bounded_however_many_answers_come_at_once() -> None:
    gradient = Gradient(POLICY, lambda: 0.0)
    fed(gradient, 50, 0.1, 1.0)
    fed(gradient, MOST, 0.1, 1.01)
    fed(gradient, 5000, 9.0, 1.02)  # of these none is kept
    fed(gradient, 1, 9.0, 1.2)
    assert gradient.limit == 1000
