"""Which connection a request gets: limits, queues, eviction, age, and what a push changes."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, OK, Harness, forwarded
from tests.core.transport import CLOSED, OPEN, FakeTransport

Make = Callable[..., Harness]

A, B = "10.0.0.1:80", "10.0.0.2:80"
CLOSING = OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


def to(host: bytes) -> bytes:
    return GET.replace(b"Host: a", b"Host: " + host)


def opened(harness: Harness) -> FakeTransport:
    """Return an idle connection to the endpoint."""
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    caller.lose()
    upstream.take()
    return upstream


def test_an_idle_connection_is_closed_in_time(make: Make) -> None:
    harness = make(cluster={"idle_timeout": 10})
    upstream = opened(harness)
    harness.advance(9)
    assert upstream.fate == OPEN
    harness.advance(2)
    assert upstream.fate == CLOSED


def test_a_used_connection_is_idle_from_its_last_response(make: Make) -> None:
    harness = make(cluster={"idle_timeout": 10})
    upstream = opened(harness)
    harness.advance(9)
    harness.open(GET)
    harness.advance(9)
    upstream.send(OK)
    harness.advance(9)
    assert upstream.fate == OPEN
    harness.advance(2)
    assert upstream.fate == CLOSED


@pytest.mark.parametrize("end", ["octets", "end", "loss"])
def test_an_idle_connection_that_says_something_is_not_used_again(
    harness: Harness, end: str
) -> None:
    upstream = opened(harness)
    with harness.together():  # in one turn of the loop with the next request
        if end == "octets":
            upstream.send(OK)
        elif end == "end":
            upstream.end()
        else:
            upstream.lose()
        caller = harness.open()
        caller.send(POST)
    assert upstream.take() == b""
    second = harness.connect()
    assert second.take() == forwarded(POST)
    second.send(OK)
    assert caller.take() == OK


def test_a_connection_has_only_so_many_requests(make: Make) -> None:
    harness = make(cluster={"max_requests_per_connection": 2})
    caller = harness.open(GET * 3)
    upstream = harness.connect()
    upstream.send(OK)
    upstream.send(OK)
    assert upstream.fate == CLOSED
    harness.connect().send(OK)
    assert caller.take() == OK * 3


@pytest.mark.parametrize("answer", [OK, CLOSING])
def test_over_the_limit_requests_wait_in_order(make: Make, answer: bytes) -> None:
    harness = make(limits={"connections": 1})
    callers = [harness.open(to(b"%d" % i)) for i in range(4)]
    for index, caller in enumerate(callers):
        if harness.begun:
            harness.connect()
        upstream = harness.upstreams[-1]
        assert upstream.take() == forwarded(to(b"%d" % index))
        upstream.send(answer)
        assert caller.take() == OK
    assert len(harness.dials) == (1 if answer == OK else 4)


def test_a_place_that_becomes_free_is_used_though_others_are_busy(make: Make) -> None:
    harness = make(limits={"connections": 3})
    for _ in range(3):
        harness.open(GET)
    first, *_ = [harness.connect() for _ in range(3)]
    waiting = harness.open(to(b"late"))
    first.send(CLOSING)
    upstream = harness.connect()
    assert upstream.take() == forwarded(to(b"late"))
    upstream.send(OK)
    assert waiting.take() == OK


def test_the_queue_has_a_limit(make: Make) -> None:
    harness = make(limits={"connections": 1, "pending": 1})
    first, second, third = (harness.open(GET) for _ in range(3))
    assert second.take()[:12] == third.take()[:12] == b"HTTP/1.1 503"
    assert harness.outcomes[0][:3] == (503, "pending-overflow", "UO")
    upstream = harness.connect()
    fourth = harness.open(GET)
    upstream.send(OK)
    upstream.send(OK)
    assert first.take() == fourth.take() == OK


@pytest.mark.parametrize(("given", "seconds"), [({}, 5.0), ({"pending_timeout": 0.5}, 0.5)])
def test_who_waits_too_long_is_told(make: Make, given: dict[str, Any], seconds: float) -> None:
    harness = make(limits={"connections": 1, **given}, retry={"attempts": 3})
    first = harness.open(GET)
    upstream = harness.connect()
    waiting = harness.open(GET)
    harness.advance(seconds - 0.02)
    assert waiting.take() == b""
    harness.advance(0.04)
    said = waiting.take()
    assert said.startswith(b"HTTP/1.1 503")
    assert b"code pending-timeout, flag UO" in said
    assert b"all 1 connections of app are in use" in said
    assert harness.state().pending == 0
    assert harness.endpoint().failures == 0
    upstream.send(OK)
    assert first.take() == OK


def test_who_is_served_in_time_or_dialled_for_hears_nothing_of_it(make: Make) -> None:
    harness = make(limits={"connections": 1, "pending_timeout": 1})
    callers = [harness.open(GET) for _ in range(2)]
    harness.advance(2)  # the first waits for its own connection
    assert callers[1].take().startswith(b"HTTP/1.1 503")
    upstream = harness.connect()
    late = harness.open(GET)
    upstream.send(OK)
    harness.advance(2)
    upstream.send(OK)
    assert (callers[0].take(), late.take()) == (OK, OK)


def test_who_may_wait_for_ever_does(make: Make) -> None:
    harness = make(limits={"connections": 1, "pending_timeout": 0}, route={"timeout": 0})
    harness.open(GET)
    upstream = harness.connect()
    waiting = harness.open(GET)
    harness.advance(100)
    upstream.send(OK)
    upstream.send(OK)
    assert waiting.take() == OK


def test_who_has_gone_leaves_the_queue(make: Make) -> None:
    harness = make(limits={"connections": 1, "pending": 2})
    harness.open(GET)
    upstream = harness.connect()
    gone, last = harness.open(to(b"gone")), harness.open(to(b"last"))
    assert harness.state().pending == 2
    gone.lose()
    assert harness.state().pending == 1
    upstream.take()
    upstream.send(OK)
    assert upstream.take() == forwarded(to(b"last"))
    upstream.send(OK)
    assert last.take() == OK


def test_requests_under_way_have_a_limit(make: Make) -> None:
    harness = make(limits={"requests": 1})
    first, second = harness.open(GET), harness.open(GET)
    assert second.take()[:12] == b"HTTP/1.1 503"
    assert harness.outcomes[0][:3] == (503, "requests-overflow", "UO")
    harness.connect().send(OK)
    assert first.take() == OK


def test_an_idle_connection_makes_room_for_another_endpoint(make: Make) -> None:
    harness = make(endpoints=(A, B), limits={"connections": 1})
    upstream = opened(harness)
    caller = harness.open(GET)  # round robin: the other endpoint's turn
    assert upstream.fate == CLOSED
    assert harness.begun[0].address != harness.dials[0].address
    harness.connect().send(OK)
    assert caller.take() == OK


def test_a_connection_that_becomes_idle_makes_room_for_another_endpoint(make: Make) -> None:
    harness = make(endpoints=(A, B), limits={"connections": 1})
    harness.open(GET)
    upstream = harness.connect()
    caller = harness.open(GET)
    assert harness.begun == []
    upstream.send(OK)
    assert upstream.fate == CLOSED
    assert harness.begun[0].address != harness.dials[0].address
    harness.connect().send(OK)
    assert caller.take() == OK


def test_nobody_closes_for_one_who_is_dialled_for(make: Make) -> None:
    harness = make(endpoints=(A, B), limits={"connections": 2})
    harness.open(GET)
    upstream = harness.connect()
    harness.open(GET)
    upstream.send(OK)
    assert upstream.fate == OPEN
    harness.connect().send(OK)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_dial_that_fails_is_not_repeated_for_one_who_has_given_up(
    make: Make, attempts: int
) -> None:
    harness = make(retry={"attempts": attempts})
    harness.open(GET)
    for _ in range(attempts):
        assert len(harness.begun) == 1
        harness.fail()
        assert harness.begun == []
        harness.advance(1)
    assert len(harness.dials) == attempts


def test_a_dial_that_fails_leaves_its_place_to_the_next(make: Make) -> None:
    harness = make(limits={"connections": 1}, retry={"attempts": 1})
    first, second = harness.open(GET), harness.open(to(b"second"))
    harness.fail()
    assert first.take()[:12] == b"HTTP/1.1 503"
    upstream = harness.connect()
    assert upstream.take() == forwarded(to(b"second"))
    upstream.send(OK)
    assert second.take() == OK


def test_a_free_connection_goes_to_who_waits_for_a_dial(harness: Harness) -> None:
    first = harness.open(GET)
    upstream = harness.connect()
    second = harness.open(GET)
    upstream.send(OK)
    upstream.send(OK)
    assert (first.take(), second.take()) == (OK, OK)
    late = harness.connect()
    assert late.take() == b""
    third = harness.open(GET)
    late.send(OK)
    assert third.take() == OK


CHANGES: dict[str, dict[str, Any]] = {
    "TLS": {"cluster": {"tls": "simple"}},
    "the PROXY header": {"cluster": {"proxy_protocol": "v1"}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_push_that_makes_connections_unfit_retires_them(harness: Harness, name: str) -> None:
    idle = opened(harness)
    busy_caller = harness.open(GET)
    harness.open(GET).lose()
    spare = harness.connect()
    harness.swap(**CHANGES[name])
    assert spare.fate == CLOSED
    idle.send(OK[:-1])
    assert busy_caller.take() == OK[:-1]  # what is under way is not disturbed
    idle.send(OK[-1:])
    assert busy_caller.take() == OK[-1:]
    assert idle.fate == CLOSED
    harness.open(GET)
    assert len(harness.begun) == 1


def test_a_push_that_changes_nothing_leaves_connections_alone(harness: Harness) -> None:
    upstream = opened(harness)
    harness.swap(route={"name": "other"})
    caller = harness.open(GET)
    upstream.send(OK)
    assert caller.take() == OK


def test_an_exchange_keeps_the_plan_it_began_with(make: Make) -> None:
    harness = make(retry={"attempts": 2})
    caller = harness.open(GET)
    harness.fail()
    harness.swap(route={"match": {"path": "/elsewhere"}})
    harness.advance(1)
    harness.connect().send(OK)
    assert caller.take() == OK
    caller.send(GET)
    assert caller.take()[:12] == b"HTTP/1.1 404"


def test_an_endpoint_that_is_taken_away_finishes_what_it_has(make: Make) -> None:
    harness = make(endpoints=(A, B))
    callers = [harness.open(GET) for _ in range(4)]
    upstreams = [harness.connect() for _ in range(4)]
    for upstream in upstreams[:2]:
        upstream.send(OK)
    harness.swap(endpoints=(B,))
    assert sorted(u.fate for u in upstreams) == [CLOSED, OPEN, OPEN, OPEN]
    for upstream in upstreams[2:]:
        upstream.send(OK)
    assert [c.take() for c in callers] == [OK] * 4
    harness.swap(endpoints=(A, B))
    assert harness.endpoint(B).requests == 2


def test_a_cluster_that_is_taken_away_finishes_what_it_has(harness: Harness) -> None:
    idle = opened(harness)
    caller = harness.open(GET)
    waiting = harness.open(GET)
    other = {"name": "other", "endpoints": [B]}
    harness.swap(route={"cluster": "other"}, cluster={"name": "app2"}, clusters=[other])
    idle.send(OK)
    assert caller.take() == OK
    assert idle.fate == CLOSED
    harness.connect().send(OK)
    assert waiting.take() == OK


def test_a_connection_that_names_its_caller_is_nobody_else_s(make: Make) -> None:
    harness = make(cluster={"proxy_protocol": "v2"})
    callers = [harness.open(to(b"%d" % i)) for i in range(2)]
    ports = [d.caller.port for d in harness.begun if d.caller is not None]
    assert ports == [5000, 5001]
    second, first = harness.begun[1].connect(), harness.begun[0].connect()
    assert second.take() == forwarded(to(b"1"))
    second.send(OK)
    first.send(OK)
    assert [c.take() for c in callers] == [OK, OK]
    assert (first.fate, second.fate) == (CLOSED, CLOSED)  # used once
    callers[0].send(GET)
    assert len(harness.begun) == 1


def test_a_connection_that_names_a_caller_that_has_gone_is_not_used(make: Make) -> None:
    harness = make(cluster={"proxy_protocol": "v1"})
    harness.open(GET).lose()
    upstream = harness.connect()
    assert upstream.take() == b""
    assert upstream.fate == CLOSED
    harness.open(GET).lose()
    harness.fail()
    assert harness.state().connections == 0


def test_connections_that_name_callers_have_the_same_limit_and_retries(make: Make) -> None:
    harness = make(cluster={"proxy_protocol": "v1"}, limits={"connections": 1})
    first, second = harness.open(GET), harness.open(GET)
    assert second.take()[:12] == b"HTTP/1.1 503"
    harness.fail()
    harness.advance(1)
    harness.connect().send(OK)
    assert first.take() == OK


def test_an_endpoint_on_a_unix_socket_gets_an_empty_host(make: Make) -> None:
    harness = make(endpoints=("unix:/run/app.sock",))
    harness.open(b"GET / HTTP/1.0\r\n\r\n")
    assert harness.connect().take().endswith(b"\r\nHost: \r\n\r\n")


def test_a_retry_by_an_older_plan_uses_no_unfit_connection(make: Make) -> None:
    harness = make(endpoints=(A, B), retry={"attempts": 3})
    old = harness.open(GET)
    away = harness.dials[0].address
    kept = B if away == A else A
    upstream = harness.connect()
    failing = harness.open(GET)
    harness.fail()  # waits for its retry, at the endpoint that is taken away
    harness.swap(endpoints=(kept,))
    upstream.send(OK)
    assert old.take() == OK
    harness.swap(endpoints=(kept,), cluster={"proxy_protocol": "v1"})
    harness.advance(1)
    assert upstream.fate == CLOSED
    assert harness.begun[0].address == away
    harness.connect().send(OK)
    assert failing.take() == OK
