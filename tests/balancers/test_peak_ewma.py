"""The sooner of two: by latency lately and by queue, with failures counted as slow."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.balancers.peak_ewma import PENALTY, Latency, PeakEwma
from sidecar.core.api import Balancer
from sidecar.core.book import Endpoint
from sidecar.model.balancing import PeakEwma as Settings
from sidecar.plugin import discover
from tests.balancers.test_contract import endpoints, placed
from tests.core.harness import GET, OK, Harness

PLACES = ("10.0.0.1:80", "10.0.0.2:80")
EWMA: dict[str, Any] = {"balancer": "peak_ewma"}


def latency(harness: Harness, place: str) -> float:
    """Return what is thought of `place`."""
    (found,) = (w for w in harness.endpoint(place).watchers if isinstance(w, Latency))
    return found.average.read(harness.now)


def ask(harness: Harness, chance: float, seconds: float) -> str:
    """Send a request that is answered after `seconds`; return where it went."""
    harness.connects_at_once = True
    harness.chance = chance
    harness.open(GET)
    upstream = next(u for u in harness.upstreams if u.take())
    harness.advance(seconds)
    upstream.send(OK)
    return harness.outcomes[-1].endpoint


@pytest.fixture
def harness() -> Harness:
    return Harness(endpoints=PLACES, cluster=EWMA)


def test_the_time_to_the_response_is_what_counts(harness: Harness) -> None:
    assert ask(harness, 0.1, 0.25) == PLACES[0]
    assert latency(harness, PLACES[0]) == pytest.approx(0.25, abs=0.01)
    assert latency(harness, PLACES[1]) == Settings().default_rtt


def test_a_failure_counts_as_slow(harness: Harness) -> None:
    harness.chance = 0.1
    harness.open(GET)
    harness.fail()
    assert latency(harness, PLACES[0]) == PENALTY


def test_what_is_known_survives_a_push_but_not_another_balancer(harness: Harness) -> None:
    ask(harness, 0.1, 0.25)
    harness.swap(endpoints=(*PLACES, "10.0.0.3:80"), cluster=EWMA)
    assert latency(harness, PLACES[0]) == pytest.approx(0.25, abs=0.01)
    harness.swap(endpoints=PLACES)
    assert not any(isinstance(w, Latency) for w in harness.endpoint(PLACES[0]).watchers)


@pytest.mark.parametrize(
    ("slow", "busy", "expected"),
    [(0.0, 0, 0), (0.0, 9, 1), (0.5, 0, 1), (0.5, 100, 1)],
)
def test_latency_and_queue_decide_between_two(slow: float, busy: int, expected: int) -> None:
    places = endpoints(1, 1)
    chances = iter((0.0, 0.9) * 2)
    balancer = PeakEwma(places, chances.__next__, 0.5, Settings())
    watcher = places[0].watchers[0]
    assert isinstance(watcher, Latency)
    watcher.average.observe(slow or Settings().default_rtt, 0.0)
    places[0].active = busy
    assert balancer.pick(placed(), ()) is places[expected]


def simulate(make: Callable[..., Balancer], settings: object) -> tuple[float, Counter[int]]:
    """Return the 99th percentile of latency, and the load by endpoint; one of five is 20 times slow."""
    chance = random.Random(11)  # noqa: S311 - seeded, so that a run can be repeated
    places = endpoints(1, 1, 1, 1, 1)
    balancer = make(places, chance.random, 0.5, settings)
    ends: list[tuple[float, int]] = []
    taken, counts, now = [], Counter[int](), 0.0
    for _ in range(4000):
        now += chance.expovariate(200.0)
        while ends and ends[0][0] <= now:
            places[heapq.heappop(ends)[1]].active -= 1
        endpoint = balancer.pick(placed(), ())
        assert isinstance(endpoint, Endpoint)
        index = places.index(endpoint)
        seconds = chance.expovariate(1.0) * (0.2 if index == 0 else 0.01) * (1 + endpoint.active)
        endpoint.active += 1
        heapq.heappush(ends, (now + seconds, index))
        for watcher in endpoint.watchers:
            assert isinstance(watcher, Latency)
            watcher.average.observe(seconds, now)
        counts[index] += 1
        taken.append(seconds)
    return sorted(taken)[int(len(taken) * 0.99)], counts


def test_under_skewed_latency_two_choices_beat_chance_by_far() -> None:
    plugins = discover("sidecar.balancers")
    p99 = {}
    for name, settings in (("random", None), ("least_request", None), ("peak_ewma", Settings())):
        p99[name], counts = simulate(plugins[name].make, settings)
        assert set(counts) == set(range(5))  # nobody is starved
    assert p99["least_request"] < p99["random"] / 3
    assert p99["peak_ewma"] < p99["random"] / 3
