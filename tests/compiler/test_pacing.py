"""What can be said wrongly about limits of connections and octets, and how workers share them."""

from typing import Any

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.core.types import Caller
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree

LISTENER = "outbound[0]"


def told(**config: Any) -> list[tuple[str, str]]:
    try:
        check(decode(tree(**config), Snapshot), None)
    except ConfigErrors as errors:
        return [(error.path, error.detail) for error in errors.errors]
    return []


@pytest.mark.parametrize(
    ("limit", "path", "detail"),
    [
        ({}, "", "does nothing: expected up or down"),
        ({"up": 1023}, ".up", "expected at least 1024 octets a second for each worker"),
        ({"down": 1}, ".down", "expected at least 1024 octets a second for each worker"),
    ],
)
def test_a_rate_must_be_one(limit: dict[str, Any], path: str, detail: str) -> None:
    for config, place in (
        ({"listener": {"bandwidth_limits": [limit]}}, f"{LISTENER}.bandwidth_limits[0]"),
        ({"route": {"bandwidth_limits": [limit]}}, f"{LISTENER}.routes[0].bandwidth_limits[0]"),
    ):
        assert told(**config) == [(place + path, detail)]


def test_a_limit_of_connections_says_whose() -> None:
    limits = [{"connections": 1, "by": by} for by in ([], ["source"], ["peer"], ["source"])]
    assert told(listener={"connection_limits": limits}) == [
        (
            f"{LISTENER}.connection_limits[0].by",
            "expected peer, source or both; for all there is `max_connections`",
        ),
        (f"{LISTENER}.connection_limits[3].by", "there is a limit by the same already"),
    ]


def test_a_listener_does_not_hold_callers_to_less_than_it_asks_of_them() -> None:
    def limited(up: int, lowest: int) -> dict[str, Any]:
        return {"bandwidth_limits": [{"up": up}], "min_request_rate": lowest}

    assert told(listener=limited(2000, 2000)) == []
    assert told(listener=limited(2000, 2001)) == [
        (
            f"{LISTENER}.bandwidth_limits[0].up",
            "is slower than the listener's min_request_rate of 2001",
        )
    ]


def test_a_tcp_listener_limits_its_sessions_itself() -> None:
    limit = {"bandwidth_limits": [{"up": "1MiB"}]}
    assert told(protocol="tcp", listener=limit) == []
    assert told(protocol="tcp", route=limit) == [
        (f"{LISTENER}.routes[0].bandwidth_limits", "of a tcp listener are the listener's own")
    ]


def test_workers_share_what_is_allowed() -> None:
    said = tree(
        listener={
            "connection_limits": [{"connections": 9}, {"connections": 3, "by": ["peer"]}],
            "bandwidth_limits": [{"up": 40_000, "burst": 80_000}],
        }
    )
    said["process"] = {"workers": 4}
    plan = compile_snapshot(decode(said, Snapshot), None, Book(), no_dial)
    gate = plan.listeners["127.0.0.1:15001"].gate
    assert gate is not None
    assert [most.limit for most in gate._mosts] == [2, 1]
    assert [most.name for most in gate._mosts] == ["connections by source", "connections by peer"]
    (pace,) = gate._paces
    assert pace.down is None
    assert pace.up is not None
    bucket = pace.up.take(pace.naming(Caller("a", 1)), 0.0)
    assert bucket.room(0.0) == 20_000
    bucket.spend(20_000)
    assert bucket.room(1.0) == 10_000


def test_a_listener_without_limits_has_no_gate() -> None:
    plan = compile_snapshot(decode(tree(), Snapshot), None, Book(), no_dial)
    assert plan.listeners["127.0.0.1:15001"].gate is None
