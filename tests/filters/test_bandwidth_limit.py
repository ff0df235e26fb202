"""Bodies of a route that keep a rate: who shares it, and that what was used stays used."""

from collections.abc import Callable
from typing import Any

from sidecar.filters.bandwidth_limit import BandwidthLimit
from tests.core.harness import GET, Harness

Make = Callable[..., Harness]


def limited(make: Make, **limit: Any) -> Harness:
    harness = make(route={"bandwidth_limits": [limit]})
    harness.connects_at_once = True
    return harness


def answer(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"r" * size


def post(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size


def body_of(transport: Any) -> int:
    return len(transport.got.partition(b"\r\n\r\n")[2])


def test_responses_come_at_the_rate_their_heads_at_once(make: Make) -> None:
    harness = limited(make, down=10_000)
    caller = harness.open(GET)
    harness.upstreams[0].send(answer(5000))
    assert body_of(caller) == 1000
    harness.advance(0.25)
    assert 2_500 <= body_of(caller) <= 3_500
    harness.advance(0.3)
    assert body_of(caller) == 5000
    assert harness.outcomes[0][:2] == (200, "")


def test_callers_share_a_rate_unless_it_goes_by_who_they_are(make: Make) -> None:
    for by, alone in (([], False), (["source"], True)):
        harness = limited(make, down=10_000, by=by)
        callers = [harness.open(GET, host=f"10.0.0.{n}") for n in range(2)]
        for upstream in harness.upstreams:
            upstream.send(answer(9000))
        harness.advance(0.5)
        both = sum(body_of(caller) for caller in callers)
        assert (9_500 <= both <= 12_000) is alone
        assert (4_500 <= both <= 6_000) is not alone
        harness.advance(2.0)
        assert [body_of(caller) for caller in callers] == [9000, 9000]


def test_a_request_with_a_body_waits_until_those_before_it_are_paid_for(make: Make) -> None:
    harness = limited(make, up=10_000)
    peer = harness.call()
    for _ in range(3):
        peer.ask(b"POST", body=b"b" * 6000)
    peer.ask(b"GET")  # has nothing to pay
    waiting = [upstream.got.startswith(b"GET") for upstream in harness.upstreams]
    assert waiting == [False, True]
    harness.advance(0.52)
    assert len(harness.upstreams) == 3
    harness.advance(0.5)
    assert len(harness.upstreams) == 3
    harness.advance(0.12)
    assert len(harness.upstreams) == 4


def test_who_waits_for_its_turn_is_not_blamed_for_being_slow(make: Make) -> None:
    harness = make(
        route={"bandwidth_limits": [{"up": 10_000}], "timeout": 0},
        listener={"min_request_rate": 1_000},
    )
    harness.connects_at_once = True
    harness.open(post(300_000))
    slow = harness.open(post(300_000)[:-1])
    slow.send(b"b")
    harness.advance(25.0)
    assert len(harness.upstreams) == 1
    harness.advance(40.0)
    assert len(harness.upstreams) == 2
    assert harness.outcomes == []


def test_one_that_is_gone_before_its_turn_pays_nothing(make: Make) -> None:
    harness = limited(make, up=10_000)
    harness.open(post(6000))
    gone = harness.open(post(6000))
    gone.lose()
    harness.advance(0.52)
    harness.open(post(6000))
    assert len(harness.upstreams) == 2


def test_requests_are_slowed_and_not_their_answers(make: Make) -> None:
    harness = limited(make, up=10_000)
    caller = harness.open(post(3000))
    harness.upstreams[0].send(answer(50_000))
    assert body_of(caller) == 50_000
    caller.take()
    harness.upstreams[0].take()
    caller.send(post(3000))
    assert harness.upstreams[0].take() == b""
    harness.advance(0.22)
    assert harness.upstreams[0].take().startswith(b"POST")
    harness.upstreams[0].send(answer(1))
    assert body_of(caller) == 1


def test_nobody_counts_as_a_user_any_more_when_all_is_over(make: Make) -> None:
    harness = limited(make, up=10_000, down=10_000, by=["peer", "source"])
    caller = harness.open(post(3000))
    (route,) = {row[1] for row in harness.listener.plan.routes._any}
    (limit,) = [f for f in route.on_request if isinstance(f, BandwidthLimit)]
    assert len(limit.settings.active) == 1
    (buckets,) = limit.settings.active.values()
    assert [bucket.users for bucket in buckets] == [1, 1]
    caller.lose()
    assert limit.settings.active == {}
    assert [bucket.users for bucket in buckets] == [0, 0]


def test_a_push_keeps_what_was_used(make: Make) -> None:
    rule = {"bandwidth_limits": [{"down": 10_000}]}
    harness = make(route=rule)
    harness.connects_at_once = True
    harness.open(GET)
    harness.upstreams[0].send(answer(1000))
    harness.swap(route={**rule, "buffer_limit": 1})
    caller = harness.open(GET)
    harness.upstreams[0].send(answer(1000))
    assert body_of(caller) == 0
    harness.advance(0.2)
    assert body_of(caller) == 1000
