"""One request and its response, by every framing there is, and however the octets arrive."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.core.harness import GET, OK, OWN, Harness, Outcome, forwarded
from tests.core.reading import read_request, read_response
from tests.core.transport import CLOSED, OPEN

Make = Callable[..., Harness]

UP = "10.0.0.1:80"


class Case(NamedTuple):
    """What the caller sends, what the endpoint gets; what it answers, what the caller gets."""

    request: bytes
    up: bytes
    response: bytes
    down: bytes
    outcome: Outcome = Outcome(200, "", "", 1, 0, 2, UP)
    ends: bool = False  # the endpoint closes behind its response
    up_fate: str = OPEN  # what becomes of the connection to the endpoint
    down_fate: str = OPEN  # and of the caller's


def ok(body_in: int = 0, body_out: int = 2, status: int = 200) -> Outcome:
    return Outcome(status, "", "", 1, body_in, body_out, UP)


def get(*lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join((method + b" / HTTP/" + version, b"Host: a", *lines, b"", b""))


def answer(start: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + start, *lines, b"", b"")) + body


CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
LENGTH = b"Content-Length: 2"
POST = get(b"Content-Length: 5", method=b"POST") + b"hello"
POST_CHUNKED = get(CHUNKED, method=b"POST") + b"5\r\nhello\r\n"
TEN = b"GET / HTTP/1.0\r\n\r\n"
TEN_KEEP = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
TEN_UP = b"GET / HTTP/1.1\r\n" + OWN + b"Host: 10.0.0.1:80\r\n\r\n"
PARTS = answer(b"200 OK", CHUNKED, body=b"2\r\nok\r\n")

CASES = {
    "no bodies but one": Case(GET, forwarded(GET), OK, OK),
    "letter case, order and blanks stay": Case(
        b"GET /A?b=%20 HTTP/1.1\r\nhOST:   a \r\nB: 1\r\nA: 2\r\nB: 3\r\n\r\n",
        forwarded(b"GET /A?b=%20 HTTP/1.1\r\nhOST:   a \r\nB: 1\r\nA: 2\r\nB: 3\r\n\r\n"),
        answer(b"200 Fine", b"zZ:  1", LENGTH, b"a: 2", body=b"ok"),
        answer(b"200 Fine", b"zZ:  1", LENGTH, b"a: 2", body=b"ok"),
    ),
    "a length up": Case(POST, forwarded(POST), OK, OK, ok(5)),
    "chunks up": Case(
        POST_CHUNKED + b"0\r\n\r\n", forwarded(POST_CHUNKED) + b"0\r\n\r\n", OK, OK, ok(5)
    ),
    "chunks and trailers up": Case(
        POST_CHUNKED + b"0\r\nsum: 1\r\n\r\n",
        forwarded(POST_CHUNKED) + b"0\r\nsum: 1\r\n\r\n",
        OK,
        OK,
        ok(5),
    ),
    "no chunk but the last up": Case(
        get(CHUNKED, method=b"POST") + b"0\r\n\r\n",
        forwarded(get(CHUNKED, method=b"POST")) + b"0\r\n\r\n",
        OK,
        OK,
    ),
    "chunks down": Case(GET, forwarded(GET), PARTS + b"0\r\n\r\n", PARTS + b"0\r\n\r\n"),
    "chunks and trailers down": Case(
        GET, forwarded(GET), PARTS + b"0\r\nsum: 1\r\n\r\n", PARTS + b"0\r\nsum: 1\r\n\r\n"
    ),
    "until the end down": Case(
        GET,
        forwarded(GET),
        answer(b"200 OK", body=b"ok"),
        answer(b"200 OK", CHUNKED, body=b"2\r\nok\r\n0\r\n\r\n"),
        ends=True,
        up_fate=CLOSED,
    ),
    "no length, no body": Case(
        GET,
        forwarded(GET),
        answer(b"200 OK"),
        answer(b"200 OK", CHUNKED, body=b"0\r\n\r\n"),
        ok(0, 0),
        ends=True,
        up_fate=CLOSED,
    ),
    "HEAD": Case(
        get(method=b"HEAD"),
        forwarded(get(method=b"HEAD")),
        answer(b"200 OK", LENGTH),
        answer(b"200 OK", LENGTH),
        ok(0, 0),
    ),
    "HEAD of what would be chunked": Case(
        get(method=b"HEAD"),
        forwarded(get(method=b"HEAD")),
        answer(b"200 OK", CHUNKED),
        answer(b"200 OK", CHUNKED),
        ok(0, 0),
    ),
    "HEAD without a length": Case(
        get(method=b"HEAD"),
        forwarded(get(method=b"HEAD")),
        answer(b"200 OK"),
        answer(b"200 OK"),
        ok(0, 0),
    ),
    "204": Case(GET, forwarded(GET), answer(b"204 None"), answer(b"204 None"), ok(0, 0, 204)),
    "204 with a length": Case(
        GET, forwarded(GET), answer(b"204 None", LENGTH), answer(b"204 None"), ok(0, 0, 204)
    ),
    "304 with a length": Case(
        GET, forwarded(GET), answer(b"304 Same", LENGTH), answer(b"304 Same", LENGTH), ok(0, 0, 304)
    ),
    "a length of zero": Case(
        GET,
        forwarded(GET),
        answer(b"200 OK", b"Content-Length: 0"),
        answer(b"200 OK", b"Content-Length: 0"),
        ok(0, 0),
    ),
    "no reason": Case(
        GET,
        forwarded(GET),
        answer(b"200 ", LENGTH, body=b"ok"),
        answer(b"200 ", LENGTH, body=b"ok"),
    ),
    "the caller wants to close": Case(
        get(CLOSE),
        forwarded(GET),
        OK,
        answer(b"200 OK", LENGTH, CLOSE, body=b"ok"),
        down_fate=CLOSED,
    ),
    "the endpoint wants to close": Case(
        GET, forwarded(GET), answer(b"200 OK", LENGTH, CLOSE, body=b"ok"), OK, up_fate=CLOSED
    ),
    "fields of this hop only": Case(
        get(b"Connection: keep-alive, x-hop", b"x-hop: 1", b"Keep-Alive: 5", b"TE: trailers"),
        forwarded(get(b"TE: trailers")),
        answer(b"200 OK", b"Keep-Alive: 5", b"Connection: keep-alive", LENGTH, body=b"ok"),
        OK,
    ),
    "HTTP/1.0": Case(
        TEN, TEN_UP, OK, answer(b"200 OK", LENGTH, CLOSE, body=b"ok"), down_fate=CLOSED
    ),
    "HTTP/1.0 that names a host": Case(
        b"GET http://b.example/x HTTP/1.0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: b.example\r\n" + OWN + b"\r\n",
        OK,
        answer(b"200 OK", LENGTH, CLOSE, body=b"ok"),
        down_fate=CLOSED,
    ),
    "HTTP/1.0, kept": Case(
        TEN_KEEP, TEN_UP, OK, answer(b"200 OK", LENGTH, b"Connection: keep-alive", body=b"ok")
    ),
    "HTTP/1.0 cannot read chunks": Case(
        TEN_KEEP,
        TEN_UP,
        PARTS + b"0\r\nsum: 1\r\n\r\n",
        answer(b"200 OK", CLOSE, body=b"ok"),
        down_fate=CLOSED,
    ),
    "HTTP/1.0 until the end": Case(
        TEN_KEEP,
        TEN_UP,
        answer(b"200 OK", body=b"ok"),
        answer(b"200 OK", CLOSE, body=b"ok"),
        ends=True,
        up_fate=CLOSED,
        down_fate=CLOSED,
    ),
    "the endpoint speaks HTTP/1.0": Case(
        GET, forwarded(GET), b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", OK, up_fate=CLOSED
    ),
    "interim responses": Case(
        GET,
        forwarded(GET),
        answer(b"103 Hints", b"Link: x") + answer(b"102 Soon") + OK,
        answer(b"103 Hints", b"Link: x") + answer(b"102 Soon") + OK,
    ),
    "a 100 that nobody expects": Case(GET, forwarded(GET), answer(b"100 Go") + OK, OK),
    "HTTP/1.0 knows no interim responses": Case(
        TEN_KEEP,
        TEN_UP,
        answer(b"103 Hints", b"Link: x") + OK,
        answer(b"200 OK", LENGTH, b"Connection: keep-alive", body=b"ok"),
    ),
    "octets behind the response": Case(
        GET, forwarded(GET), OK + b"HTTP/1.1 200 OK\r\n\r\n", OK, up_fate=CLOSED
    ),
    "octets behind no body": Case(
        GET,
        forwarded(GET),
        answer(b"204 None") + b"x",
        answer(b"204 None"),
        ok(0, 0, 204),
        up_fate=CLOSED,
    ),
    "octets behind the last chunk": Case(
        GET, forwarded(GET), PARTS + b"0\r\n\r\nx", PARTS + b"0\r\n\r\n", up_fate=CLOSED
    ),
    "octets behind trailers": Case(
        GET,
        forwarded(GET),
        PARTS + b"0\r\nsum: 1\r\n\r\nx",
        PARTS + b"0\r\nsum: 1\r\n\r\n",
        up_fate=CLOSED,
    ),
}


def run(
    harness: Harness, case: Case, requests: list[bytes], responses: list[bytes]
) -> tuple[bytes, bytes, str, str]:
    """Return what came up and down, and what became of the two connections."""
    caller = harness.open()
    for piece in requests:
        caller.send(piece)
        if harness.begun:
            harness.connect()
    (upstream,) = harness.upstreams
    for piece in responses:
        upstream.send(piece)
    if case.ends:
        upstream.end()
    return upstream.take(), caller.take(), upstream.fate, caller.fate


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Return `data` whole, cut in two at each octet, and in single octets."""
    yield [data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("name", CASES)
def test_octets_go_up_and_down(make: Make, name: str) -> None:
    case = CASES[name]
    harness = make()
    seen = run(harness, case, [case.request], [case.response])
    assert seen == (case.up, case.down, case.up_fate, case.down_fate)
    assert harness.outcomes == [case.outcome]


def assert_same(harness: Harness, case: Case, seen: tuple[bytes, bytes, str, str]) -> None:
    """Compare what peers understand: where a chunk is cut is free."""
    up, down, *fates = seen
    method = case.request.partition(b" ")[0]
    assert read_request(up) == read_request(case.up)
    assert read_response(down, method, ended=True) == read_response(case.down, method, ended=True)
    assert fates == [case.up_fate, case.down_fate]
    assert harness.outcomes == [case.outcome]


@pytest.mark.parametrize("name", CASES)
def test_the_place_where_a_request_is_cut_changes_nothing(make: Make, name: str) -> None:
    case = CASES[name]
    for pieces in cuts(case.request):
        harness = make()
        assert_same(harness, case, run(harness, case, pieces, [case.response]))


@pytest.mark.parametrize("name", CASES)
def test_the_place_where_a_response_is_cut_changes_nothing(make: Make, name: str) -> None:
    case = CASES[name]
    for pieces in cuts(case.response):
        harness = make()
        assert_same(harness, case, run(harness, case, [case.request], pieces))


def test_a_connection_is_used_again(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    for _ in range(3):
        upstream.send(OK)
        caller.send(GET)
    assert len(harness.dials) == 1
    assert caller.take() == OK * 3
    assert upstream.take() == forwarded(GET) * 4


def test_a_body_goes_up_as_it_comes(harness: Harness) -> None:
    caller = harness.open(get(b"Content-Length: 6", method=b"PUT") + b"ab")
    upstream = harness.connect()
    assert upstream.take().endswith(b"\r\n\r\nab")
    caller.send(b"cd")
    assert upstream.take() == b"cd"
    caller.send(b"ef")
    assert upstream.take() == b"ef"
    upstream.send(OK)
    assert harness.outcomes == [ok(6)]


@pytest.mark.parametrize("swapped", [False, True])
def test_trailers_of_a_whole_request_wait_with_it_for_a_connection(
    harness: Harness, swapped: bool
) -> None:
    request = POST_CHUNKED + b"0\r\nsum: 1\r\n\r\n"
    caller = harness.open(request[:-4] if swapped else request)
    if swapped:
        upstream = harness.connect()
        caller.send(request[-4:])
    else:
        upstream = harness.connect()
    assert upstream.take() == forwarded(POST_CHUNKED) + b"0\r\nsum: 1\r\n\r\n"
    upstream.send(OK)
    assert caller.take() == OK


def test_a_dial_may_succeed_at_once(harness: Harness) -> None:
    harness.connects_at_once = True
    caller = harness.open(GET)
    harness.upstreams[0].send(OK)
    assert caller.take() == OK
