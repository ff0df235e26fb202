"""What can be said wrongly about stores, and about rules that are shared."""

from typing import Any

import pytest

from sidecar.compiler.snapshot import check, compile_snapshot, no_dial
from sidecar.core.book import Book
from sidecar.errors import ConfigErrors
from sidecar.filters.shared_rate_limit import SharedRateLimit
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import tree

GOOD = "redis://cache.internal:6380/3"
SHARED = "outbound[0].routes[0].rate_limits[0].shared"


def told(stores: list[dict[str, Any]], *rules: dict[str, Any]) -> list[tuple[str, str]]:
    said = tree(stores=stores, route={"rate_limits": list(rules)})
    try:
        check(decode(said, Snapshot), None)
    except ConfigErrors as errors:
        return [(error.path, error.detail) for error in errors.errors]
    return []


def rule(**shared: Any) -> dict[str, Any]:
    return {"name": "one", "requests": 9, "shared": {"store": "far", **shared}}


@pytest.mark.parametrize(
    "url",
    [
        GOOD,
        "redis://cache",
        "redis://cache/",
        "redis://[::1]:6379/0",
        "rediss://cache:6379",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_places_that_a_redis_may_have(url: str) -> None:
    assert told([{"name": "far", "redis": url}]) == []


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("", "expected redis://, rediss:// or unix://, got 'nothing'"),
        ("cache:6379", "expected redis://, rediss:// or unix://, got 'cache'"),
        ("http://cache", "expected redis://, rediss:// or unix://, got 'http'"),
        (
            "redis://:secret@cache",
            "expected no user and no password: use `username` and `password_file`",
        ),
        (
            "redis://me@cache",
            "expected no user and no password: use `username` and `password_file`",
        ),
        ("redis:///0", "expected redis://host:port/database"),
        ("redis://cache/x", "expected redis://host:port/database"),
        ("redis://cache?db=1", "expected redis://host:port/database"),
        ("redis://cache:0", "expected a port from 1 to 65535, got 0"),
        ("redis://cache:99999", "not a URL: Port out of range 0-65535"),
        ("redis://[::1", "not a URL: Invalid IPv6 URL"),
        ("unix://", "expected unix:///path or unix:///path?db=NUMBER"),
        ("unix:///run/x?db=a", "expected unix:///path or unix:///path?db=NUMBER"),
    ],
)
def test_and_those_that_it_may_not_have(url: str, detail: str) -> None:
    assert told([{"name": "far", "redis": url}]) == [("stores[0].redis.url", detail)]


def test_stores_have_names_and_different_ones() -> None:
    assert told([{"name": "", "redis": GOOD}, *[{"name": "a", "redis": GOOD}] * 2]) == [
        ("stores[0].name", "expected a name, got an empty text"),
        ("stores[2].name", "'a' is defined twice"),
    ]


def test_what_is_for_tls_needs_it_and_a_certificate_its_key() -> None:
    needs = "needs a url that begins with rediss://"
    tls = {"roots": "r.pem", "certificate": "c.pem"}
    pair = ("stores[0].redis", "expected both of certificate and key, or neither")
    assert told([{"name": "a", "redis": {"url": GOOD, **tls}}]) == [
        ("stores[0].redis.roots", needs),
        ("stores[0].redis.certificate", needs),
        pair,
    ]
    assert told([{"name": "a", "redis": {"url": "rediss://cache", **tls}}]) == [pair]
    assert told([{"name": "a", "redis": {"url": "rediss://cache", **tls, "key": "k.pem"}}]) == []


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_nobody_answers_in_no_time(name: str) -> None:
    assert told([{"name": "a", "redis": {"url": GOOD, name: 0}}]) == [
        (f"stores[0].redis.{name}", "expected more than 0")
    ]


def test_a_rule_names_a_store_that_is_there() -> None:
    assert told([{"name": "fat", "redis": GOOD}], rule()) == [
        (f"{SHARED}.store", "no store is named 'far' (did you mean 'fat'?)")
    ]
    assert told([], rule()) == [(f"{SHARED}.store", "no store is named 'far'")]


def test_sidecars_must_know_what_to_call_a_rule() -> None:
    far = [{"name": "far", "redis": GOOD}]
    assert told(far, {"requests": 9, "shared": "far"}) == [
        (
            f"{SHARED}.key",
            "expected a name, here or as `name` of the rule: sidecars share it by that",
        )
    ]
    assert told(far, {"requests": 9, "shared": {"store": "far", "key": "x"}}) == []
    assert told(far, {"requests": 9, "shared": {}}) == []


def test_what_else_may_be_wrong_with_a_shared_rule() -> None:
    far = [{"name": "far", "redis": GOOD}]
    assert told(far, rule(timeout=0)) == [(f"{SHARED}.timeout", "expected more than 0")]
    assert told(far, rule(on_failure="open", local_requests=3)) == [
        (f"{SHARED}.local_requests", "needs `on_failure: local`")
    ]


def test_what_is_kept_meanwhile_is_shared_by_the_workers() -> None:
    said = tree(
        stores=[{"name": "far", "redis": GOOD}],
        route={"rate_limits": [rule(local_requests=8), rule(), rule(on_failure="closed")]},
    )
    said["process"] = {"workers": 4}
    plan = compile_snapshot(decode(said, Snapshot), None, Book(), no_dial)
    route = plan.listeners["127.0.0.1:15001"].routes.find_name("")
    assert route is not None
    filters = [f for f in route.on_request if isinstance(f, SharedRateLimit)]
    rates = [(f.settings.share.rate.interval, f.settings.share.rate.burst) for f in filters]
    assert rates == [(1 / 9, 9)] * 3  # of the store: the whole
    local = [f.settings.local for f in filters]
    assert [x and (x.limit, x.rate.interval, x.rate.burst) for x in local] == [
        (8, 1 / 2, 2),
        (9, 4 / 9, 2),
        None,
    ]
