"""What a policy can say of retries: after which answers, for whose requests, how long after."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from tests.core.harness import GET, OK, Harness, forwarded
from tests.core.test_grpc import MESSAGE, answer, call, trailers_only
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

A, B = "10.0.0.1:80", "10.0.0.2:80"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
WAIT = 1.0  # seconds: longer than any back-off
COUNT = b"x-envoy-attempt-count"


def said(status: int, *lines: str) -> bytes:
    fields = "".join(f"{line}\r\n" for line in ("Content-Length: 0", *lines))
    return f"HTTP/1.1 {status} Said\r\n{fields}\r\n".encode()


def keyed(name: bytes = b"Idempotency-Key") -> bytes:
    return POST.replace(b"\r\n\r\n", b"\r\n%b: 4711\r\n\r\n" % name)


def asked(harness: Harness, request: bytes, first: bytes) -> tuple[FakeTransport, FakeTransport]:
    """Return the caller of `request` and the connection on which `first` has answered it."""
    caller = harness.open(request)
    upstream = harness.connect()
    assert upstream.take() == forwarded(request)
    upstream.send(first)
    return caller, upstream


def tried_again(harness: Harness, request: bytes, first: bytes) -> bool:
    """Say whether `request` is sent once more after `first`."""
    caller, upstream = asked(harness, request, first)
    harness.advance(WAIT)
    if upstream.take() != forwarded(request):
        assert caller.take() == first
        return False
    upstream.send(OK)
    assert caller.take() == OK
    assert harness.outcomes[-1].attempts == 2
    return True


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("role", ["outbound", "inbound"])
def test_without_a_word_what_a_gateway_says_is_tried_again_on_the_way_out(
    make: Make, role: str, status: int
) -> None:
    harness = make(role=role, route={"retry": {}})
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(said(status))
    harness.advance(WAIT)
    assert caller.take() == (b"" if role == "outbound" and status > 500 else said(status))
    upstream.send(OK)


@pytest.mark.parametrize(("request_", "attempts"), [(GET, 2), (keyed(), 2), (POST, 1)])
def test_without_a_word_no_answer_is_tried_again_where_that_does_no_harm(
    make: Make, request_: bytes, attempts: int
) -> None:
    harness = make(endpoints=(A, B), route={"retry": {}})
    caller = harness.open(request_)
    harness.connect().lose()
    harness.advance(WAIT)
    assert len(harness.dials) == attempts
    if attempts == 2:
        harness.connect().send(OK)
        assert caller.take() == OK
    else:
        assert caller.take().startswith(b"HTTP/1.1 502")


HEADERS: dict[str, Any] = {
    "on": ["retriable-headers"],
    "retriable_headers": {"x-again": {"exact": "yes"}, "X-Busy": {"present": True}},
}
LIMITED = "x-envoy-ratelimited: true"


@pytest.mark.parametrize(
    ("retry", "first", "again"),
    [
        (HEADERS, said(200, "X-Again: yes"), True),
        (HEADERS, said(404, "x-busy: 1"), True),
        (HEADERS, said(503, "x-again: no"), False),
        ({**HEADERS, "on": ["retriable-headers", "gateway-error"]}, said(503), True),
        ({"on": ["gateway-error"]}, said(503, LIMITED), False),
        ({"on": ["gateway-error", "envoy-ratelimited"]}, said(503, LIMITED), True),
        ({"on": ["envoy-ratelimited"]}, said(429, LIMITED), True),
        ({"on": ["envoy-ratelimited"]}, said(429), False),
        ({"on": ["retriable-status-codes"], "status_codes": [429]}, said(429, LIMITED), False),
        ({"on": ["refused-stream"]}, said(503), False),
    ],
)
def test_a_response_is_tried_again_for_what_it_says(
    make: Make, retry: dict[str, Any], first: bytes, again: bool
) -> None:
    assert tried_again(make(retry=retry), GET, first) is again


@pytest.mark.parametrize("condition", ["reset-before-request", "reset", "gateway-error", "5xx"])
def test_who_asks_for_retries_of_no_answer_means_no_connection_as_well(
    make: Make, condition: str
) -> None:
    harness = make(endpoints=(A, B), retry={"on": [condition]})
    caller = harness.open(POST)
    harness.fail()
    harness.advance(WAIT)
    harness.connect().send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("condition", ["reset-before-request", "refused-stream"])
def test_what_was_sent_is_not_tried_again_by_who_asks_for_what_was_not(
    make: Make, condition: str
) -> None:
    harness = make(retry={"on": [condition]})
    caller = harness.open(GET)
    harness.connect().lose()
    assert caller.take().startswith(b"HTTP/1.1 502")


@pytest.mark.parametrize(
    ("key", "request_", "again"),
    [
        ({}, POST, False),
        ({}, keyed(), True),
        ({}, keyed(b"idempotency-key"), True),
        ({"idempotency_key": ""}, keyed(), False),
        ({"idempotency_key": "X-Once"}, keyed(), False),
        ({"idempotency_key": "X-Once"}, keyed(b"x-once"), True),
    ],
)
def test_a_key_vouches_for_a_request_of_any_method(
    make: Make, key: dict[str, Any], request_: bytes, again: bool
) -> None:
    assert tried_again(make(retry={"on": ["5xx"], **key}), request_, said(503)) is again


def test_a_key_lets_a_request_follow_a_reused_connection_that_died(harness: Harness) -> None:
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    caller.send(keyed())
    first.lose()
    second = harness.connect()
    assert second.take() == forwarded(keyed())
    second.send(OK)
    assert caller.take() == OK + OK


BUSY: dict[str, Any] = {"on": ["gateway-error"], "backoff": 0.1, "backoff_max": 0.1}


def test_a_response_that_asks_for_time_is_given_it_and_a_back_off_on_top(make: Make) -> None:
    harness = make(retry=BUSY)
    caller, upstream = asked(harness, GET, said(503, "Retry-After: 2"))
    harness.advance(2.04)
    assert upstream.take() == b""
    harness.advance(0.04)
    assert upstream.take() == forwarded(GET)
    upstream.send(OK)
    assert caller.take() == OK


def test_a_response_may_name_a_moment(make: Make) -> None:
    harness = make(retry=BUSY)
    moment = datetime.fromtimestamp(harness.engine.wall() + 3, UTC)
    line = f"Retry-After: {format_datetime(moment, usegmt=True)}"
    caller, upstream = asked(harness, GET, said(503, line))
    harness.advance(2.9)
    assert upstream.take() == b""
    harness.advance(0.2)
    assert upstream.take() == forwarded(GET)
    upstream.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize(
    ("retry", "route", "line", "again"),
    [
        ({}, {}, "Retry-After: 6", False),
        ({}, {}, "RateLimit-Reset: 6", False),
        ({}, {}, "Retry-After: never", True),
        ({}, {}, "Retry-After: 0", True),
        ({"retry_after_max": 0}, {}, "Retry-After: 6", True),
        ({"retry_after_max": 60}, {"timeout": 6}, "Retry-After: 6", False),
    ],
)
def test_who_asks_for_too_much_time_is_not_tried_again(
    make: Make, retry: dict[str, Any], route: dict[str, Any], line: str, again: bool
) -> None:
    harness = make(retry={**BUSY, **retry}, route=route)
    assert tried_again(harness, GET, said(503, line)) is again


@pytest.mark.parametrize(
    ("pushback", "seconds"),
    [(b"", 0.0), (b"700", 0.7), (b"-1", None), (b"9999999999", None), (b"6000", None)],
)
@pytest.mark.parametrize("at", ["head", "trailers"])
def test_a_call_is_tried_again_no_sooner_than_its_server_says(
    make: Make, pushback: bytes, seconds: float | None, at: str
) -> None:
    harness = make(retry={"on": ["unavailable"], "backoff": 0})
    caller = harness.open(call())
    upstream = harness.connect()
    upstream.take()
    line = b"grpc-retry-pushback-ms: " + pushback
    if at == "head":
        full = trailers_only(b"14").replace(b"Content-Length", line + b"\r\nContent-Length")
        upstream.send(full if pushback else trailers_only(b"14"))
    else:
        upstream.send(answer(b"grpc-status: 14", *([line] if pushback else []), body=b""))
    if seconds is None:
        assert b"grpc-status: 14" in caller.take()
        return
    if seconds:
        harness.advance(seconds - 0.02)
        assert upstream.take() == b""
    harness.advance(0.05)
    assert upstream.take().endswith(MESSAGE)
    upstream.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")


@pytest.mark.parametrize("line", [b"", b"X-Envoy-Attempt-Count: 7\r\n"])
def test_an_endpoint_can_be_told_which_try_it_is(make: Make, line: bytes) -> None:
    harness = make(endpoints=(A, B), retry={"attempt_count": True, "on": ["5xx"]})
    caller = harness.open(GET.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n"))
    harness.fail()
    harness.advance(WAIT)
    second = harness.connect()
    asked_second = second.take()
    second.send(said(500))
    harness.advance(WAIT)
    third = harness.connect() if harness.begun else second
    for request, number in ((asked_second, b"2"), (third.take(), b"3")):
        lines = [x for x in request.split(b"\r\n") if x.lower().startswith(COUNT)]
        assert lines == [COUNT + b": " + number]
    third.send(OK)
    assert caller.take() == OK
