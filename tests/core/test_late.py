"""Responses that go to the caller later than they came: paced, or shut in until somebody says open."""

from collections.abc import Callable
from typing import Any, Final, final

import pytest

from sidecar.core.api import Answer, HttpFilter
from sidecar.core.exchange import Exchange
from sidecar.core.late import LateSide, late
from sidecar.traffic.pace import Bucket
from sidecar.wire.fields import ResponseHead
from tests.core.asking import HTTP1, HTTP2, PROTOCOLS, Asked, ask
from tests.core.harness import GET, OK, Harness
from tests.core.http2_peer import CONNECT
from tests.core.transport import RESET, FakeTransport

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
RATE: Final = 1000


@final
class Paced(HttpFilter):
    """Paces every response by the buckets it was given."""

    def __init__(self, *buckets: Bucket) -> None:
        self.buckets = buckets

    def on_request(self, exchange: Exchange) -> None:
        for bucket in self.buckets:
            late(exchange).pace(bucket)


@final
class Shut(HttpFilter):
    """Shuts every response in."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.exchange: Exchange | None = None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        self.exchange = exchange
        for _ in range(self.times):
            late(exchange).shut()

    @property
    def side(self) -> LateSide:
        assert self.exchange is not None
        return late(self.exchange)


def body(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


def response(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body(size)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def asked(make: Make, protocol: str, *filters: HttpFilter, **config: Any) -> tuple[Harness, Asked]:
    harness = make(filters=filters, **config)
    harness.connects_at_once = True
    return harness, ask(harness, protocol)


def with_trailers(asked: Asked) -> tuple[bytes, bytes]:
    """Return the body and the trailer `x-t` of an answer over HTTP/2."""
    peer = asked.peer
    assert peer is not None
    got = peer[1]
    assert got.ended
    _, trailers = got.heads
    return got.data, dict(trailers)[b"x-t"]


def arrived(asked: Asked) -> int:
    """Return how many octets of a body have come, over HTTP/1 the head's among them."""
    return len(asked.transport.got)


@BOTH
def test_a_response_that_came_at_once_goes_at_its_rate(make: Make, protocol: str) -> None:
    harness, caller = asked(make, protocol, Paced(Bucket(RATE)))
    harness.upstreams[0].send(response(1100))
    begun = arrived(caller)  # a tenth of a second's worth, and the head
    for tenth in range(1, 10):
        harness.advance(0.1)
        assert abs(arrived(caller) - begun - 100 * tenth) <= 120  # frames of HTTP/2 have heads
    assert harness.outcomes == []
    harness.advance(0.2)
    assert caller.answer().body == body(1100)
    assert harness.outcomes[0][:3] == (200, "", "")
    assert harness.outcomes[0].bytes_out == 1100


@BOTH
def test_what_has_room_is_not_late(make: Make, protocol: str) -> None:
    harness, caller = asked(make, protocol, Paced(Bucket(RATE, 5000)))
    upstream = harness.upstreams[0]
    upstream.send(CHUNKED + b"3\r\nabc\r\n")
    upstream.send(b"2\r\nde\r\n")
    upstream.send(b"0\r\n\r\n")
    assert caller.answer().body == b"abcde"
    assert len(harness.outcomes) == 1


def test_the_connection_is_free_before_the_response_has_gone(make: Make) -> None:
    harness, _ = asked(make, HTTP1, Paced(Bucket(RATE)))
    harness.upstreams[0].send(response(500))
    assert harness.endpoint().idle == 1
    assert harness.outcomes == []
    harness.upstreams[0].lose()  # of no interest any more
    harness.advance(1)
    assert harness.outcomes[0][:2] == (200, "")


@BOTH
def test_the_endpoint_is_not_read_while_octets_wait(make: Make, protocol: str) -> None:
    harness, caller = asked(make, protocol, Paced(Bucket(RATE)))
    upstream = harness.upstreams[0]
    data = response(1000)
    upstream.send(data[:500])
    assert not upstream.is_reading()
    upstream.send(data[500:])
    assert upstream.waiting == len(data) - 500
    harness.advance(0.55)
    assert upstream.waiting == 0
    harness.advance(0.6)
    assert caller.answer().body == body(1000)


def test_a_body_in_pieces_and_trailers_keep_their_order(make: Make) -> None:
    harness, caller = asked(make, HTTP2, Paced(Bucket(RATE)))
    upstream = harness.upstreams[0]
    upstream.send(CHUNKED + b"64\r\n" + b"a" * 100 + b"\r\n")
    upstream.send(b"64\r\n" + b"b" * 100 + b"\r\n64\r\n" + b"c" * 100 + b"\r\n0\r\nx-t: 1\r\n\r\n")
    harness.advance(1)
    assert with_trailers(caller) == (b"a" * 100 + b"b" * 100 + b"c" * 100, b"1")


def test_of_two_rates_the_lower_counts_and_a_shared_one_is_shared(make: Make) -> None:
    shared = Bucket(RATE)
    harness = make(filters=(Paced(Bucket(10 * RATE), shared),))
    harness.connects_at_once = True
    callers = [ask(harness) for _ in range(2)]
    for upstream in harness.upstreams:
        upstream.send(response(1000))
    harness.advance(1.7)
    assert len(harness.outcomes) < 2
    harness.advance(0.4)
    assert [caller.answer().body for caller in callers] == [body(1000)] * 2


def test_a_caller_slower_than_the_rate_is_not_written_to(make: Make) -> None:
    harness, caller = asked(make, HTTP1, Paced(Bucket(10**6)))
    transport, upstream = caller.transport, harness.upstreams[0]
    transport.stall()
    upstream.send(response(600_000)[:-1])
    upstream.send(response(600_000)[-1:])
    harness.advance(5)
    assert transport.buffered < 300_000
    assert upstream.waiting == 1
    for _ in range(20):
        transport.catch_up(100_000)
        harness.advance(0.2)
    transport.catch_up()
    assert caller.answer().body == body(600_000)


def test_the_endpoint_is_read_on_only_by_who_is_paced(make: Make) -> None:
    harness, caller = asked(make, HTTP1, Paced(Bucket(10**6)))
    transport, upstream = caller.transport, harness.upstreams[0]
    transport.stall()
    upstream.send(response(600_000)[:300_000])
    harness.advance(0.25)
    assert transport.buffered > 131072  # full, and some still waits here
    transport.catch_up()
    assert not upstream.is_reading()
    harness.advance(1)
    assert upstream.is_reading()
    upstream.send(response(600_000)[300_000:])
    harness.advance(1)
    assert caller.answer().body == body(600_000)


def test_the_slowest_rate_sends_octet_by_octet(make: Make) -> None:
    harness, caller = asked(make, HTTP1, Paced(Bucket(2)))
    harness.upstreams[0].send(response(3))
    harness.advance(0.4)
    assert arrived(caller) == len(response(1))
    harness.advance(0.2)
    assert arrived(caller) == len(response(2))
    harness.advance(0.5)
    assert caller.answer().body == body(3)


def test_slow_is_not_idle(make: Make) -> None:
    harness, caller = asked(
        make,
        HTTP1,
        Paced(Bucket(RATE)),
        listener={"stream_idle_timeout": 0.3},
        route={"timeout": 1},
    )
    harness.upstreams[0].send(response(3000))
    harness.advance(3.2)
    assert caller.answer().body == body(3000)


@BOTH
def test_a_caller_that_goes_away_is_sent_nothing_more(make: Make, protocol: str) -> None:
    harness, caller = asked(make, protocol, Paced(Bucket(RATE)))
    harness.upstreams[0].send(response(1000))
    caller.transport.lose()
    assert harness.outcomes[0].code == "downstream-closed"
    harness.advance(2)
    assert len(harness.outcomes) == 1


@BOTH
def test_an_endpoint_lost_in_the_middle_cuts(make: Make, protocol: str) -> None:
    harness, caller = asked(make, protocol, Paced(Bucket(RATE)))
    harness.upstreams[0].send(response(1000)[:600])
    harness.upstreams[0].lose()
    if protocol == HTTP1:
        assert caller.transport.fate == RESET
    else:
        assert caller.is_reset
    assert harness.outcomes[0].code == "upstream-body-cut"
    harness.advance(2)


def test_the_next_request_is_answered_behind_the_late_response(make: Make) -> None:
    harness = make(filters=(Paced(Bucket(RATE)),))
    harness.connects_at_once = True
    caller = harness.open(GET * 2)
    harness.upstreams[0].send(response(500))
    assert len(harness.outcomes) == 0
    harness.advance(0.6)
    harness.upstreams[0].send(OK)
    assert caller.take() == response(500) + OK


@BOTH
def test_replies_of_ours_are_never_late(make: Make, protocol: str) -> None:
    harness = make(filters=(Paced(Bucket(1)),))
    asked = ask(harness, protocol)
    while harness.begun:
        harness.fail()
        harness.advance(1)
    assert asked.answer().status == 503


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("is_sent", [True, False])
def test_an_early_answer_may_be_late(make: Make, is_sent: bool) -> None:
    harness = make(filters=(Paced(Bucket(RATE)),))
    harness.connects_at_once = True
    caller = harness.open(POST)
    harness.upstreams[0].send(response(500))
    assert harness.outcomes == []
    if is_sent:
        caller.send(b"12345")
    harness.advance(1)
    assert caller.take().endswith(body(500))
    assert harness.outcomes[0][:2] == (200, "")


UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}


@pytest.mark.parametrize("first", ["caller", "rest"])
def test_a_tunnel_may_be_late(make: Make, first: str) -> None:
    harness = make(filters=(Paced(Bucket(RATE)),), **H2)
    caller = harness.open(UPGRADE)
    upstream = harness.serve(options=CONNECT)
    upstream.read()
    upstream.answer(1, end=False)
    upstream.say(1, body(500), end=True)
    caller.send(b"question")
    assert upstream[1].data == b"question"
    if first == "caller":
        caller.end()
        assert harness.outcomes == []
        harness.advance(1)
    else:
        harness.advance(1)
        assert harness.outcomes == []
        caller.end()
    assert caller.take().endswith(body(500))
    assert harness.outcomes[0][:2] == (101, "")


def test_what_is_on_its_way_when_the_endpoint_is_paused_waits_too(make: Make) -> None:
    harness = make(filters=(Paced(Bucket(RATE)),), **H2)
    caller = ask(harness, HTTP2)
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    for at in range(0, 500, 125):
        upstream.say(1, body(500)[at : at + 125])
    upstream.trail(1, [(b"x-t", b"1")])
    harness.advance(1)
    assert with_trailers(caller) == (body(500), b"1")


def test_the_last_that_waits_may_fill_the_caller(make: Make) -> None:
    harness, caller = asked(make, HTTP1, Paced(Bucket(10**6)))
    transport, upstream = caller.transport, harness.upstreams[0]
    transport.stall()
    upstream.send(response(300_000)[:150_000])
    harness.advance(0.2)
    assert transport.buffered == 150_000
    assert not upstream.is_reading()
    transport.catch_up()
    assert upstream.is_reading()
    upstream.send(response(300_000)[150_000:])
    harness.advance(0.3)
    assert caller.answer().body == body(300_000)


class BugError(Exception):
    """What no part expects."""


def test_a_loop_that_fails_us_ends_one_exchange(make: Make) -> None:
    harness, caller = asked(make, HTTP1, Paced(Bucket(RATE)))
    harness.upstreams[0].send(response(1000))
    caller.transport.faults["write"] = BugError()
    harness.advance(1)
    assert [type(bug) for bug in harness.bugs] == [BugError]
    harness.bugs.clear()
    assert caller.transport.fate == RESET
    assert harness.outcomes[0].code == "internal-error"


# Shut in:


@BOTH
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_response_is_shut_in_until_it_is_let_out(
    make: Make, protocol: str, is_whole: bool
) -> None:
    shut = Shut()
    harness, caller = asked(make, protocol, shut)
    upstream = harness.upstreams[0]
    upstream.send(OK if is_whole else OK[:-1])
    harness.advance(1)
    assert not caller.is_answered
    shut.side.open()
    if not is_whole:
        upstream.send(OK[-1:])
    assert caller.answer().body == b"ok"
    assert harness.outcomes[0][:2] == (200, "")


def test_body_and_trailers_wait_with_the_head(make: Make) -> None:
    shut = Shut()
    harness, caller = asked(make, HTTP2, shut)
    harness.upstreams[0].send(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\nx-t: 1\r\n\r\n")
    assert not caller.is_answered
    shut.side.open()
    assert with_trailers(caller) == (b"abcdef", b"1")


def test_it_is_let_out_when_the_last_who_shut_it_in_says_so(make: Make) -> None:
    shut = Shut(times=2)
    harness, caller = asked(make, HTTP1, shut)
    harness.upstreams[0].send(OK)
    shut.side.open()
    assert not caller.is_answered
    shut.side.open()
    assert caller.answer().body == b"ok"


@BOTH
def test_what_was_shut_in_is_paced_when_it_is_out(make: Make, protocol: str) -> None:
    shut = Shut()
    harness, caller = asked(make, protocol, Paced(Bucket(RATE)), shut)
    harness.upstreams[0].send(response(600)[:-1])
    harness.advance(1)
    shut.side.open()
    assert harness.outcomes == []
    harness.advance(0.6)
    harness.upstreams[0].send(response(600)[-1:])
    harness.advance(0.6)
    assert caller.answer().body == body(600)


def test_a_paced_end_with_trailers_comes_last(make: Make) -> None:
    shut = Shut()
    harness, caller = asked(make, HTTP2, Paced(Bucket(RATE)), shut)
    piece = b"c8\r\n" + b"x" * 200 + b"\r\n"
    harness.upstreams[0].send(CHUNKED + piece + b"0\r\nx-t: 1\r\n\r\n")
    shut.side.open()
    harness.advance(0.5)
    assert with_trailers(caller) == (b"x" * 200, b"1")


@BOTH
@pytest.mark.parametrize("is_whole", [True, False])
def test_another_answer_takes_its_place(make: Make, protocol: str, is_whole: bool) -> None:
    shut = Shut()
    harness, caller = asked(make, protocol, shut)
    harness.upstreams[0].send(OK if is_whole else OK[:-1])
    shut.side.refuse(Answer("fault-abort", 418))
    assert caller.answer().status == 418
    assert harness.outcomes[0][:3] == (418, "fault-abort", "FI")


def test_a_grpc_call_is_answered_so_too(make: Make) -> None:
    shut = Shut()
    harness = make(filters=(shut,))
    harness.connects_at_once = True
    asked = ask(harness, HTTP1, "/s/m", ("Content-Type", "application/grpc"), method="POST")
    harness.upstreams[0].send(CHUNKED)
    shut.side.refuse(Answer("fault-abort", grpc_status=7))
    assert asked.answer().fields[b"grpc-status"] == b"7"


def test_nobody_is_let_out_to_a_caller_that_is_gone(make: Make) -> None:
    shut = Shut()
    harness, caller = asked(make, HTTP1, shut)
    side = None
    harness.upstreams[0].send(OK[:-1])
    side = shut.side
    caller.transport.lose()
    side.open()
    assert harness.outcomes[0].code == "downstream-closed"


def test_interim_responses_and_pauses_pass(make: Make) -> None:
    harness = make(filters=(Paced(Bucket(RATE)),))
    caller = harness.open(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 400000\r\n\r\n"
    )
    upstream: FakeTransport = harness.connect()
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert caller.take().startswith(b"HTTP/1.1 100")
    upstream.stall()
    caller.send(b"x" * 200_000)
    assert not caller.is_reading()
    upstream.catch_up()
    assert caller.is_reading()
    caller.send(b"x" * 200_000)
    upstream.send(OK)
    assert caller.take() == OK
