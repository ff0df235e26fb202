"""Faults added at run time: where they go, that what is wrong is told, and that each ends."""

from typing import Any

import pytest

from sidecar.agent.faults import MOST, Faults
from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.fault import AddedFault
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree


class Words:
    """A source that says what the test wants."""

    name = "words"

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def load(self) -> Snapshot:
        return self.snapshot

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        return ConfigErrors([*errors.errors, ConfigError("", "located")])

    def watched(self) -> tuple[str, ...]:
        return ("a",)


class Desk:
    """Faults over one route called `all`, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.source = Words(decode(tree(route={"faults": [{"name": "own", "delay": 1}]}), Snapshot))
        self.faults = Faults(self.source, lambda: self.now)

    def add(self, route: str = "all", ttl: Any = 60, **fault: Any) -> int:
        said = {"route": route, "ttl": ttl, "fault": fault or {"abort": 503}}
        running = self.faults.load()
        return self.faults.add(decode(said, AddedFault), running, lambda s: check(s, None))

    def route(self) -> Route:
        return self.faults.load().outbound[0].routes[0]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_it_is_the_other_source_otherwise(desk: Desk) -> None:
    assert (desk.faults.name, desk.faults.watched()) == ("words", ("a",))
    assert desk.faults.load() is desk.source.snapshot
    (error,) = desk.faults.locate(ConfigErrors([])).errors
    assert error.detail == "located"


def test_a_fault_goes_before_those_of_the_config_and_ends(desk: Desk) -> None:
    assert [desk.add(), desk.add(name="mine", delay="2s", ttl="10s")] == [1, 2]
    faults = desk.route().faults
    assert [(f.name, f.lifetime) for f in faults] == [
        ("added#1", 60.0), ("mine", 10.0), ("own", 3600.0),
    ]  # fmt: skip
    desk.now += 9
    assert not desk.faults.expire()
    assert [row["seconds_left"] for row in desk.faults.rows()] == [51.0, 1.0]
    desk.now += 1
    assert desk.faults.expire()
    assert [(row["id"], row["route"]) for row in desk.faults.rows()] == [(1, "all")]
    assert desk.faults.remove(1)
    assert not desk.faults.remove(1)
    assert desk.faults.load() is desk.source.snapshot


def test_a_route_that_goes_and_comes_back_has_its_fault_again(desk: Desk) -> None:
    desk.add()
    before = desk.source.snapshot
    desk.source.snapshot = decode(tree(route={"name": "other"}), Snapshot)
    assert desk.route().faults == ()
    desk.source.snapshot = before
    assert len(desk.route().faults) == 2


@pytest.mark.parametrize(
    ("said", "path", "text"),
    [
        ({"route": "al"}, "route", "no route is called 'al'; there are: all"),
        ({"route": ""}, "route", "no route is called ''; there are: all"),
        ({"ttl": 0}, "ttl", "expected more than 0"),
        (
            {"name": "idle"},
            "outbound[0].routes[0].faults[0]",
            "does nothing: expected delay, abort, throughput or by_header",
        ),
    ],
)
def test_what_is_wrong_is_told_and_leaves_nothing(
    desk: Desk, said: dict[str, Any], path: str, text: str
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        desk.add(**said)
    assert [(e.path, e.detail) for e in caught.value.errors] == [(path, text)]
    assert len(desk.faults) == 0


def test_there_is_a_limit(desk: Desk) -> None:
    for _ in range(MOST):
        desk.add()
    with pytest.raises(ConfigErrors, match="100 faults are under way already"):
        desk.add()


def test_the_cluster_of_a_listener_is_the_name_of_its_only_route(desk: Desk) -> None:
    config = tree(protocol="tcp")
    config["outbound"][0].pop("routes")
    config["outbound"][0]["cluster"] = "app"
    desk.source.snapshot = decode(config, Snapshot)
    desk.add("app", abort={"reset": True})
    listener = desk.faults.load().outbound[0]
    assert listener.cluster == ""
    assert [(r.name, r.cluster, len(r.faults)) for r in listener.routes] == [("app", "app", 1)]
    desk.faults.remove(1)
    assert desk.faults.load() is desk.source.snapshot
