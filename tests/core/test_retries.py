"""When one exchange becomes several attempts, and when it must not."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, OK, Harness, Outcome, forwarded
from tests.core.transport import CLOSED, OPEN

Make = Callable[..., Harness]

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
PUT = POST.replace(b"POST", b"PUT")
UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
RESETS: dict[str, Any] = {"on": ["connect-failure", "reset"]}
WAIT = 1.0  # seconds: longer than any back-off


def busy(status: int, *, whole: bool = True) -> bytes:
    body = b"no" if whole else b"n"
    return b"HTTP/1.1 %d Busy\r\nContent-Length: 2\r\n\r\n%b" % (status, body)


def status_of(data: bytes) -> int:
    return int(data[9:12])


@pytest.mark.parametrize("asked", [GET, POST, UPGRADE])
def test_a_failed_connect_is_tried_elsewhere_whatever_the_request(make: Make, asked: bytes) -> None:
    harness = make(endpoints=(A, B))
    caller = harness.open(asked)
    first = harness.dials[0].address
    harness.fail()
    harness.advance(WAIT)
    upstream = harness.connect()
    assert harness.dials[1].address != first
    upstream.send(OK)
    assert caller.take() == OK
    assert harness.outcomes[0][:4] == (200, "", "", 2)
    assert harness.endpoint(first).failures == 1


def test_every_endpoint_is_tried_before_one_is_tried_again(make: Make) -> None:
    harness = make(endpoints=(A, B, C), retry={"attempts": 4})
    harness.open(GET)
    for _ in range(4):
        harness.fail()
        harness.advance(WAIT)
    assert sorted(d.address for d in harness.dials[:3]) == [A, B, C]
    assert len(harness.dials) == 4


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_attempts_are_counted_and_end(make: Make, attempts: int) -> None:
    harness = make(retry={"attempts": attempts})
    caller = harness.open(GET)
    for _ in range(attempts):
        harness.fail("connect-timeout")
        harness.advance(WAIT)
    assert len(harness.dials) == attempts
    assert status_of(caller.take()) == 503
    assert harness.outcomes == [Outcome(503, "connect-timeout", "UF", attempts, 0, *_size(harness))]


def _size(harness: Harness) -> tuple[int, str]:
    return harness.outcomes[0].bytes_out, A


def test_who_asks_for_other_retries_only_gets_no_retry_of_a_connect(make: Make) -> None:
    harness = make(retry={"on": ["retriable-4xx"]})
    caller = harness.open(GET)
    harness.fail()
    assert status_of(caller.take()) == 503
    assert len(harness.dials) == 1


RESET_CASES: dict[str, tuple[dict[str, Any], bytes, int]] = {
    "idempotent and asked for": (RESETS, GET, 2),
    "with a body": (RESETS, PUT, 2),
    "5xx includes it": ({"on": ["5xx"]}, GET, 2),
    "not asked for": ({}, GET, 1),
    "not idempotent": (RESETS, POST, 1),
    "an upgrade": (RESETS, UPGRADE, 1),
    "no attempt left": ({**RESETS, "attempts": 1}, GET, 1),
}


@pytest.mark.parametrize("name", RESET_CASES)
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_connection_that_dies_before_the_response(
    make: Make, name: str, error: Exception | None
) -> None:
    retry, asked, attempts = RESET_CASES[name]
    harness = make(retry=retry)
    caller = harness.open(asked)
    harness.connect().lose(error)
    harness.advance(WAIT)
    assert len(harness.dials) == attempts
    if attempts == 1:
        assert status_of(caller.take()) == 502
        assert harness.outcomes[0][:4] == (502, "upstream-closed", "UC", 1)
        return
    second = harness.connect()
    assert second.take() == forwarded(asked)
    second.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("asked", [GET, PUT])
def test_a_reused_connection_that_dies_is_replaced_at_once(make: Make, asked: bytes) -> None:
    harness = make(retry={"attempts": 1}, limits={"retries": 0, "retry_budget": 0.0})
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    caller.send(asked)
    assert harness.state().requests == 1
    first.lose()
    second = harness.connect()
    assert second.take() == forwarded(asked)
    second.send(OK)
    assert caller.take() == OK + OK
    assert [o.attempts for o in harness.outcomes] == [1, 2]


def test_the_replacement_of_a_reused_connection_is_new(make: Make) -> None:
    harness = make()
    callers = [harness.open(GET) for _ in range(3)]
    upstreams = [harness.connect() for _ in range(3)]
    for upstream in upstreams:
        upstream.send(OK)
    callers[0].send(GET)
    (used,) = (u for u in upstreams if u.take() == forwarded(GET) * 2)
    used.lose()
    assert len(harness.begun) == 1  # the two idle ones may be as dead
    harness.connect().send(OK)
    assert callers[0].take() == OK + OK


def test_a_reused_connection_that_dies_under_a_post_is_an_error(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    caller.send(POST)
    upstream.lose()
    assert harness.outcomes[1][:4] == (502, "upstream-closed", "UC", 1)
    assert len(harness.dials) == 1


def test_a_replacement_that_dies_as_well_is_not_a_reused_one(harness: Harness) -> None:
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    caller.send(GET)
    first.lose()
    harness.connect().lose()
    assert harness.outcomes[1][:4] == (502, "upstream-closed", "UC", 2)
    assert len(harness.dials) == 2


STATUS_CASES: dict[str, tuple[dict[str, Any], int, bool]] = {
    "gateway error": ({"on": ["gateway-error"]}, 503, True),
    "not a gateway error": ({"on": ["gateway-error"]}, 500, False),
    "5xx": ({"on": ["5xx"]}, 500, True),
    "409": ({"on": ["retriable-4xx"]}, 409, True),
    "listed": ({"on": ["retriable-status-codes"], "status_codes": [418]}, 418, True),
    "not listed": ({"on": ["retriable-status-codes"], "status_codes": [418]}, 419, False),
    "nothing asked for": ({}, 503, False),
}


@pytest.mark.parametrize("name", STATUS_CASES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_status_is_tried_again_where_asked_for(make: Make, name: str, whole: bool) -> None:
    retry, status, again = STATUS_CASES[name]
    harness = make(retry={**retry, "attempts": 2})
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(busy(status, whole=whole))
    if not again:
        if not whole:
            upstream.send(b"o")
        assert caller.take() == busy(status)
        return
    assert caller.take() == b""
    harness.advance(WAIT)
    if whole:  # the connection is as good as it was
        assert upstream.take() == forwarded(GET) * 2
    else:
        assert upstream.fate != OPEN
        upstream = harness.connect()
    upstream.send(busy(status))  # the last attempt's response is the response
    assert caller.take() == busy(status)
    assert harness.outcomes[0][:4] == (status, "", "", 2)


def test_a_status_is_not_tried_again_for_what_may_have_had_effect(make: Make) -> None:
    harness = make(retry={"on": ["5xx"]})
    caller = harness.open(POST)
    harness.connect().send(busy(503))
    assert caller.take() == busy(503)


def test_a_body_that_is_no_longer_held_is_not_sent_again(make: Make) -> None:
    harness = make(retry=RESETS, route={"buffer_limit": 10})
    caller = harness.open(PUT.replace(b": 2", b": 22") + b"x" * 9)
    upstream = harness.connect()
    upstream.lose()
    harness.advance(WAIT)
    assert harness.outcomes[0][:2] == (502, "upstream-closed")
    assert status_of(caller.take()) == 502


def test_a_body_that_outgrows_the_limit_is_not_sent_again(make: Make) -> None:
    harness = make(retry=RESETS, route={"buffer_limit": 10})
    caller = harness.open(PUT.replace(b": 2", b": 22"))
    upstream = harness.connect()
    caller.send(b"x" * 9)
    upstream.lose()
    harness.advance(WAIT)
    assert harness.outcomes[0][:2] == (502, "upstream-closed")


def test_a_body_of_any_size_is_sent_when_the_connection_comes(make: Make) -> None:
    harness = make(endpoints=(A, B), route={"buffer_limit": 10})
    caller = harness.open(POST.replace(b": 2", b": 22") + b"x" * 9)
    harness.fail()
    caller.send(b"y" * 11)
    harness.advance(WAIT)
    upstream = harness.connect()
    assert upstream.take().endswith(b"\r\n\r\nhi" + b"x" * 9 + b"y" * 11)
    upstream.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize(
    ("limits", "attempts"),
    [
        ({"retries": 0, "retry_budget": 0.0}, 1),
        ({"retries": 1, "retry_budget": 0.0}, 2),
        ({"retries": 0, "retry_budget": 0.2}, 2),
    ],
)
def test_retries_have_a_budget(make: Make, limits: dict[str, Any], attempts: int) -> None:
    harness = make(limits=limits)
    harness.open(GET)
    harness.fail()
    harness.advance(WAIT)
    assert len(harness.dials) == attempts


def test_a_budget_is_shared_and_given_back(make: Make) -> None:
    harness = make(limits={"retries": 1, "retry_budget": 0.0})
    first, second = harness.open(GET), harness.open(GET)
    harness.fail()
    harness.fail()
    assert status_of(second.take()) == 503  # the first one's retry is under way
    harness.advance(WAIT)
    harness.fail()  # one exchange counts once, however often it retries
    harness.advance(WAIT)
    harness.connect().send(OK)
    assert first.take() == OK
    third = harness.open(GET.replace(b"GET", b"PUT"))
    harness.upstreams[0].lose()  # the reused one dies
    harness.connect().send(OK)
    assert third.take() == OK


def test_the_wait_before_a_retry_grows_and_is_capped(make: Make) -> None:
    harness = make(retry={"attempts": 5, "backoff": 1, "backoff_max": 3})
    harness.open(GET)
    for wait in (1.0, 1.5, 1.5, 1.5):  # half, by chance, of 2, 3 (not 4), 3 and 3
        dials = len(harness.dials)
        harness.fail()
        harness.advance(wait - 0.02)
        assert len(harness.dials) == dials
        harness.advance(0.04)
        assert len(harness.dials) == dials + 1


def test_a_body_that_ends_during_the_wait_does_not_lengthen_it(make: Make) -> None:
    harness = make(endpoints=(A, B))
    caller = harness.open(POST[:-1])
    harness.fail()
    caller.send(POST[-1:])
    harness.advance(WAIT)
    upstream = harness.connect()
    assert upstream.take() == forwarded(POST)
    upstream.send(OK)
    assert caller.take() == OK


def test_the_route_s_timeout_ends_a_wait(make: Make) -> None:
    harness = make(route={"timeout": 2}, retry={"backoff": 10, "backoff_max": 20})
    caller = harness.open(GET)
    harness.fail()
    harness.advance(2.1)
    assert status_of(caller.take()) == 504
    assert harness.outcomes[0][:4] == (504, "upstream-timeout", "UT", 1)


PER_TRY = {"per_try_timeout": 1}


@pytest.mark.parametrize("late", ["connects", "fails", "never"])
def test_a_try_that_never_connects_is_given_up_for_good(make: Make, late: str) -> None:
    harness = make(endpoints=(A, B), retry=PER_TRY)
    caller = harness.open(POST)
    harness.advance(1.5)
    first, second = harness.dials
    assert first.address != second.address
    if late == "connects":
        assert first.connect().take() == b""
    elif late == "fails":
        first.fail()
        assert harness.endpoint(second.address).failures == 0
    upstream = second.connect()
    assert upstream.take() == forwarded(POST)
    upstream.send(OK)
    assert caller.take() == OK
    assert harness.outcomes == [Outcome(200, "", "", 2, 2, 2, second.address)]


def test_a_try_without_an_answer_is_repeated_where_asked_for(make: Make) -> None:
    harness = make(endpoints=(A, B), retry={**PER_TRY, **RESETS})
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(1.5)
    assert first.fate == CLOSED
    harness.connect().send(OK)
    assert caller.take() == OK


def test_a_try_without_an_answer_ends_it_where_not(make: Make) -> None:
    harness = make(retry=PER_TRY)
    caller = harness.open(GET)
    upstream = harness.connect()
    harness.advance(1.1)
    assert upstream.fate == CLOSED
    assert status_of(caller.take()) == 504
    assert harness.outcomes[0][:4] == (504, "per-try-timeout", "UT", 1)


def test_a_retry_may_find_no_room(make: Make) -> None:
    harness = make(endpoints=(A,), limits={"pending": 1})
    caller = harness.open(GET)
    harness.fail()
    other = harness.open(GET)
    harness.advance(WAIT)
    assert status_of(caller.take()) == 503
    assert harness.outcomes[0][:4] == (503, "pending-overflow", "UO", 2)
    harness.connect().send(OK)
    assert other.take() == OK


def test_a_retry_may_find_no_endpoint(make: Make) -> None:
    harness = make(cluster={"dns": "a.example:80", "endpoints": []})
    caller = harness.open(GET)
    assert status_of(caller.take()) == 503
    assert harness.outcomes[0][:3] == (503, "no-endpoint", "UH")
    harness.state().resolved = ()
    caller.send(GET)
    assert harness.outcomes[1][:3] == (503, "dns-failed", "DF")
    assert caller.fate != CLOSED


def test_a_status_with_trailers_is_tried_again_as_well(make: Make) -> None:
    harness = make(retry={"on": ["5xx"], "attempts": 2})
    caller = harness.open(GET)
    head = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
    harness.connect().send(head + b"1\r\nx\r\n0\r\na: 1\r\n\r\n")
    harness.advance(WAIT)
    harness.connect().send(OK)
    assert caller.take() == OK
