"""What every balancer promises, whichever file it is in; and what the default adds."""

import random
from collections import Counter

import pytest

from sidecar.balancers.least_request import LeastRequest
from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.plugin import discover

PLUGINS = discover("sidecar.balancers")


@pytest.fixture
def draw() -> Draw:
    return random.Random(7).random  # noqa: S311 - seeded, so that a run can be repeated


@pytest.fixture(params=sorted(PLUGINS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def endpoints(*weights: int) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(f"10.0.0.{i}:80", f"10.0.0.{i}", 80, weight=w) for i, w in enumerate(weights)
    )


def make(kind: str, places: tuple[Endpoint, ...], draw: Draw) -> Balancer:
    balancer = PLUGINS[kind].make(places, draw)
    assert isinstance(balancer, Balancer)
    return balancer


def test_the_documented_balancers_are_found() -> None:
    assert {"least_request", "round_robin", "random"} <= set(PLUGINS)


def test_no_endpoint_gives_none(kind: str, draw: Draw) -> None:
    assert make(kind, (), draw).pick(None, ()) is None


def test_a_single_endpoint_is_always_picked(kind: str, draw: Draw) -> None:
    (only,) = places = endpoints(1)
    balancer = make(kind, places, draw)
    assert all(balancer.pick(None, tried) is only for tried in ((), (only,)))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_what_was_tried_is_avoided(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    assert {balancer.pick(None, places[1:]) for _ in range(200)} == {places[0]}


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_the_tried_are_picked_again_if_there_are_no_others(
    kind: str, weights: tuple[int, ...], draw: Draw
) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    assert all(balancer.pick(None, places) in places for _ in range(50))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_what_is_unavailable_is_avoided(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    places[1].available = False
    balancer = make(kind, places, draw)
    assert {balancer.pick(None, ()) for _ in range(200)} == {places[0], places[2]}


def test_all_are_used_when_most_are_unavailable(kind: str, draw: Draw) -> None:
    places = endpoints(1, 1, 1)
    places[0].available = places[1].available = False
    balancer = make(kind, places, draw)
    assert {balancer.pick(None, ()) for _ in range(200)} == set(places)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 7), (1, 99)])
def test_weights_are_respected(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    rounds = 20000
    counts = Counter(balancer.pick(None, ()) for _ in range(rounds))
    for place in places:
        assert counts[place] / rounds == pytest.approx(place.weight / sum(weights), abs=0.02)


def test_least_request_takes_the_less_busy_of_two() -> None:
    busy, idle = places = endpoints(1, 1)
    busy.active, idle.active = 5, 1
    for chances in ((0.0, 0.9), (0.9, 0.0)):
        assert LeastRequest(places, iter(chances).__next__).pick(None, ()) is idle


def test_least_request_counts_load_in_proportion_to_weight() -> None:
    heavy, light = places = endpoints(10, 1)
    heavy.active, light.active = 9, 1
    for chances in ((0.0, 0.99), (0.99, 0.0)):
        assert LeastRequest(places, iter(chances).__next__).pick(None, ()) is heavy
