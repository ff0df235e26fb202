"""Priorities, zones and slow start: who gets the traffic when all is well, and when it is not."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, Harness

Make = Callable[..., Harness]

ROUNDS = 400


def place(number: int, **more: Any) -> dict[str, Any]:
    return {"address": f"10.0.0.{number}:80", **more}


def spread(harness: Harness, rounds: int = ROUNDS, request: bytes = GET) -> dict[int, float]:
    """Return the share of `rounds` requests that each endpoint gets, by its number."""
    usual = harness.draw
    harness.draw = random.Random(5).random  # noqa: S311 - seeded, so that a run can be repeated
    counts: Counter[int] = Counter()
    for _ in range(rounds):
        caller = harness.open(request)
        caller.lose()
        counts[int(harness.outcomes[-1].endpoint[7:-3])] += 1
    harness.draw = usual
    return {number: count / rounds for number, count in counts.items()}


def tiers(make: Make, *priorities: int, balancer: str = "random", **more: Any) -> Harness:
    endpoints = [place(n, priority=p) for n, p in enumerate(priorities)]
    limits = {"connections": 5000, "pending": 5000}
    return make(cluster={"balancer": balancer, "endpoints": endpoints, **more}, limits=limits)


def take_away(harness: Harness, *numbers: int) -> None:
    for number in numbers:
        harness.state().eject(harness.endpoint(f"10.0.0.{number}:80"), ejected=True)


def share(found: dict[int, float], *numbers: int) -> float:
    return sum(found.get(number, 0.0) for number in numbers)


@pytest.mark.parametrize(
    ("away", "first"),
    [((), 1.0), ((0,), 1.0), ((0, 1), 0.7), ((0, 1, 2), 0.35), ((0, 1, 2, 3), 0.0)],
)
def test_what_the_first_priority_cannot_carry_goes_to_the_next(
    make: Make, away: tuple[int, ...], first: float
) -> None:
    harness = tiers(make, 0, 0, 0, 0, 1, 1)
    take_away(harness, *away)
    found = spread(harness)
    assert share(found, 0, 1, 2, 3) == pytest.approx(first, abs=0.05)
    assert not set(found) & set(away)


def test_without_enough_anywhere_each_tier_is_used_as_a_whole(make: Make) -> None:
    harness = tiers(make, 0, 0, 0, 0, 1, 1, 1, 1)
    take_away(harness, 0, 1, 2, 4, 5, 6)
    assert set(spread(harness)) == set(range(8))


def test_without_panic_nothing_goes_to_who_is_not_available(make: Make) -> None:
    harness = tiers(make, 0, 0, 0, 1, 1, 1, panic_threshold=0)
    take_away(harness, 0, 1, 3, 4, 5)
    assert set(spread(harness, 20)) == {2}
    take_away(harness, 2)
    caller = harness.open(GET)
    assert b" 503 " in caller.take()
    assert harness.outcomes[-1].code == "no-endpoint"


def test_a_retry_leaves_the_tier_when_all_of_it_was_tried(make: Make) -> None:
    harness = tiers(make, 0, 1)
    harness.open(GET)
    harness.fail()
    harness.advance(1)
    assert [dial.address for dial in harness.dials] == ["10.0.0.0:80", "10.0.0.1:80"]
    harness.fail()
    harness.advance(1)
    assert harness.dials[-1].address == "10.0.0.0:80"  # all were tried: back to the first


def test_a_hash_keeps_its_endpoint_while_tiers_share_the_load(make: Make) -> None:
    endpoints = [place(n, priority=n // 4) for n in range(8)]
    harness = make(
        cluster={"balancer": "ring_hash", "endpoints": endpoints},
        route={"hash_policy": [{"header": "x-user"}]},
        limits={"connections": 5000, "pending": 5000},
    )
    take_away(harness, 0, 1)
    firsts = 0
    for user in range(100):
        found = spread(harness, 3, b"GET / HTTP/1.1\r\nHost: a\r\nX-User: %d\r\n\r\n" % user)
        assert len(found) == 1
        firsts += set(found) <= {2, 3}
    assert firsts == pytest.approx(70, abs=12)
    assert set(spread(harness)) == set(range(2, 8))  # without a hash, by chance


@pytest.mark.parametrize(
    ("zone_aware", "count", "away", "local"),
    [
        (True, 6, (), 1.0),
        (True, 6, (0,), 0.93),
        (True, 6, (0, 1, 2), 0.0),
        (True, 5, (), 0.6),  # too few for zones to matter
        ({"enabled": True, "min_cluster_size": 5}, 5, (), 1.0),
        (False, 6, (), 0.5),
    ],
)
def test_the_own_zone_comes_first(
    make: Make, zone_aware: Any, count: int, away: tuple[int, ...], local: float
) -> None:
    endpoints = [place(n, zone="a" if n < 3 else "b") for n in range(count)]
    harness = make(
        workload={"name": "web", "zone": "a"},
        cluster={"balancer": "random", "endpoints": endpoints, "zone_aware": zone_aware},
        limits={"connections": 5000, "pending": 5000},
    )
    take_away(harness, *away)
    assert share(spread(harness), 0, 1, 2) == pytest.approx(local, abs=0.06)


SLOW: dict[str, Any] = {"balancer": "random", "slow_start": "50s"}


def test_the_first_endpoints_of_a_cluster_take_the_load_at_once(make: Make) -> None:
    harness = tiers(make, 0, 0, **SLOW)
    assert spread(harness, 200)[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("age", "part"), [(0, 0.1), (25, 0.5), (50, 1.0), (500, 1.0)])
def test_a_new_endpoint_begins_with_little(make: Make, age: float, part: float) -> None:
    harness = tiers(make, 0, 0, **SLOW)
    spread(harness, 1)
    endpoints = [place(n) for n in range(3)]
    limits = {"connections": 5000, "pending": 5000}
    harness.swap(cluster={"endpoints": endpoints, **SLOW}, limits=limits)
    spread(harness, 1)
    harness.advance(age)
    assert share(spread(harness, 1000), 2) == pytest.approx(part / (2 + part), abs=0.03)


def test_where_chance_insists_the_new_endpoint_is_taken(make: Make) -> None:
    harness = tiers(make, 0, **SLOW)
    spread(harness, 1)
    harness.swap(cluster={"endpoints": [place(0), place(1)], **SLOW})
    harness.chance = 0.99  # of two always the second, and never warm enough
    harness.open(GET)
    assert harness.dials[-1].address == "10.0.0.1:80"


def test_slow_start_has_nothing_to_pick_from_nothing(make: Make) -> None:
    harness = tiers(make, 0, panic_threshold=0, **SLOW)
    take_away(harness, 0)
    harness.open(GET)
    assert harness.outcomes[-1].code == "no-endpoint"
