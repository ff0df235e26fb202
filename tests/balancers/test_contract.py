"""What every balancer promises, whichever file it is in; and what the default adds."""

import random
from collections import Counter
from functools import cache
from typing import Any

import msgspec
import pytest

from sidecar.balancers.least_request import LeastRequest
from sidecar.core.affinity import Hashed
from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.core.plan import ListenerPlan, RouteTable
from sidecar.core.tcp import Session
from sidecar.core.timers import Wheel
from sidecar.core.types import Caller, Engine, ListenerState
from sidecar.model.balancing import RingHash
from sidecar.model.cluster import Cluster
from sidecar.plugin import discover
from sidecar.wire.http1_head import HeadReader

PLUGINS = discover("sidecar.balancers")
SETTINGS = {"ring_hash": RingHash(minimum_ring_size=32768)}  # shares as exact as the others'


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


@cache
def placed() -> Session:
    """Return what is to be placed: a session, whose route says nothing of a hash."""
    engine = Engine(lambda: 0.0, lambda: 0.0, Wheel(lambda when: None))
    listener = ListenerPlan("out", "outbound", "tcp", RouteTable(()), HeadReader())
    return Session(ListenerState(engine, listener), Caller("10.0.0.9", 5000))


def make(kind: str, places: tuple[Endpoint, ...], draw: Draw, panic: float = 0.5) -> Balancer:
    plugin = PLUGINS[kind]
    settings = SETTINGS.get(kind) or plugin.settings()
    balancer = plugin.make(places, draw, panic, settings)
    assert isinstance(balancer, Balancer)
    return balancer


def test_the_documented_balancers_are_found() -> None:
    assert set(PLUGINS) >= {
        "least_request", "round_robin", "random", "ring_hash", "maglev", "peak_ewma"
    }  # fmt: skip


def test_the_settings_of_a_balancer_are_the_field_of_its_name() -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(Cluster)}
    for name, plugin in PLUGINS.items():
        assert fields.get(name, type(None)) is plugin.settings


def test_no_endpoint_gives_none(kind: str, draw: Draw) -> None:
    assert make(kind, (), draw).pick(placed(), ()) is None


def test_a_single_endpoint_is_always_picked(kind: str, draw: Draw) -> None:
    (only,) = places = endpoints(1)
    balancer = make(kind, places, draw)
    assert all(balancer.pick(placed(), tried) is only for tried in ((), (only,)))


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_what_was_tried_is_avoided(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    assert {balancer.pick(placed(), places[1:]) for _ in range(200)} == {places[0]}


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_the_tried_are_picked_again_if_there_are_no_others(
    kind: str, weights: tuple[int, ...], draw: Draw
) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    assert {balancer.pick(placed(), places) for _ in range(200)} <= set(places)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_what_is_unavailable_is_avoided(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    places[1].available = False
    balancer = make(kind, places, draw)
    assert {balancer.pick(placed(), ()) for _ in range(200)} == {places[0], places[2]}


def test_all_are_used_when_most_are_unavailable(kind: str, draw: Draw) -> None:
    places = endpoints(1, 1, 1)
    places[0].available = places[1].available = False
    balancer = make(kind, places, draw)
    assert {balancer.pick(placed(), ()) for _ in range(200)} == set(places)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 2, 7), (1, 99)])
def test_weights_are_respected(kind: str, weights: tuple[int, ...], draw: Draw) -> None:
    places = endpoints(*weights)
    balancer = make(kind, places, draw)
    rounds = 20000
    counts = Counter(balancer.pick(placed(), ()) for _ in range(rounds))
    for place in places:
        assert counts[place] / rounds == pytest.approx(place.weight / sum(weights), abs=0.02)


def test_none_is_picked_when_none_is_available_and_there_is_no_panic(kind: str, draw: Draw) -> None:
    for weights in ((1,), (1, 1), (1, 2, 3)):
        places = endpoints(*weights)
        for place in places:
            place.available = False
        assert make(kind, places, draw, panic=0.0).pick(placed(), ()) is None


def test_a_few_that_are_available_are_enough_where_there_is_no_panic(kind: str, draw: Draw) -> None:
    places = endpoints(1, 1, 1)
    places[0].available = places[1].available = False
    balancer = make(kind, places, draw, panic=0.0)
    assert {balancer.pick(placed(), ()) for _ in range(100)} == {places[2]}


class Slots(list[int]):
    """The owners of slots, which counts how many of them were looked at."""

    looked = 0

    def __getitem__(self, place: Any) -> Any:
        self.looked += 1
        return super().__getitem__(place)


class Table:
    """Slots of two endpoints in turns."""

    owners = Slots([0, 1] * 1000)

    def slot(self, key: int) -> int:
        return key % len(self.owners)


def test_of_a_table_no_more_is_looked_at_than_decides(draw: Draw) -> None:
    places, table = endpoints(1, 1), Table()
    balancer = Hashed(places, draw, 0.5, table, 0)
    assert {balancer.pick(placed(), places[:1]) for _ in range(100)} == {places[1]}
    assert table.owners.looked <= 300  # a table of the default size holds a worker up for 2 ms


def test_least_request_takes_the_less_busy_of_two() -> None:
    busy, idle = places = endpoints(1, 1)
    busy.active, idle.active = 5, 1
    for chances in ((0.0, 0.9), (0.9, 0.0)):
        assert LeastRequest(places, iter(chances).__next__).pick(placed(), ()) is idle


def test_least_request_counts_load_in_proportion_to_weight() -> None:
    heavy, light = places = endpoints(10, 1)
    heavy.active, light.active = 9, 1
    for chances in ((0.0, 0.99), (0.99, 0.0)):
        assert LeastRequest(places, iter(chances).__next__).pick(placed(), ()) is heavy
