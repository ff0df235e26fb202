"""A request's body that comes no faster than it may, whoever else wants it slower."""

from collections.abc import Callable
from typing import Any

from sidecar.core.late import late
from sidecar.core.meter import meter
from sidecar.core.tap import Tap
from tests.core.harness import OK, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

RATE = 10_000


def limited(make: Make, *limits: dict[str, Any]) -> Harness:
    rules = list(limits or ({"up": RATE},))
    harness = make(route={"bandwidth_limits": rules, "buffer_limit": 0, "timeout": 0})
    harness.connects_at_once = True
    return harness


def post(size: int, sent: int = 0) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"b" * sent


def body_of(endpoint: FakeTransport) -> int:
    return len(endpoint.got.partition(b"\r\n\r\n")[2])


def test_a_body_is_read_as_fast_as_the_rate_allows(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(6000))
    for _ in range(6):
        caller.send(b"b" * 1000)
    (endpoint,) = harness.upstreams
    assert 1_000 <= body_of(endpoint) <= 2_000  # what may pass at once, and the read that is beyond
    assert caller.waiting >= 4_000
    harness.advance(0.25)
    assert 3_000 <= body_of(endpoint) <= 4_500
    harness.advance(0.5)
    assert body_of(endpoint) == 6000
    endpoint.send(OK)
    assert caller.take().endswith(b"ok")


def test_what_comes_with_the_head_is_paid_for_too(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(6000, 5000))
    (endpoint,) = harness.upstreams
    caller.send(b"b" * 1000)
    assert body_of(endpoint) == 5000
    harness.advance(0.39)
    assert body_of(endpoint) == 5000
    harness.advance(0.1)
    assert body_of(endpoint) == 6000
    endpoint.send(OK)


def test_over_http2_the_stream_alone_is_held(make: Make) -> None:
    harness = limited(make)
    peer: Peer = harness.call(polite=True)
    one = peer.ask(b"POST", b"/", [], authority=b"a", end=False)
    peer.say(one, b"b" * 4000)
    peer.say(one, b"b" * 1000)
    assert peer[one].granted == 0
    other = peer.ask(b"GET", b"/", [], authority=b"a")
    harness.upstreams[1].send(OK)
    assert peer[other].status == 200
    harness.advance(0.6)
    peer.say(one, b"", end=True)
    harness.upstreams[0].send(OK)
    assert peer[one].status == 200


def test_an_endpoint_that_is_full_is_waited_for_beside_the_rate(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(400_000))
    (endpoint,) = harness.upstreams
    endpoint.stall()
    caller.send(b"b" * 200_000)  # a debt of 20 seconds, and more than the endpoint takes
    caller.send(b"b" * 200_000)
    harness.advance(25.0)
    assert caller.waiting == 200_000  # the rate would allow it now
    endpoint.catch_up()
    assert caller.waiting == 0
    endpoint.stall()
    harness.advance(1.0)
    endpoint.catch_up()  # before its time
    harness.advance(25.0)
    endpoint.send(OK)
    assert caller.take().endswith(b"ok")


def test_an_endpoint_that_is_ready_before_the_rate_is_changes_nothing(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(400_000))
    (endpoint,) = harness.upstreams
    endpoint.stall()
    caller.send(b"b" * 200_000)
    endpoint.catch_up()
    caller.send(b"b" * 200_000)
    assert caller.waiting == 200_000
    harness.advance(21.0)
    assert caller.waiting == 0
    harness.advance(21.0)
    endpoint.send(OK)


def test_all_rates_hold(make: Make) -> None:
    harness = limited(make, {"up": RATE}, {"up": RATE // 2}, {"down": RATE})
    caller = harness.open(post(6000))
    for _ in range(6):
        caller.send(b"b" * 1000)
    harness.advance(0.5)
    assert 2_500 <= body_of(harness.upstreams[0]) <= 4_000
    harness.advance(1.0)
    harness.upstreams[0].send(OK)
    assert caller.take().endswith(b"ok")


def test_a_caller_that_goes_away_meanwhile_leaves_nothing(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(6000, 5000))
    caller.lose()
    harness.advance(5.0)
    assert harness.outcomes[0].code == "downstream-closed"


def test_an_answer_that_comes_early_ends_it(make: Make) -> None:
    harness = limited(make)
    caller = harness.open(post(6000, 5000))
    harness.upstreams[0].send(OK)
    assert caller.take().endswith(b"ok")
    caller.send(b"b" * 1000)
    harness.advance(5.0)
    assert harness.outcomes[0].status == 200


def test_a_response_that_breaks_off_is_cut(make: Make) -> None:
    harness = limited(make, {"up": RATE})
    caller = harness.open(post(2000, 1500))
    endpoint = harness.upstreams[0]
    endpoint.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    endpoint.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    endpoint.send(b"1\r\nb\r\n")
    endpoint.lose()
    assert caller.take().startswith(b"HTTP/1.1 103")
    assert harness.outcomes[0].code == "upstream-body-cut"


def test_a_response_in_pieces_and_our_own_replies_pass_through(make: Make) -> None:
    harness = limited(make, {"up": RATE})
    caller = harness.open(post(1, 1))
    harness.upstreams[0].send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    harness.upstreams[0].send(b"1\r\nb\r\n0\r\n\r\n")
    assert caller.take().endswith(b"1\r\nb\r\n0\r\n\r\n")
    harness.connects_at_once = False
    harness.upstreams[0].lose()
    caller.send(post(1, 1))
    harness.fail()
    harness.advance(1.0)
    while harness.begun:
        harness.fail()
        harness.advance(1.0)
    assert caller.take().startswith(b"HTTP/1.1 503")


def test_one_late_side_serves_all_who_want_it_later(make: Make) -> None:
    harness = make()
    harness.open(post(10))
    (server,) = harness.listener.connections
    exchange: Any = getattr(server, "exchange")  # noqa: B009 - a connection need not have one
    first = late(exchange)
    metered = meter(exchange)
    assert [exchange.downstream, late(exchange), meter(exchange)] == [metered, first, metered]
    harness.callers[0].lose()
    assert [exchange.downstream, exchange.taps] == [server, ()]


def test_a_late_side_may_come_behind_a_meter(make: Make) -> None:
    harness = make()
    harness.open(post(10))
    (server,) = harness.listener.connections
    exchange: Any = getattr(server, "exchange")  # noqa: B009 - as above
    metered = meter(exchange)
    side = late(exchange)
    assert [exchange.downstream, late(exchange), meter(exchange)] == [side, side, metered]
    exchange.taps = (Tap([], 0, 9, lambda *told: None), *exchange.taps)
    assert meter(exchange) is metered
    exchange.taps = exchange.taps[1:]
    harness.callers[0].lose()
    assert [exchange.downstream, exchange.taps] == [server, ()]


def test_a_caller_that_we_slow_down_is_not_blamed_for_it(make: Make) -> None:
    rules = {"bandwidth_limits": [{"up": RATE}], "timeout": 0, "buffer_limit": 0}
    harness = make(route=rules, listener={"min_request_rate": 5_000})
    harness.connects_at_once = True
    caller = harness.open(post(500_001))
    (endpoint,) = harness.upstreams
    endpoint.stall()
    caller.send(b"b" * 500_000)  # paid for after 50 seconds
    endpoint.catch_up()  # that it takes more is not all that there is to it
    harness.advance(48.0)
    assert harness.outcomes == []
    harness.advance(25.0)  # now it could send its last octet, and does not
    assert harness.outcomes[0].code == "request-too-slow"
    assert caller.take().startswith(b"HTTP/1.1 408")
