"""WebSocket over HTTP/2: extended CONNECT (RFC 8441) on one side or both, as a switch of HTTP/1 on the other."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.wire.http2_frames import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    NO_ERROR,
)
from tests.core.harness import GET, OK, OWN, Harness
from tests.core.http2_peer import CONNECT, Head, Peer, data
from tests.core.transport import CLOSED, HALF, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3
ASK = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Go\r\nX: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Down:
    """The caller's end of a tunnel, whatever it speaks."""

    def __init__(self, harness: Harness, version: int) -> None:
        self.raw: FakeTransport | None = None
        self.peer: Peer | None = None
        self._seen = 0
        if version == 1:
            self.raw = harness.open(ASK)
        else:
            self.peer = harness.call()
            self.stream = self.peer.open_tunnel([(b"sec-websocket-version", b"13")])

    def say(self, octets: bytes) -> None:
        if self.peer is None:
            assert self.raw is not None
            self.raw.send(octets)
        else:
            self.peer.say(self.stream, octets)

    def end(self) -> None:
        if self.peer is None:
            assert self.raw is not None
            self.raw.end()
        else:
            self.peer.say(self.stream, b"", end=True)

    def break_off(self) -> None:
        if self.peer is None:
            assert self.raw is not None
            self.raw.lose(ConnectionResetError())
        else:
            self.peer.reset(self.stream, CANCEL)

    def hear(self) -> bytes:
        if self.peer is None:
            assert self.raw is not None
            return self.raw.take()
        octets = self.peer[self.stream].data[self._seen :]
        self._seen += len(octets)
        return octets

    @property
    def has_ended(self) -> bool:
        if self.peer is None:
            assert self.raw is not None
            return self.raw.fate != OPEN
        return self.peer[self.stream].ended

    @property
    def is_broken(self) -> bool:
        if self.peer is None:
            assert self.raw is not None
            return self.raw.fate == RESET
        return self.peer[self.stream].reset not in ("", "NO_ERROR")


class Up(Down):
    """The endpoint's end."""

    def __init__(self, harness: Harness, version: int) -> None:
        self.raw = self.peer = None
        self._seen = 0
        self.stream = 1
        if version == 1:
            self.raw = harness.connect()
            self.raw.take()
            self.raw.send(SWITCH)
        else:
            self.peer = harness.serve(options=CONNECT)
            self.peer.read()
            self.peer.answer(1, 200, [(b"x", b"1")], end=False)


def tunnel(make: Make, down: int, up: int) -> tuple[Harness, Down, Up]:
    harness = make(**(H2 if up == 2 else {}))
    caller = Down(harness, down)
    endpoint = Up(harness, up)
    if down == 1:
        assert caller.hear().startswith(b"HTTP/1.1 101 ")
    return harness, caller, endpoint


COMBINATIONS = pytest.mark.parametrize(("down", "up"), [(1, 2), (2, 1), (2, 2)])


@COMBINATIONS
def test_octets_pass_both_ways(make: Make, down: int, up: int) -> None:
    harness, caller, endpoint = tunnel(make, down, up)
    for octets in (b"\x81\x00", b"0\r\n\r\n", b"x" * 40_000):
        caller.say(octets)
        assert endpoint.hear() == octets
        endpoint.say(octets)
        assert caller.hear() == octets
    caller.end()
    endpoint.end()
    size = 2 + 5 + 40_000
    assert harness.outcomes[0][:6] == (101, "", "", 1, size, size)


@COMBINATIONS
@pytest.mark.parametrize("caller_first", [True, False])
def test_each_direction_ends_by_itself(make: Make, down: int, up: int, caller_first: bool) -> None:
    harness, caller, endpoint = tunnel(make, down, up)
    first, second = (caller, endpoint) if caller_first else (endpoint, caller)
    first.say(b"last words")
    first.end()
    assert second.hear() == b"last words"
    assert second.has_ended
    second.say(b"yes?")
    assert first.hear() == b"yes?"
    assert harness.outcomes == []
    second.end()
    assert first.has_ended
    assert harness.outcomes[0][:3] == (101, "", "")
    assert not caller.is_broken
    assert not endpoint.is_broken


@COMBINATIONS
@pytest.mark.parametrize("caller_first", [True, False])
def test_a_reset_resets(make: Make, down: int, up: int, caller_first: bool) -> None:
    harness, caller, endpoint = tunnel(make, down, up)
    if caller_first:
        caller.break_off()
        assert endpoint.has_ended if up == 1 else endpoint.is_broken
        assert harness.outcomes[0].flag in ("DC", "DR")
    else:
        endpoint.break_off()
        assert caller.is_broken
        assert harness.outcomes[0].flag in ("UC", "UR")


@COMBINATIONS
def test_a_silent_tunnel_ends(make: Make, down: int, up: int) -> None:
    harness, caller, endpoint = tunnel(make, down, up)
    harness.advance(301)
    assert harness.outcomes[0][:3] == (101, "stream-idle", "SI")
    assert caller.has_ended or caller.is_broken
    assert endpoint.has_ended or endpoint.is_broken


def test_a_switch_of_http1_becomes_extended_connect(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(ASK)
    upstream = harness.serve(options=CONNECT)
    assert upstream[1].heads == [
        [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/ws"),
            (b"sec-websocket-key", KEY),
            *[tuple(line.split(b": ", 1)) for line in OWN.split(b"\r\n")[:-1]],
        ]
    ]
    assert not upstream[1].ended
    upstream.answer(1, 200, [(b"content-length", b"0")], end=False)
    assert caller.take() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"sec-websocket-accept: " + ACCEPT + b"\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    caller.lose()


def test_an_accept_that_the_endpoint_has_made_is_kept(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(ASK)
    upstream = harness.serve(options=CONNECT)
    upstream.answer(1, 200, [(b"sec-websocket-accept", b"its")], end=False)
    assert caller.take().count(b"sec-websocket-accept: its\r\n") == 1


@pytest.mark.parametrize("key", [True, False])
def test_extended_connect_becomes_a_switch_of_http1(harness: Harness, key: bool) -> None:
    caller = harness.call()
    assert caller.read().settings[ENABLE_CONNECT_PROTOCOL] == 1
    fields: Head = [(b"sec-websocket-key", KEY)] if key else []
    stream = caller.open_tunnel(fields)
    upstream = harness.connect()
    line = b"sec-websocket-key: " + KEY + b"\r\n" if key else b""
    made = b"" if key else b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    assert upstream.take() == (
        b"GET /ws HTTP/1.1\r\nHost: a\r\n"
        + line
        + OWN
        + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        + made
        + b"\r\n"
    )
    upstream.send(SWITCH.replace(b"X: 1", b"X: 1\r\nSec-WebSocket-Accept: z"))
    assert caller[stream].heads == [[(b":status", b"200"), (b"x", b"1")]]


AHEAD: dict[str, tuple[tuple[bytes, ...], bool]] = {
    "nothing": ((), False),
    "some": ((b"a", b"", b"bc"), False),
    "all": ((b"a", b"bc"), True),
    "the end": ((), True),
}


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("name", AHEAD)
def test_what_is_sent_ahead_waits_for_the_switch(make: Make, name: str, up: int) -> None:
    pieces, end = AHEAD[name]
    harness = make(**(H2 if up == 2 else {}))
    caller = harness.call()
    stream = caller.open_tunnel()
    for piece in pieces:
        caller.say(stream, piece)
    if end:
        caller.say(stream, b"", end=True)
    endpoint = Up(harness, up)
    assert endpoint.hear() == b"".join(pieces)
    assert endpoint.has_ended == end
    endpoint.say(b"yes")
    endpoint.end()
    assert caller[stream].data == b"yes"
    assert caller[stream].ended
    assert len(harness.outcomes) == end


def test_a_caller_that_has_said_all_with_its_request_is_heard_out(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.open_tunnel(end=True)
    endpoint = Up(harness, 1)
    assert endpoint.has_ended
    endpoint.say(b"yes")
    endpoint.end()
    assert caller[stream].data == b"yes"
    assert harness.outcomes[0][:3] == (101, "", "")


def test_what_is_sent_ahead_is_bounded_by_the_stream_s_window(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.open_tunnel()
    for _ in range(4):
        caller.say(stream, b"x" * 65536)
    assert caller[stream].granted == 0
    upstream = harness.begun[0].connect(stalled=True)
    upstream.send(SWITCH)
    assert caller[stream].granted == 0  # the endpoint reads slowly
    upstream.catch_up()
    assert upstream.take().endswith(b"x" * 4 * 65536)
    assert caller[stream].granted == 4 * 65536


REFUSALS: dict[str, bytes] = {
    "with a body": OK.replace(b"200 OK", b"403 No"),
    "without": b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_passed_on(harness: Harness, name: str) -> None:
    caller = harness.call()
    stream = caller.open_tunnel()
    caller.say(stream, b"ahead")
    upstream = harness.connect()
    assert b"ahead" not in upstream.take()
    upstream.send(REFUSALS[name])
    got = caller[stream]
    assert got.status in (401, 403)
    assert (got.ended, got.reset) == (True, "NO_ERROR")
    assert harness.outcomes[0][:2] == (got.status, "")
    caller.ask()
    upstream.send(OK)
    assert len(harness.dials) == 1


@pytest.mark.parametrize("status", [200, 204])
def test_an_endpoint_that_overlooks_the_upgrade_opens_no_tunnel(
    harness: Harness, status: int
) -> None:
    """Its page would be taken for what comes through the tunnel."""
    caller = harness.call()
    stream = caller.open_tunnel()
    harness.connect().send(OK.replace(b"200", b"%d" % status))
    assert caller[stream].status == 502
    assert harness.outcomes[0][:3] == (502, "upstream-no-upgrade", "UPE")


@pytest.mark.parametrize("down", [1, 2])
def test_a_refusal_of_http2_is_passed_on(make: Make, down: int) -> None:
    harness = make(**H2)
    caller = Down(harness, down)
    upstream = harness.serve(options=CONNECT)
    upstream.answer(1, 403, body=b"no")
    assert upstream[1].reset == "NO_ERROR"
    assert caller.hear().endswith(b"no" if down == 2 else b"content-length: 2\r\n\r\nno")
    assert harness.outcomes[0][:2] == (403, "")


@pytest.mark.parametrize("down", [1, 2])
def test_an_endpoint_without_extended_connect_is_not_asked(make: Make, down: int) -> None:
    harness = make(**H2)
    caller = Down(harness, down)
    upstream = harness.serve()
    assert upstream.read().order == []
    if down == 1:
        assert caller.hear().startswith(b"HTTP/1.1 502 ")
    else:
        assert caller.peer is not None
        assert caller.peer[caller.stream].status == 502
    assert harness.outcomes[0][:3] == (502, "upstream-no-upgrade", "UPE")
    second = harness.open(GET)
    upstream.answer(1)
    assert second.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_tunnel_waits_for_the_endpoint_s_settings(make: Make) -> None:
    """They say whether it takes extended CONNECT; who asks for less does not wait."""
    harness = make(**H2)
    caller = harness.open(ASK)
    other = harness.open(GET)
    upstream = harness.serve(silent=True)
    assert upstream[1].head[b":method"] == b"GET"
    assert upstream.order == [1]
    upstream.settle(CONNECT)
    assert upstream[3].head[b":method"] == b"CONNECT"
    upstream.answer(3, 200, end=False)
    upstream.answer(1)
    assert other.take().startswith(b"HTTP/1.1 200 ")
    assert caller.take().startswith(b"HTTP/1.1 101 ")
    upstream.say(3, b"hi")
    assert caller.take() == b"hi"


def test_tunnels_that_wait_count_as_streams(make: Make) -> None:
    harness = make(cluster={"protocol": "http2", "http2": {"max_concurrent_streams": 2}})
    for _ in range(3):
        harness.open(ASK)
    upstream = harness.serve(silent=True)
    assert len(harness.begun) == 1
    upstream.settle(CONNECT)
    assert upstream.read().order == [1, 3]
    assert not harness.endpoint().idle
    upstream.answer(1, 403)
    assert upstream.read().order == [1, 3, 5]


WHILE_WAITING: dict[str, tuple[Callable[[Harness, Peer, FakeTransport], None], int]] = {
    "the caller goes": (lambda harness, upstream, caller: caller.lose(), 499),
    "time is up": (lambda harness, upstream, caller: harness.advance(6), 504),
    "the endpoint goes": (lambda harness, upstream, caller: upstream.transport.lose(), 502),
    "the endpoint says no": (lambda harness, upstream, caller: upstream.settle({}), 502),
}


@pytest.mark.parametrize("name", WHILE_WAITING)
def test_what_may_happen_while_a_tunnel_waits(make: Make, name: str) -> None:
    harness = make(**H2, route={"timeout": 5})
    caller = harness.open(ASK)
    upstream = harness.serve(silent=True)
    act, status = WHILE_WAITING[name]
    act(harness, upstream, caller)
    assert harness.outcomes[0].status == status
    if name in ("the caller goes", "time is up"):
        upstream.settle({})
    assert upstream.read().order == []


def test_trailers_end_no_tunnel_from_the_caller(make: Make) -> None:
    for ahead in (True, False):
        harness = make()
        caller = harness.call()
        stream = caller.open_tunnel()
        upstream = harness.connect()
        if not ahead:
            upstream.send(SWITCH)
        caller.trail(stream, [(b"x", b"1")])
        assert caller[stream].reset == "PROTOCOL_ERROR"
        assert upstream.fate != OPEN


def test_trailers_end_no_tunnel_from_the_endpoint(make: Make) -> None:
    harness, caller, endpoint = tunnel(make, 1, 2)
    assert endpoint.peer is not None
    endpoint.peer.trail(1, [(b"x", b"1")])
    assert endpoint.peer[1].reset == "PROTOCOL_ERROR"
    assert caller.is_broken
    assert harness.outcomes[0][:2] == (101, "upstream-protocol")


@pytest.mark.parametrize("down", [1, 2])
def test_an_endpoint_may_say_all_and_want_no_more(make: Make, down: int) -> None:
    harness, caller, endpoint = tunnel(make, down, 2)
    assert endpoint.peer is not None
    endpoint.peer.send(data(1, b"bye", end=True))
    endpoint.peer.reset(1, NO_ERROR)
    assert caller.hear() == b"bye"
    assert caller.has_ended
    assert not caller.is_broken
    assert harness.outcomes[0][:3] == (101, "", "")


def test_an_endpoint_may_have_said_all_with_its_head(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(ASK)
    upstream = harness.serve(options=CONNECT)
    upstream.answer(1, 200)
    assert caller.take().startswith(b"HTTP/1.1 101 ")
    assert caller.fate == HALF
    caller.send(b"still")
    assert upstream[1].data == b"still"
    caller.end()
    assert upstream[1].ended
    assert caller.fate == CLOSED
    assert harness.outcomes[0][:3] == (101, "", "")


def test_a_request_with_a_body_asks_for_no_tunnel(make: Make) -> None:
    harness = make(**H2)
    harness.open(ASK.replace(b"a\r\n", b"a\r\nContent-Length: 2\r\n", 1) + b"hi")
    upstream = harness.serve(options=CONNECT)
    assert upstream[1].head[b":method"] == b"GET"
    assert (upstream[1].data, upstream[1].ended) == (b"hi", True)
    upstream.answer(1)


@pytest.mark.parametrize("up", [True, False])
def test_a_tunnel_holds_both_directions_back(make: Make, up: bool) -> None:
    _, caller, endpoint = tunnel(make, 2, 2)
    source, sink = (caller, endpoint) if up else (endpoint, caller)
    assert source.peer is not None
    assert sink.peer is not None
    sink.peer.polite = False
    source.say(b"x" * 65535)
    before = source.peer[source.stream].granted
    for _ in range(6):
        source.say(b"x" * 16384)
    source.peer.read()
    stopped = source.peer.got[source.stream].granted
    for _ in range(6):
        source.say(b"x" * 16384)
    assert source.peer[source.stream].granted == stopped >= before
    assert len(sink.hear()) == 65535
    sink.say(b"the other way is open")
    assert source.hear() == b"the other way is open"
    sink.peer.grant(sink.stream, 1_000_000)
    assert len(sink.hear()) == 12 * 16384


@pytest.mark.parametrize("length", [0, 5])
def test_a_tunnel_has_no_length(harness: Harness, length: int) -> None:
    """An endpoint of HTTP/1 would read so many octets of it as the request's body."""
    caller = harness.call()
    stream = caller.open_tunnel([(b"content-length", b"%d" % length)])
    if length:
        assert caller[stream].reset == "PROTOCOL_ERROR"
        assert harness.begun == []
    else:
        harness.connect().send(SWITCH)
        assert caller[stream].status == 200
