"""Quota that is shared: who shares a bucket, and what becomes of requests while nobody can be asked."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.api import Sink
from sidecar.core.exchange import Exchange
from sidecar.core.limit import spell
from sidecar.telemetry.metrics import MetricsSink, quotas
from tests.core.asking import HTTP1, PROTOCOLS, ask
from tests.core.harness import Harness
from tests.core.keeper import Keeper

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
STORES = [{"name": "far", "redis": "redis://far"}]


def config(**rule: Any) -> dict[str, Any]:
    full = {"name": "one", "requests": 4, "per": "60s", "shared": "far", **rule}
    respond = {"status": 200, "body": "ok"}
    return {
        "stores": STORES,
        "route": {"cluster": "", "respond": respond, "rate_limits": [full]},
    }


def limited(make: Make, **rule: Any) -> tuple[Harness, Keeper]:
    harness = make(**config(**rule))
    return harness, Keeper(harness)


def away(make: Make, **rule: Any) -> Harness:
    harness, keeper = limited(make, **rule)
    keeper.is_there = False
    return harness


def statuses(harness: Harness, count: int) -> list[int]:
    return [ask(harness).answer().status for _ in range(count)]


def rows(harness: Harness) -> dict[str, tuple[Any, Any]]:
    return {name: (labels, values) for name, labels, values in quotas(harness.book)}


def test_each_combination_is_asked_about_by_a_name_that_tells_nothing(make: Make) -> None:
    harness, keeper = limited(make, by=["header:x-tenant", "method"])
    for tenant in ("acme", "acme", "umbrella", "x" * 99):
        ask(harness, HTTP1, "/", ("x-tenant", tenant))
    keys = [question.key for question in keeper.asked]
    assert len(keys) == len(set(keys)) == 3  # the second one waits for the first one's answer
    assert all(len(key) == 32 and "acme" not in key for key in keys)
    keeper.grant()
    keeper.grant()


def test_names_of_keys_differ_where_the_keys_do() -> None:
    keys = [(), (b"",), (b"", b""), (b"a", b"b"), (b"ab",), (b"a1:b",), (b"a", b"1:b")]
    assert len({spell(key) for key in keys}) == len(keys)


def test_a_rule_may_be_called_otherwise_in_the_store(make: Make) -> None:
    harness, keeper = limited(make, shared={"store": "far", "key": "checkout"})
    ask(harness)
    assert keeper.asked[0].rule == "checkout"
    keeper.grant()


def test_only_what_matches_is_asked_about(make: Make) -> None:
    harness, keeper = limited(make, match={"methods": ["DELETE"]})
    assert ask(harness).answer().status == 200
    assert keeper.asked == []
    asked = ask(harness, method="DELETE")
    keeper.grant(0, wait=1.0)
    assert asked.answer().status == 429


@BOTH
def test_what_a_caller_is_told_of_a_refusal(make: Make, protocol: str) -> None:
    harness, keeper = limited(make)
    asked = ask(harness, protocol)
    keeper.grant(0, wait=14.2, reset=59.5)
    seen = asked.answer()
    assert seen.status == 429
    assert {n: v for n, v in seen.fields.items() if not n.startswith(b"content")} == {
        b"ratelimit-limit": b"4",
        b"ratelimit-remaining": b"0",
        b"ratelimit-reset": b"60",
        b"ratelimit-policy": b"4;w=60",
        b"retry-after": b"15",
    }
    assert harness.outcomes[0][:3] == (429, "rate-limited", "RL")


def test_a_grpc_caller_has_exhausted_a_resource_or_finds_it_unavailable(make: Make) -> None:
    harness, keeper = limited(make, shared={"store": "far", "on_failure": "closed"})
    call = (HTTP1, "/s/m", ("Content-Type", "application/grpc"))
    asked = ask(harness, *call, method="POST")
    keeper.grant(0, wait=0.5)
    assert asked.answer().fields[b"grpc-status"] == b"8"
    harness.advance(0.6)
    asked = ask(harness, *call, method="POST")
    keeper.fail()
    assert asked.answer().fields[b"grpc-status"] == b"14"


def test_while_it_is_away_this_sidecar_keeps_the_rate_by_itself(make: Make) -> None:
    harness = away(make, per="1h")
    assert statuses(harness, 6) == [200] * 4 + [429] * 2
    seen = ask(harness).answer()
    assert seen.fields[b"ratelimit-limit"] == b"4"
    assert harness.outcomes[-1][:3] == (429, "rate-limited", "RL")
    label = ("limit", "one")
    found = {
        labels: values
        for name, labels, values in quotas(harness.book)
        if name == "sidecar_rate_limit_unasked_total"
    }
    assert found == {
        (label, ("decision", "local")): (4,),
        (label, ("decision", "refused")): (3,),
    }


def test_the_rate_kept_meanwhile_may_be_another(make: Make) -> None:
    harness = away(make, shared={"store": "far", "local_requests": 2})
    assert statuses(harness, 3) == [200, 200, 429]
    assert ask(harness).answer().fields[b"ratelimit-limit"] == b"2"


@pytest.mark.parametrize(("policy", "status", "flag"), [("open", 200, ""), ("closed", 503, "RLSE")])
def test_or_all_are_let_through_or_refused(make: Make, policy: str, status: int, flag: str) -> None:
    harness = away(make, shared={"store": "far", "on_failure": policy})
    assert statuses(harness, 9) == [status] * 9
    assert {outcome.flag for outcome in harness.outcomes} == {flag}
    assert rows(harness)["sidecar_rate_limit_unasked_total"] == (
        (("limit", "one"), ("decision", policy)),
        (9,),
    )
    assert harness.sink.exchanges[0].fields == {"rate_limit_unasked": "one"}


def test_a_shadow_rule_only_tells(make: Make) -> None:
    told: list[dict[str, str] | None] = []

    class Keep(Sink):
        def exchange(self, exchange: Exchange) -> None:
            told.append(exchange.fields)

    harness, keeper = limited(
        make, shadow=True, shared={"store": "far", "on_failure": "closed", "timeout": "50ms"}
    )
    metrics = MetricsSink("web", "", 100)
    harness.engine.sinks = (*harness.engine.sinks, Keep(), metrics)
    first = ask(harness)
    keeper.grant()
    second = ask(harness)
    keeper.grant(0, wait=9.0)
    third = ask(harness)
    assert [one.answer().status for one in (first, second, third)] == [200] * 3
    harness.advance(10)
    last = ask(harness)
    keeper.fail()
    assert last.answer().status == 200
    refused = {"rate_limit_shadow": "one"}
    assert told == [None, refused, refused, {**refused, "rate_limit_unasked": "one"}]
    shadow = {name: values for name, _, values in metrics.rows()}["sidecar_rate_limit_shadow_total"]
    assert shadow == (3,)


def test_what_leases_cost_is_counted(make: Make) -> None:
    harness, keeper = limited(make)
    asked = ask(harness)
    keeper.grant()
    assert asked.answer().status == 200
    label = (("limit", "one"),)
    assert rows(harness) == {
        "sidecar_rate_limit_asks_total": (label, (1,)),
        "sidecar_rate_limit_granted_total": (label, (1,)),
        "sidecar_rate_limit_returned_total": (label, (0,)),
    }


def test_a_push_forgets_nothing_that_is_known_unless_the_rule_is_another(make: Make) -> None:
    harness, keeper = limited(make)
    asked = ask(harness)
    keeper.grant(0, wait=30.0)
    assert asked.answer().status == 429
    harness.swap(**config(), listener={"max_fields": 99})
    assert ask(harness).answer().status == 429
    harness.swap(**config(burst=9))
    asked = ask(harness)
    assert not asked.is_answered
    keeper.grant()
    assert asked.answer().status == 200
