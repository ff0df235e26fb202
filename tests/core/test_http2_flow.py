"""Back-pressure over HTTP/2: a slow stream holds its own source back, and no other stream."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.wire.http2_frames import window_update
from tests.core.harness import GET, OK, WRITE_HIGH, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}
PIECE = b"x" * 65536
PIECES = 20
SIZE = PIECES * len(PIECE)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def poured(source: FakeTransport) -> None:
    """Send all pieces; who takes them must stop taking them."""
    for _ in range(PIECES):
        source.send(PIECE)
    assert not source.is_reading()
    assert source.waiting > SIZE - WRITE_HIGH - 5 * len(PIECE)


def drunk(peer: Peer, stream: int, source: FakeTransport) -> bytes:
    """Let the peer read its stream to the end, a little at a time."""
    while not peer[stream].ended:
        before = len(peer.got[stream].data)
        peer.grant(stream, 50_000)
        assert len(peer[stream].data) > before
    assert source.is_reading()
    return peer.got[stream].data


def test_a_caller_s_stream_without_a_window_stops_its_endpoint_only(harness: Harness) -> None:
    caller = harness.call(polite=False)
    slow, quick = caller.ask(), caller.ask()
    first, second = harness.connect(), harness.connect()
    first.send(LONG)
    poured(first)
    caller.send(window_update(0, 1_000_000))
    second.send(OK)
    assert caller[quick].data == b"ok"
    assert drunk(caller, slow, first) == PIECE * PIECES


def test_an_endpoint_s_stream_without_a_window_stops_its_caller_only(make: Make) -> None:
    harness = make(**H2)
    slow, quick = harness.open(POST), harness.open()
    upstream = harness.serve(polite=False)
    upstream.read()
    poured(slow)
    upstream.send(window_update(0, 1_000_000))
    quick.send(GET)
    assert upstream[3].ended
    upstream.answer(3)
    assert quick.take() == DONE
    assert drunk(upstream, 1, slow) == PIECE * PIECES
    upstream.answer(1)
    assert slow.take() == DONE


def test_a_caller_that_does_not_read_stops_its_endpoints(harness: Harness) -> None:
    caller = harness.call()
    streams = [caller.ask(), caller.ask()]
    upstreams = [harness.connect(), harness.connect()]
    caller.grant(streams[0], 2_000_000)
    caller.grant(streams[1], 2_000_000)
    caller.read()
    caller.transport.stall()
    for upstream in upstreams:
        upstream.send(LONG)
        poured(upstream)
    assert caller.transport.buffered < WRITE_HIGH + 3 * len(PIECE)
    caller.transport.catch_up()
    assert [caller[s].data == PIECE * PIECES for s in streams] == [True, True]
    assert [u.waiting for u in upstreams] == [0, 0]


def test_an_endpoint_that_does_not_read_stops_its_callers(make: Make) -> None:
    harness = make(**H2)
    callers = [harness.open(POST), harness.open(POST)]
    upstream = harness.serve()
    upstream.grant(1, 2_000_000)
    upstream.grant(3, 2_000_000)
    upstream.read()
    upstream.transport.stall()
    for caller in callers:
        poured(caller)
    assert upstream.transport.buffered < WRITE_HIGH + 3 * len(PIECE)
    upstream.transport.catch_up()
    assert [upstream[s].data == PIECE * PIECES for s in (1, 3)] == [True, True]
    upstream.answer(1)
    upstream.answer(3)
    assert [c.take() for c in callers] == [DONE] * 2


@pytest.mark.parametrize("down", [1, 2])
def test_a_response_is_given_windows_only_as_its_caller_reads(make: Make, down: int) -> None:
    """A stream costs its window and no more, and the connection's is given back for the others."""
    harness = make(**H2)
    raw, caller = harness.open(), harness.call(polite=False)
    if down == 1:
        raw.send(GET)
        raw.stall()
    else:
        caller.ask()
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    window = upstream.settings[4]
    sent = 0
    while sent + 16384 <= window + upstream[1].granted:
        upstream.say(1, b"x" * 16384)
        sent += 16384
    assert sent < 2 * window + WRITE_HIGH
    assert upstream[1].granted < sent
    assert upstream.granted >= sent // 2
    if down == 1:
        raw.catch_up()
    else:
        caller.grant(1, 10_000_000)
    assert upstream[1].granted + 131072 >= sent
    upstream.say(1, b"", end=True)
    if down == 2:
        assert len(caller[1].data) == sent
    else:
        assert raw.take().endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("up", [1, 2])
def test_a_request_is_given_windows_only_as_its_endpoint_reads(make: Make, up: int) -> None:
    harness = make(**(H2 if up == 2 else {}))
    caller = harness.call()
    stream = caller.ask(b"POST", end=False)
    upstream = harness.serve(silent=up == 1, polite=False)
    upstream.read() if up == 2 else upstream.transport.stall()
    window = caller.read().settings[4]
    sent = 0
    while sent + 16384 <= window + caller[stream].granted:
        caller.say(stream, b"x" * 16384)
        sent += 16384
    assert sent < 2 * window + WRITE_HIGH
    other = caller.ask()
    if up == 2:
        upstream.answer(3)
        upstream.grant(1, 10_000_000)
    else:
        harness.connect().send(OK)
        upstream.transport.catch_up()
    assert caller[other].status == 200
    assert caller[stream].granted + 131072 >= sent
    caller.say(stream, b"", end=True)
    if up == 2:
        assert len(upstream[1].data) == sent
        upstream.answer(1)
    else:
        upstream.transport.take()
        upstream.transport.send(OK)
    assert caller[stream].status == 200


def test_what_is_held_before_the_connection_is_bounded(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call()
    stream = caller.ask(b"POST", end=False)
    for _ in range(3):
        caller.say(stream, PIECE)
    assert caller[stream].granted <= 131072
    upstream = harness.serve()
    assert upstream[1].data == PIECE * 3
    assert caller[stream].granted >= 131072
    caller.say(stream, b"", end=True)
    upstream.answer(1)
    assert caller[stream].ended


def test_a_body_in_the_first_write_may_fill_the_stream(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(POST)
    for _ in range(3):
        caller.send(PIECE)
    upstream = harness.serve(polite=False)
    for _ in range(PIECES - 3):
        caller.send(PIECE)
    assert not caller.is_reading()
    assert drunk(upstream, 1, caller) == PIECE * PIECES
    upstream.answer(1)
    assert caller.take() == DONE


def test_a_first_piece_of_a_response_may_fill_the_stream(harness: Harness) -> None:
    caller = harness.call(polite=False)
    stream = caller.ask()
    upstream = harness.connect()
    upstream.send(LONG + PIECE * (PIECES - 1))
    upstream.send(PIECE)
    assert not upstream.is_reading()
    assert drunk(caller, stream, upstream) == PIECE * PIECES
