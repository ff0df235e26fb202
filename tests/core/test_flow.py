"""Back-pressure: who reads slowly slows the other side down, and no buffer grows without bounds."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, OK, WRITE_HIGH, Harness, forwarded
from tests.core.transport import CLOSED, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

PIECE = b"x" * 65536
PIECES = 20
SIZE = PIECES * len(PIECE)
BODY = PIECE * PIECES
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
BOUND = WRITE_HIGH + 2 * len(PIECE) + 1000  # octets: the mark, one read across it, and heads


def pour(source: FakeTransport, sink: FakeTransport) -> None:
    """Send all pieces from one end to the other, which does not read; it must be noticed."""
    sink.stall()
    for _ in range(PIECES):
        source.send(PIECE)
        assert sink.buffered < BOUND
    assert source.waiting + sink.buffered >= SIZE
    assert not source.is_reading()


def drained(source: FakeTransport, sink: FakeTransport) -> bytes:
    """Let the sink read, little by little and then all; return what it got."""
    while source.waiting:
        assert sink.buffered
        sink.catch_up(30_000)
        assert sink.buffered < BOUND
    sink.catch_up()
    assert source.is_reading()
    return sink.take()


def test_an_endpoint_that_reads_slowly_stops_the_caller(harness: Harness) -> None:
    caller = harness.open(POST)
    upstream = harness.connect()
    assert upstream.take() == forwarded(POST)
    pour(caller, upstream)
    assert drained(caller, upstream) == BODY
    upstream.send(OK)
    assert caller.take() == OK


def test_a_caller_that_reads_slowly_stops_the_endpoint(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(LONG)
    pour(upstream, caller)
    assert drained(upstream, caller) == LONG + BODY
    caller.send(GET)
    upstream.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("up", [True, False])
def test_a_tunnel_holds_both_directions_back(harness: Harness, up: bool) -> None:
    caller = harness.open(UPGRADE)
    upstream = harness.connect()
    upstream.send(SWITCH)
    upstream.take()
    caller.take()
    source, sink = (caller, upstream) if up else (upstream, caller)
    pour(source, sink)
    sink.send(b"the other way is open")
    assert source.take() == b"the other way is open"
    assert drained(source, sink) == BODY


@pytest.mark.parametrize("up", [True, False])
def test_a_session_holds_both_directions_back(make: Make, up: bool) -> None:
    harness = make(protocol="tcp")
    caller = harness.open()
    upstream = harness.connect()
    source, sink = (caller, upstream) if up else (upstream, caller)
    pour(source, sink)
    sink.send(b"the other way is open")
    assert source.take() == b"the other way is open"
    assert drained(source, sink) == BODY


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_what_comes_before_the_connection_is_bounded(make: Make, protocol: str) -> None:
    harness = make(protocol=protocol)
    head = POST if protocol == "http" else b""
    caller = harness.open(head)
    for _ in range(PIECES):
        caller.send(PIECE)
    assert caller.waiting >= SIZE - 2 * len(PIECE)
    upstream = harness.connect()
    assert upstream.take().endswith(BODY)
    assert caller.is_reading()


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_what_was_held_may_fill_the_connection(make: Make, protocol: str) -> None:
    harness = make(protocol=protocol)
    caller = harness.open((POST if protocol == "http" else b"") + PIECE * 3)
    caller.send(PIECE)
    upstream = harness.begun[0].connect(stalled=True)
    for _ in range(PIECES - 4):
        caller.send(PIECE)
    assert upstream.buffered < WRITE_HIGH + 3 * len(PIECE)
    assert not caller.is_reading()
    upstream.catch_up()
    assert upstream.take().endswith(BODY)
    assert caller.is_reading()


def test_a_caller_held_back_by_one_attempt_goes_on_with_the_next(make: Make) -> None:
    retry = {"on": ["reset"], "per_try_timeout": 1}
    harness = make(route={"buffer_limit": "1MiB"}, retry=retry)
    put = POST.replace(b"POST", b"PUT")
    caller = harness.open(put)
    first = harness.connect()
    first.stall()
    for _ in range(3):
        caller.send(PIECE)
    assert not caller.is_reading()
    harness.advance(1.5)
    assert first.fate == RESET
    second = harness.connect()
    assert caller.is_reading()
    for _ in range(PIECES - 3):
        caller.send(PIECE)
    assert second.take() == forwarded(put) + BODY
    second.send(OK)
    assert caller.take() == OK


def test_an_endpoint_that_has_not_read_all_is_not_asked_again(harness: Harness) -> None:
    caller = harness.open(POST.replace(b"%d" % SIZE, b"%d" % (3 * len(PIECE))))
    upstream = harness.connect()
    upstream.stall()
    for _ in range(3):
        caller.send(PIECE)
    upstream.send(OK)
    assert caller.take() == OK
    assert upstream.fate == RESET
    caller.send(GET)
    harness.connect().send(OK)
    assert caller.take() == OK


def test_an_endpoint_that_never_reads_is_let_go_with_its_exchange(make: Make) -> None:
    harness = make(route={"timeout": 5})
    harness.open(GET)
    upstream = harness.begun[0].connect(stalled=True)
    harness.advance(6)
    assert harness.outcomes[0][:2] == (504, "upstream-timeout")
    assert upstream.is_gone
    assert harness.state().connections == 0


CLOSING: dict[str, tuple[bytes, bytes]] = {
    "asked to close": (GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n"), OK),
    "cut in the middle": (GET, LONG.replace(b"Content-Length: %d" % SIZE, b"X: 1") + PIECE),
}


@pytest.mark.parametrize("name", CLOSING)
def test_a_caller_that_never_reads_is_cut_off_in_the_end(make: Make, name: str) -> None:
    harness = make(listener={"stream_idle_timeout": 60})
    asked, answer = CLOSING[name]
    caller = harness.open(asked)
    caller.stall()
    upstream = harness.connect()
    upstream.send(answer)
    harness.advance(61)
    harness.advance(61)
    assert len(harness.outcomes) == 1
    assert caller.fate == RESET


def test_a_caller_that_reads_late_gets_all(harness: Harness) -> None:
    caller = harness.open(GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
    caller.stall()
    harness.connect().send(OK)
    harness.advance(10)
    assert not caller.is_gone
    caller.catch_up()
    assert caller.take() == OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
    assert caller.fate == CLOSED


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("reads", [True, False])
def test_what_is_left_of_a_tunnel_is_sent_if_it_is_read(
    make: Make, protocol: str, reads: bool
) -> None:
    config: dict[str, Any] = {"listener": {"idle_timeout": 60}, "cluster": {"idle_timeout": 60}}
    harness = make(protocol=protocol, **config)
    caller = harness.open(UPGRADE if protocol == "http" else b"")
    upstream = harness.connect()
    if protocol == "http":
        upstream.send(SWITCH)
    upstream.take()
    upstream.stall()
    caller.send(b"the last")
    caller.lose()
    assert not upstream.is_gone
    if reads:
        upstream.catch_up()
        assert upstream.take() == b"the last"
        assert upstream.fate == CLOSED
    else:
        harness.advance(61)
        assert upstream.fate == RESET


def test_a_response_that_a_slow_caller_leaves_stops(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(LONG)
    pour(upstream, caller)
    assert upstream.fate == OPEN
    caller.lose()
    assert upstream.fate == RESET
    assert harness.outcomes[0][:3] == (200, "downstream-closed", "DC")


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_the_end_of_what_is_left_may_be_read_late(make: Make, protocol: str) -> None:
    harness = make(protocol=protocol)
    caller = harness.open(UPGRADE if protocol == "http" else b"")
    upstream = harness.connect()
    if protocol == "http":
        upstream.send(SWITCH)
    upstream.take()
    upstream.stall()
    for _ in range(3):
        caller.send(PIECE)
    caller.lose()
    upstream.catch_up()
    assert upstream.take() == PIECE * 3
    assert upstream.fate == CLOSED


def test_the_end_of_a_long_answer_may_be_read_late(harness: Harness) -> None:
    caller = harness.open(GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
    caller.stall()
    upstream = harness.connect()
    long = LONG.replace(b"%d" % SIZE, b"%d" % (3 * len(PIECE)))
    upstream.send(long + PIECE * 3)
    caller.catch_up()
    assert caller.take().endswith(PIECE * 3)
    assert caller.fate == CLOSED


def test_a_caller_that_has_read_all_may_ask_again(harness: Harness) -> None:
    caller = harness.open(GET)
    caller.stall()
    upstream = harness.connect()
    long = LONG.replace(b"%d" % SIZE, b"%d" % (3 * len(PIECE)))
    upstream.send(long + PIECE * 3)
    caller.catch_up()
    assert caller.take() == long + PIECE * 3
    caller.send(GET)
    upstream.send(OK)
    assert caller.take() == OK


BIG_HINTS = b"HTTP/1.1 103 Hints\r\nx: " + b"x" * 60_000 + b"\r\n\r\n"


def test_a_slow_caller_is_no_matter_between_two_attempts(harness: Harness) -> None:
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    caller.send(GET)
    caller.stall()
    first.send(BIG_HINTS * 2)
    first.lose()
    assert len(harness.outcomes) == 2
    caller.overhead(WRITE_HIGH)
    caller.catch_up()
    assert b"HTTP/1.1 502" in caller.take()


def test_a_layer_below_may_fill_up_before_the_endpoint_is_there(make: Make) -> None:
    for protocol in ("http", "tcp"):
        harness = make(protocol=protocol)
        caller = harness.open(GET if protocol == "http" else b"")
        caller.stall()
        caller.overhead(WRITE_HIGH + 1)
        caller.catch_up()
        upstream = harness.connect()
        upstream.send(OK)
        assert caller.take().endswith(OK)


def test_a_layer_below_may_fill_up_without_a_request(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    for transport in (caller, upstream):
        transport.stall()
        transport.overhead(WRITE_HIGH + 1)
        transport.catch_up()
    caller.take()
    caller.send(GET)
    upstream.send(OK)
    assert caller.take() == OK


def test_a_caller_filled_by_interim_responses_holds_the_next_attempt_back(make: Make) -> None:
    harness = make(retry={"on": ["reset"]})
    caller = harness.open(GET)
    caller.stall()
    first = harness.connect()
    first.send(BIG_HINTS)
    first.send(BIG_HINTS)
    first.send(BIG_HINTS)
    assert not first.is_reading()
    first.lose()
    harness.advance(1)
    second = harness.connect()
    assert not second.is_reading()
    second.send(OK)
    assert second.waiting
    caller.catch_up()
    assert caller.take().endswith(OK)


def test_a_caller_that_was_full_before_it_asked_holds_the_endpoint_back(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    caller.stall()
    caller.overhead(WRITE_HIGH + 1)
    caller.send(GET)
    assert not upstream.is_reading()
    caller.catch_up()
    upstream.send(OK)
    assert caller.take().endswith(OK)
