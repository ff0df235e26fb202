"""What a broken request is answered, at whatever point it breaks, and that it goes nowhere."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, OK, Harness, Outcome, forwarded
from tests.core.reading import Message, read_response
from tests.core.transport import CLOSED, HALF, OPEN, RESET

Make = Callable[..., Harness]

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE = b"1\r\na\r\n"


def own(data: bytes) -> tuple[int, str, bool]:
    """Return status and code of an answer of ours, and whether it announces the close."""
    message = read_response(data)
    assert isinstance(message, Message)
    code = message.body.decode().partition("code ")[2].partition(",")[0]
    return message.start[0], code, (b"Connection", b"close") in message.fields


BROKEN_HEADS = {
    b"GET / HTTP/1.1\r\n\r\n": (400, "bad-host"),
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n": (400, "bad-start-line"),
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n": (400, "bad-field"),
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n": (505, "bad-version"),
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n": (405, "connect-refused"),
    b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n": (417, "bad-expectation"),
    CHUNKED + b"zz\r\n": (400, "bad-chunk-size"),
    CHUNKED + b"1\r\nab": (400, "bad-chunk"),
    CHUNKED + b"0\r\nhost: b\r\n\r\n": (400, "bad-trailer"),
}


@pytest.mark.parametrize("data", BROKEN_HEADS)
def test_a_broken_request_goes_nowhere(harness: Harness, data: bytes) -> None:
    caller = harness.open(data + GET)
    assert own(caller.take()) == (*BROKEN_HEADS[data], True)
    assert caller.fate == HALF  # the caller can read the answer before the end
    assert harness.dials == []
    assert harness.outcomes == []
    code = BROKEN_HEADS[data][1]
    assert harness.sink.refusals == [("outbound|127.0.0.1:15001", code, "10.9.9.9:5000")]
    caller.send(GET)
    assert caller.take() == b""
    caller.end()
    assert caller.is_gone


def test_a_caller_that_never_ends_is_cut_off(harness: Harness) -> None:
    caller = harness.open(b"GET nonsense\r\n\r\n")
    harness.advance(1.9)
    assert not caller.is_gone
    harness.advance(0.2)
    assert caller.fate == RESET


@pytest.mark.parametrize("connected", [False, True])
def test_a_body_that_turns_out_broken_is_answered(harness: Harness, connected: bool) -> None:
    caller = harness.open(CHUNKED + ONE)
    upstreams = [harness.connect()] if connected else []
    assert [u.take() for u in upstreams] == [forwarded(CHUNKED) + ONE] * connected
    caller.send(b"zz\r\n")
    assert own(caller.take()) == (400, "bad-chunk-size", True)
    assert caller.fate == HALF
    assert harness.outcomes == [Outcome(400, "bad-chunk-size", "DPE", 1, 1, 0, "10.0.0.1:80")]
    if not connected:
        upstreams.append(harness.connect())
    (upstream,) = upstreams
    assert upstream.take() == b""
    # What has gone up must not be taken for whole; what has not is of use to the next.
    assert upstream.fate == (RESET if connected else OPEN)


def test_a_body_that_turns_out_broken_behind_a_response_cuts_it(harness: Harness) -> None:
    caller = harness.open(CHUNKED + ONE)
    upstream = harness.connect()
    upstream.send(OK[:-1])
    caller.send(b"zz\r\n")
    assert caller.take() == OK[:-1]
    assert (caller.fate, upstream.fate) == (RESET, RESET)
    assert harness.outcomes == [Outcome(200, "bad-chunk-size", "DPE", 1, 1, 1, "10.0.0.1:80")]


def test_a_broken_rest_of_an_answered_request_gets_no_second_answer(harness: Harness) -> None:
    caller = harness.open(CHUNKED + ONE)
    upstream = harness.connect()
    upstream.send(OK)
    assert caller.take() == OK
    caller.send(b"zz\r\n")
    assert caller.take() == b""
    assert caller.fate == HALF
    assert harness.sink.refusals == []
    assert [o.status for o in harness.outcomes] == [200]


def test_a_broken_request_behind_a_good_one_waits_for_its_turn(harness: Harness) -> None:
    caller = harness.open(GET + b"nonsense\r\n\r\n")
    upstream = harness.connect()
    assert upstream.take() == forwarded(GET)
    assert caller.take() == b""
    upstream.send(OK)
    data = caller.take()
    assert data[: len(OK)] == OK
    assert own(data[len(OK) :]) == (400, "bad-start-line", True)
    assert upstream.fate == OPEN


def test_a_head_that_is_too_slow_is_answered(make: Make) -> None:
    harness = make(listener={"request_head_timeout": 10})
    caller = harness.open(b"GET / HT")
    harness.advance(9)
    caller.send(b"TP/1.1\r\n")  # more octets do not make it last longer
    harness.advance(1.1)
    assert own(caller.take()) == (408, "request-head-timeout", True)
    assert caller.fate == HALF


def test_a_connection_without_a_request_is_closed_in_the_end(make: Make) -> None:
    harness = make(listener={"idle_timeout": 60})
    caller = harness.open()
    harness.advance(59)
    assert caller.fate == OPEN
    harness.advance(2)
    assert caller.fate == CLOSED
    assert caller.take() == b""


def test_an_idle_timeout_of_zero_is_none(make: Make) -> None:
    harness = make(listener={"idle_timeout": 0})
    caller = harness.open()
    harness.advance(100_000)
    assert caller.fate == OPEN


def test_plaintext_is_told_why_where_tls_is_served(make: Make) -> None:
    tls = {"certificate": "a", "key": "b"}
    harness = make(role="inbound", listener={"mtls": "off", "tls": tls})
    caller = harness.open(GET)
    assert own(caller.take()) == (400, "tls-required", True)
    assert caller.fate == CLOSED
    assert harness.sink.refusals[0][1] == "tls-required"


def test_a_caller_of_a_listener_with_tls_that_stays_silent_is_closed(make: Make) -> None:
    tls = {"certificate": "a", "key": "b"}
    harness = make(role="inbound", listener={"mtls": "off", "tls": tls, "handshake_timeout": 5})
    caller = harness.open()
    harness.advance(4)
    assert caller.fate == OPEN
    harness.advance(2)
    assert caller.fate != OPEN
    assert harness.sink.refusals[0][1] == "handshake-timeout"


def test_plaintext_is_told_why_where_it_is_not_served(make: Make) -> None:
    certificates = {"certificate": "a", "key": "b", "roots": "c"}
    harness = make(role="inbound", listener={"mtls": "strict"}, certificates=certificates)
    caller = harness.open(GET)
    assert own(caller.take()) == (400, "plaintext-refused", True)
    assert caller.fate == CLOSED
    assert harness.sink.refusals[0][1] == "plaintext-refused"
