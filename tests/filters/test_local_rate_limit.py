"""Quota of one worker: who shares a bucket, and what is said to who has emptied it."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.api import Sink
from sidecar.core.exchange import Exchange
from sidecar.telemetry.metrics import MetricsSink
from tests.core.asking import HTTP1, PROTOCOLS, ask
from tests.core.harness import OK, Harness

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
ONE = {"name": "one", "requests": 1, "per": "60s"}
PEER = "spiffe://cluster.local/ns/default/sa/api"


def limited(make: Make, *rules: dict[str, Any], role: str = "outbound") -> Harness:
    harness = make(role=role, route={"rate_limits": list(rules)})
    harness.connects_at_once = True
    return harness


def is_taken(harness: Harness, *request: Any, **more: Any) -> bool:
    """Ask, answer what goes up, and say whether it did."""
    asked = ask(harness, *request, **more)
    for upstream in harness.upstreams:
        if upstream.take():
            upstream.send(OK)
    return asked.answer().status == 200


@BOTH
def test_what_is_over_the_rate_is_refused_and_told_when_to_come_again(
    make: Make, protocol: str
) -> None:
    harness = limited(make, {"requests": 10, "per": "60s", "burst": 2})
    assert [is_taken(harness, protocol) for _ in range(2)] == [True, True]
    seen = ask(harness, protocol).answer()
    assert seen.status == 429
    assert {n: v for n, v in seen.fields.items() if not n.startswith(b"content")} == {
        b"ratelimit-limit": b"10",
        b"ratelimit-remaining": b"0",
        b"ratelimit-reset": b"12",
        b"ratelimit-policy": b"10;w=60",
        b"retry-after": b"6",
    }
    assert b"(code rate-limited, flag RL, route all, limit all#0, request" in seen.body
    assert harness.outcomes[2][:3] == (429, "rate-limited", "RL")
    harness.advance(6.1)
    assert is_taken(harness, protocol)
    assert not is_taken(harness, protocol)


def test_a_grpc_caller_has_exhausted_a_resource(make: Make) -> None:
    harness = limited(make, ONE)
    call = (HTTP1, "/s/m", ("Content-Type", "application/grpc"))
    assert is_taken(harness)
    seen = ask(harness, *call, method="POST").answer()
    assert (seen.status, seen.fields[b"grpc-status"]) == (200, b"8")
    assert seen.fields[b"retry-after"] == b"60"


@pytest.mark.parametrize(
    ("by", "one", "other"),
    [
        ("source", {"source": "10.0.0.1"}, {"source": "10.0.0.2"}),
        ("path", {"target": "/a?x"}, {"target": "/b?x"}),
        ("method", {"method": "GET"}, {"method": "DELETE"}),
        ("host", {"host": "a"}, {"host": "b"}),
        ("peer", {"identity": PEER}, {"identity": PEER + "2"}),
        ("header:X-T", {"fields": [("x-t", "1")]}, {"fields": [("x-t", "2")]}),
        ("header:X-T", {"fields": [("x-t", "1" * 99)]}, {"fields": [("x-t", "1" * 98)]}),
        ("header:X-T", {"fields": [("x-t", "1")]}, {}),
    ],
)
def test_whoever_differs_in_the_key_has_a_rate_of_its_own(
    make: Make, by: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    harness = limited(make, {**ONE, "by": [by]}, role="inbound")

    def taken(asked: dict[str, Any]) -> bool:
        more = dict(asked)
        return is_taken(harness, HTTP1, more.pop("target", "/"), *more.pop("fields", ()), **more)

    assert [taken(one), taken(other), taken(one), taken(other)] == [True, True, False, False]


def test_a_key_may_be_a_combination(make: Make) -> None:
    harness = limited(make, {**ONE, "by": ["path", "method"]})
    requests = [("/a", "GET"), ("/b", "GET"), ("/a", "DELETE"), ("/a", "GET")]
    found = [is_taken(harness, HTTP1, target, method=method) for target, method in requests]
    assert found == [True, True, True, False]


def test_only_what_matches_is_counted(make: Make) -> None:
    harness = limited(make, {**ONE, "match": {"methods": ["DELETE"]}})
    assert [is_taken(harness) for _ in range(3)] == [True] * 3
    assert [is_taken(harness, method="DELETE") for _ in range(2)] == [True, False]


def test_all_rules_must_have_room(make: Make) -> None:
    harness = limited(make, {**ONE, "requests": 5}, ONE)
    assert [is_taken(harness) for _ in range(2)] == [True, False]


def test_keys_over_the_limit_share_one_rate(make: Make) -> None:
    harness = limited(make, {**ONE, "by": ["path"], "max_keys": 2})
    found = [is_taken(harness, HTTP1, path) for path in ("/a", "/b", "/c", "/d", "/a")]
    assert found == [True, True, True, False, False]


def test_a_shadow_rule_only_tells(make: Make) -> None:
    told: list[dict[str, str] | None] = []

    class Keep(Sink):
        def exchange(self, exchange: Exchange) -> None:
            told.append(exchange.fields)

    harness = limited(make, {**ONE, "shadow": True})
    metrics = MetricsSink("web", "", 100)
    harness.engine.sinks = (*harness.engine.sinks, Keep(), metrics)
    assert [is_taken(harness) for _ in range(2)] == [True, True]
    assert told == [None, {"rate_limit_shadow": "one"}]
    rows = {name: (labels, values) for name, labels, values in metrics.rows()}
    assert rows["sidecar_rate_limit_shadow_total"] == ((("limit", "one"),), (1,))


def test_a_push_gives_nothing_back_unless_the_rule_is_another(make: Make) -> None:
    harness = limited(make, ONE)
    assert is_taken(harness)
    harness.swap(route={"rate_limits": [ONE], "buffer_limit": 1})
    assert not is_taken(harness)
    harness.swap(route={"rate_limits": [{**ONE, "burst": 2}]})
    assert is_taken(harness)
