"""Exchanges with HTTP/2 on one side or both: what is said arrives, in the words of the other protocol."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, OK, OWN, Harness, forwarded
from tests.core.http2_peer import Head, Peer
from tests.core.transport import OPEN

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}
OURS: Head = [
    (b"x-request-id", b"00000000-0000-4000-8000-000000000000"),
    (b"traceparent", b"00-00000000000000000000000000000001-0000000000000001-00"),
]
PSEUDO: Head = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"a"),
    (b":path", b"/"),
]


def test_a_request_and_its_response_pass_from_http1_to_http2(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(
        b"POST /p?q HTTP/1.1\r\nHost: A:80\r\nX-One: 1\r\nContent-Length: 2\r\nKeep-Alive: 5\r\n\r\nhi"
    )
    upstream = harness.serve()
    got = upstream[1]
    assert got.heads == [
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a:80"),
            (b":path", b"/p?q"),
            (b"x-one", b"1"),
            (b"content-length", b"2"),
            *OURS,
        ]
    ]
    assert (got.data, got.ended) == (b"hi", True)
    upstream.answer(1, 201, [(b"x-two", b"2"), (b"content-length", b"2")], b"ok")
    assert caller.take() == b"HTTP/1.1 201 Created\r\nx-two: 2\r\ncontent-length: 2\r\n\r\nok"
    assert harness.outcomes[0][:6] == (201, "", "", 1, 2, 2)
    caller.send(GET)
    assert upstream[3].ended
    upstream.answer(3, 204)
    assert caller.take() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert len(harness.dials) == 1


def test_a_request_and_its_response_pass_from_http2_to_http1(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.ask(b"PUT", b"/p", [(b"x-one", b"1")], body=b"hi")
    upstream = harness.connect()
    assert upstream.take() == (
        b"PUT /p HTTP/1.1\r\nHost: a\r\nx-one: 1\r\nTransfer-Encoding: chunked\r\n"
        + OWN
        + b"\r\n2\r\nhi\r\n0\r\n\r\n"
    )
    upstream.send(OK.replace(b"\r\n\r\n", b"\r\nX-Two: 2\r\n\r\n"))
    got = caller[stream]
    assert got.heads == [[(b":status", b"200"), (b"content-length", b"2"), (b"x-two", b"2")]]
    assert (got.data, got.ended, got.reset) == (b"ok", True, "")
    assert harness.outcomes[0][:6] == (200, "", "", 1, 2, 2)


def test_a_request_and_its_response_pass_from_http2_to_http2(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call()
    stream = caller.ask(fields=[(b"x-one", b"1"), (b"te", b"trailers")])
    upstream = harness.serve()
    assert upstream[1].heads == [[*PSEUDO, (b"x-one", b"1"), (b"te", b"trailers"), *OURS]]
    assert upstream[1].ended
    upstream.answer(1, 200, [(b"x-two", b"2")], b"ok")
    got = caller[stream]
    assert got.heads == [[(b":status", b"200"), (b"x-two", b"2")]]
    assert (got.data, got.ended) == (b"ok", True)


def test_the_caller_s_protocol_may_be_the_endpoint_s(make: Make) -> None:
    harness = make(cluster={"protocol": "same-as-downstream"})
    first = harness.open(GET)
    harness.connect().send(OK)
    assert first.take() == OK
    second = harness.call()
    stream = second.ask()
    harness.serve().answer(1)
    assert second[stream].status == 200


@pytest.mark.parametrize("alpn", [None, "http/1.1", "h2", "sidecar-h2"])
def test_alpn_chooses_what_is_spoken(make: Make, alpn: str | None) -> None:
    harness = make(cluster={"protocol": "auto", "tls": {"mode": "simple"}})
    caller = harness.open(GET)
    assert harness.begun[0].alpn == "auto"
    if alpn in (None, "http/1.1"):
        upstream = harness.begun[0].connect(alpn=alpn)
        assert upstream.take() == forwarded(GET)
        upstream.send(OK)
        assert caller.take() == OK
        caller.send(GET + GET)  # one at a time
        assert upstream.take() == forwarded(GET)
        upstream.send(OK)
        upstream.send(OK)
    else:
        peer = harness.serve(alpn)
        assert peer[1].head[b":scheme"] == b"https"
        peer.answer(1)
        assert caller.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert len(harness.dials) == 1


@pytest.mark.parametrize("protocol", ["auto", "http1", "http2"])
def test_a_dial_that_fails_is_told(make: Make, protocol: str) -> None:
    tls = {"tls": {"mode": "simple"}} if protocol == "auto" else {}
    harness = make(cluster={"protocol": protocol, **tls}, retry={"attempts": 1})
    caller = harness.open(GET)
    expected = {"auto": "auto", "http1": "http1", "http2": "http2"}
    assert harness.begun[0].alpn == expected[protocol]
    harness.fail()
    assert caller.take()[:12] == b"HTTP/1.1 503"
    assert harness.outcomes[0][:3] == (503, "connect-failed", "UF")


def test_an_upgrade_goes_by_http1_where_alpn_chooses(make: Make) -> None:
    harness = make(cluster={"protocol": "auto", "tls": {"mode": "simple"}})
    harness.open(GET.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"))
    assert harness.begun[0].alpn == "http1"


def test_crumbs_of_a_cookie_are_joined_for_http1(harness: Harness) -> None:
    caller = harness.call()
    caller.ask(fields=[(b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2")])
    head = harness.connect().take()
    assert head == (b"GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\ncookie: a=1; b=2\r\n" + OWN + b"\r\n")


@pytest.mark.parametrize("up", [True, False], ids=["up-http2", "up-http1"])
def test_an_empty_body_that_ends_late_is_forwarded(make: Make, up: bool) -> None:
    harness = make(**(H2 if up else {}))
    caller = harness.call()
    stream = caller.ask(b"POST", end=False)
    if up:
        peer = harness.serve()
        assert (len(peer[1].heads), peer[1].ended) == (1, False)
        caller.say(stream, b"", end=True)
        assert (len(peer[1].heads), peer[1].ended) == (1, True)
        peer.answer(1, 200, end=False)
        assert not caller[stream].ended
        peer.say(1, b"", end=True)
    else:
        upstream = harness.connect()
        upstream.take()
        caller.say(stream, b"", end=True)
        assert upstream.take() == b"0\r\n\r\n"
        upstream.send(OK)
    assert caller[stream].ended


TRAILERS: Head = [(b"x-sum", b"7"), (b"grpc-status", b"0")]
LINES = b"x-sum: 7\r\ngrpc-status: 0\r\n"
UNSAFE: Head = [*TRAILERS, (b"content-length", b"3"), (b"host", b"evil"), (b"authorization", b"x")]


@pytest.mark.parametrize("body", [b"", b"hi"])
@pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])
def test_trailers_pass_from_http1_to_http2_and_back(make: Make, body: bytes, late: bool) -> None:
    harness = make(**H2)
    caller = harness.open()
    chunk = b"2\r\nhi\r\n" if body else b""
    with harness.together():
        caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        if not late:
            caller.send(b"0\r\nX-Sum: 7\r\n\r\n")
    upstream = harness.serve()
    if late:
        caller.send(b"0\r\nX-Sum: 7\r\n\r\n")
    got = upstream[1]
    assert got.heads[1] == [(b"x-sum", b"7")]
    assert (got.data, got.ended) == (body, True)
    upstream.answer(1, body=body, end=False)
    upstream.trail(1, UNSAFE)
    assert caller.take() == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk
        + b"0\r\n"
        + LINES
        + b"\r\n"
    )


@pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])
def test_trailers_pass_from_http2_to_http1_and_back(harness: Harness, late: bool) -> None:
    caller = harness.call()
    stream = caller.ask(b"PUT", end=False, body=b"hi")
    if not late:
        caller.trail(stream, UNSAFE)
    upstream = harness.connect()
    if late:
        caller.trail(stream, UNSAFE)
    assert upstream.take().endswith(b"\r\n\r\n2\r\nhi\r\n0\r\n" + LINES + b"\r\n")
    upstream.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    got = caller[stream]
    assert got.heads[1] == [(b"x-sum", b"7")]
    assert (got.data, got.ended) == (b"ok", True)


@pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])
def test_trailers_pass_from_http2_to_http2_as_they_are(make: Make, late: bool) -> None:
    harness = make(**H2)
    caller = harness.call()
    stream = caller.ask(b"PUT", end=False)
    if not late:
        caller.trail(stream, TRAILERS)
    upstream = harness.serve()
    if late:
        caller.trail(stream, TRAILERS)
    assert upstream[1].heads[1] == TRAILERS
    upstream.answer(1, end=False)
    upstream.trail(1, TRAILERS)
    assert caller[stream].heads[1] == TRAILERS


def versions(make: Make, down: int, up: int) -> Harness:
    return make(**(H2 if up == 2 else {}))


COMBINATIONS = pytest.mark.parametrize(("down", "up"), [(1, 2), (2, 1), (2, 2)])
EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


@COMBINATIONS
def test_interim_responses_pass_and_100_only_to_who_expects_it(
    make: Make, down: int, up: int
) -> None:
    harness = versions(make, down, up)
    raw, caller, stream = harness.open(), harness.call(), 1
    if down == 1:
        raw.send(EXPECT)
    else:
        caller.ask(
            b"POST", fields=[(b"expect", b"100-continue"), (b"content-length", b"2")], end=False
        )
    upstream = harness.serve(silent=up == 1)
    plain = upstream.transport
    if up == 2:
        assert upstream[1].head[b"expect"] == b"100-continue"
        upstream.answer(1, 100, end=False)
        upstream.answer(1, 103, [(b"link", b"x")], end=False)
    else:
        assert b"expect: 100-continue\r\n" in plain.take()
        plain.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n")
    if down == 1:
        seen = raw.take()
        assert seen == b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        raw.send(b"hi")
    else:
        assert caller[stream].heads == [
            [(b":status", b"100")],
            [(b":status", b"103"), (b"link", b"x")],
        ]
        caller.say(stream, b"hi", end=True)
    if up == 2:
        assert upstream[1].data == b"hi"
        upstream.answer(1)
    else:
        assert plain.take().endswith(b"hi")
        plain.send(OK)
    assert harness.outcomes[0][:2] == (200, "")


@pytest.mark.parametrize("status", [100, 103])
def test_an_unasked_100_stops_here(make: Make, status: int) -> None:
    harness = make(**H2)
    caller = harness.open(GET)
    upstream = harness.serve()
    upstream.answer(1, status, end=False)
    assert caller.take() == (b"" if status == 100 else b"HTTP/1.1 103 Early Hints\r\n\r\n")
    upstream.answer(1)


BODILESS: dict[str, tuple[bytes, int]] = {
    "HEAD": (b"HEAD", 200),
    "204": (b"GET", 204),
    "304": (b"GET", 304),
}


@COMBINATIONS
@pytest.mark.parametrize("name", BODILESS)
@pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])
def test_a_response_without_a_body_has_none(
    make: Make, down: int, up: int, name: str, late: bool
) -> None:
    method, status = BODILESS[name]
    harness = versions(make, down, up)
    length = b"content-length: 7\r\n" if status != 204 else b""
    raw, caller, stream = harness.open(), harness.call(), 1
    if down == 1:
        raw.send(GET.replace(b"GET", method))
    else:
        caller.ask(method)
    upstream = harness.serve(silent=up == 1)
    if up == 2:
        fields = [(b"content-length", b"7")] if length else []
        upstream.answer(1, status, fields, end=not late)
        if late:
            upstream.say(1, b"", end=True)
    else:
        upstream.send(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, length))
    if down == 1:
        reasons = {200: b"OK", 204: b"No Content", 304: b"Not Modified"}
        assert raw.take() == b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reasons[status], length)
        raw.send(GET)
        assert len(upstream.read().got) == 2
        upstream.answer(3)
    else:
        got = caller[stream]
        assert (got.status, got.data, got.ended) == (status, b"", True)
        assert got.head.get(b"content-length") == (b"7" if length else None)
    assert harness.outcomes[0][:2] == (status, "")


def test_an_http10_caller_gets_a_response_of_unknown_length_to_the_end(make: Make) -> None:
    harness = make(**H2)
    caller = harness.open(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    upstream = harness.serve()
    upstream.answer(1, body=b"o", end=False)
    upstream.say(1, b"k", end=True)
    assert caller.take() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
    assert caller.fate != OPEN


@COMBINATIONS
def test_a_long_exchange_passes_in_pieces(make: Make, down: int, up: int) -> None:
    harness = versions(make, down, up)
    body = bytes(range(256)) * 800  # above a frame, a stream's first window and what is held
    raw, caller, stream = harness.open(), harness.call(), 1
    if down == 1:
        raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
    else:
        caller.ask(b"POST", fields=[(b"content-length", b"%d" % len(body))], end=False)
    upstream = harness.serve(silent=up == 1)
    plain = upstream.transport
    for at in range(0, len(body), 20_000):
        piece = body[at : at + 20_000]
        if down == 1:
            raw.send(piece)
        else:
            caller.say(stream, piece, end=at + 20_000 >= len(body))
        if up == 2:
            upstream.read()
    if up == 2:
        assert (upstream[1].data, upstream[1].ended) == (body, True)
        upstream.answer(1, 200, [(b"content-length", b"%d" % len(body))], end=False)
    else:
        assert plain.take().endswith(b"\r\n\r\n" + body)
        plain.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 20_000):
        piece = body[at : at + 20_000]
        if up == 2:
            upstream.say(1, piece, end=at + 20_000 >= len(body))
        else:
            plain.send(piece)
        if down == 2:
            caller.read()
    if down == 1:
        assert raw.take().endswith(b"\r\n\r\n" + body)
    else:
        assert (caller[stream].data, caller[stream].ended) == (body, True)
    assert harness.outcomes[0][:6] == (200, "", "", 1, len(body), len(body))


def test_many_requests_share_a_connection_and_none_waits_for_another(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call()
    streams = [caller.ask(path=b"/%d" % index) for index in range(20)]
    upstream: Peer = harness.serve()
    upstream.read()
    for number in reversed(upstream.order):
        path = upstream.got[number].head[b":path"]
        upstream.answer(number, 200, [(b"x-path", path)])
    for index, stream in enumerate(streams):
        assert caller[stream].head[b"x-path"] == b"/%d" % index
    assert len(harness.dials) == 1


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"GET", b"DELETE"])
def test_a_request_without_a_body_says_so_to_http1(harness: Harness, method: bytes) -> None:
    """RFC 9110 §8.6: who sends no content with a method that expects some says 0."""
    caller = harness.call()
    caller.ask(method)
    length = b"Content-Length: 0\r\n" if method[0] == ord("P") else b""
    assert harness.connect().take() == (
        method + b" / HTTP/1.1\r\nHost: a\r\n" + length + OWN + b"\r\n"
    )


@pytest.mark.parametrize("name", BODILESS)
def test_octets_behind_a_response_that_has_no_body_are_no_response(make: Make, name: str) -> None:
    """They would be the next response to an HTTP/1 caller."""
    method, status = BODILESS[name]
    harness = make(**H2)
    caller = harness.open(GET.replace(b"GET", method))
    upstream = harness.serve()
    upstream.answer(1, status, body=b"HTTP/1.1 200 OK\r\n\r\n")
    assert caller.take().count(b"HTTP/1.1") == 1
    assert upstream[1].reset == "PROTOCOL_ERROR"
    assert harness.outcomes[0][:2] == (status, "upstream-protocol")


def test_a_request_that_names_no_host_names_the_endpoint(make: Make) -> None:
    harness = make(**H2)
    harness.open(b"GET / HTTP/1.0\r\n\r\n")
    assert harness.serve()[1].head[b":authority"] == b"10.0.0.1:80"
