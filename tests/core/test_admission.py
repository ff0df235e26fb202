"""Requests that a cluster has no room for, by its limit, its latency or its failures."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.admission import Guard
from sidecar.telemetry.metrics import guards
from sidecar.traffic.gradient import Gradient
from tests.core.harness import GET, OK, Harness
from tests.core.test_grpc import answer, call, trailers_only
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

LATENCY: dict[str, Any] = {
    "adaptive_concurrency": {
        "min_rtt_request_count": 1,
        "concurrency_update_interval": 0.01,
        "max_concurrency_limit": 50,
        "enabled": True,
    }
}
FAILURES: dict[str, Any] = {"admission_control": True}
ERROR = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
LIMITED = b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n"
NO_ANSWER = b""


def ask(harness: Harness, response: bytes, seconds: float = 0.0, request: bytes = GET) -> None:
    """Send a request, have it answered with `response` after `seconds`, or not at all."""
    before = len(harness.outcomes)
    caller = harness.open(request)
    if harness.begun:
        harness.connect()
    (upstream,) = (u for u in harness.upstreams if u.take())
    harness.advance(seconds)
    if response:
        upstream.send(response)
    else:
        upstream.lose()
    assert len(harness.outcomes) == before + 1
    caller.lose()


def guard_of(harness: Harness) -> Guard:
    guard = harness.state().guard
    assert guard is not None
    return guard


def gradient_of(harness: Harness) -> Gradient:
    gradient = guard_of(harness).gradient
    assert gradient is not None
    return gradient


def under_way(harness: Harness, count: int) -> list[FakeTransport]:
    """Return `count` callers that wait for an answer."""
    callers = [harness.open(GET) for _ in range(count)]
    while harness.begun:
        harness.connect()
    for upstream in harness.upstreams:
        upstream.take()
    return callers


def shrunk(make: Make, **config: Any) -> Harness:
    """Return a harness whose limit is at its least: answers take ten times as long as at first."""
    harness = make(cluster=LATENCY, **config)
    ask(harness, OK, 0.1)
    for _ in range(4):
        for _ in range(10):
            ask(harness, OK, 1.0)
    return harness


def test_the_limit_is_the_configured_one_until_latency_grows(make: Make) -> None:
    harness = make(cluster=LATENCY, limits={"requests": 40})
    assert harness.state().room == 40
    ask(harness, OK, 0.1)
    for _ in range(11):
        ask(harness, OK, 0.1)
    assert (harness.state().room, gradient_of(harness).limit) == (40, 50)
    for _ in range(10):
        ask(harness, OK, 1.0)
    assert harness.state().room == gradient_of(harness).limit == 30


def test_what_would_only_wait_is_refused_and_says_who_decided(make: Make) -> None:
    harness = shrunk(make)
    limit = gradient_of(harness).limit
    assert limit < 20
    under_way(harness, limit)
    caller = harness.open(GET)
    answered = caller.take()
    assert answered.startswith(b"HTTP/1.1 503")
    assert b"code concurrency-overflow, flag UO" in answered
    assert b"cluster app: %d requests are under way" % limit in answered
    assert list(guards(harness.book)) == [
        ("sidecar_concurrency_limit", (("cluster", "app"),), (limit,)),
        (
            "sidecar_admission_refused_total",
            (("cluster", "app"), ("reason", "concurrency-overflow")),
            (1,),
        ),
    ]


def test_errors_and_refusals_that_come_quickly_are_no_sign_of_a_short_queue(make: Make) -> None:
    harness = shrunk(make)
    limit = gradient_of(harness).limit
    assert guard_of(harness).refusal(harness.now) is None  # nothing is under way
    for response in (ERROR, LIMITED) * 10:
        ask(harness, response)
    assert gradient_of(harness).limit == limit
    for _ in range(21):
        ask(harness, OK, 0.1)
    assert gradient_of(harness).limit > limit


def test_a_timeout_is_an_answer_that_took_so_long(make: Make) -> None:
    harness = make(cluster=LATENCY, route={"timeout": 1}, retry={"per_try_timeout": 5})
    ask(harness, OK, 0.1)
    callers = under_way(harness, 20)
    harness.advance(1.1)
    assert gradient_of(harness).limit == 30
    assert all(c.take().startswith(b"HTTP/1.1 504") for c in callers)


def test_a_timeout_of_who_was_never_connected_is_none(make: Make) -> None:
    harness = make(cluster=LATENCY, route={"timeout": 1})
    ask(harness, OK, 0.1)
    harness.upstreams[0].lose()
    callers = [harness.open(GET) for _ in range(20)]
    harness.advance(1.1)
    assert gradient_of(harness).limit == 50
    assert all(c.take().startswith(b"HTTP/1.1 504") for c in callers)


@pytest.mark.parametrize("response", [trailers_only(b"0"), answer(b"grpc-status: 0")])
def test_calls_count_with_their_latency_too(make: Make, response: bytes) -> None:
    harness = make(cluster=LATENCY)
    ask(harness, response, 0.1, call())
    for _ in range(10):
        ask(harness, response, 1.0, call())
    assert gradient_of(harness).limit == 30
    for _ in range(20):
        ask(harness, trailers_only(b"14"), 0.1, call())
    assert gradient_of(harness).limit == 30


@pytest.mark.parametrize(
    ("response", "request_", "refused"),
    [
        (ERROR, GET, True),
        (LIMITED, GET, True),
        (NO_ANSWER, GET, True),
        (OK, GET, False),
        (ERROR, call(), True),
        (trailers_only(b"14"), call(), True),
        (trailers_only(b"5"), call(), False),
        (answer(b"grpc-status: 8"), call(), True),
        (answer(b"grpc-status: 0"), call(), False),
    ],
)
def test_while_most_fail_a_part_is_refused(
    make: Make, response: bytes, request_: bytes, refused: bool
) -> None:
    harness = make(cluster=FAILURES)
    for _ in range(20):
        harness.chance = 0.99  # let through
        ask(harness, response, 0.0, request_)
    assert harness.state().room == (0 if refused else 1024)
    harness.chance = 0.7
    caller = harness.open(GET)
    if not refused:
        (upstream,) = (u for u in harness.upstreams if u.take())
        upstream.send(OK)
        assert caller.take() == OK
        return
    assert b"code admission-denied, flag UO" in (said := caller.take())
    assert b"cluster app: 80% of all requests are" in said
    assert guard_of(harness).refused == {"admission-denied": 1}


def test_who_recovers_is_found_out(make: Make) -> None:
    harness = make(cluster=FAILURES)
    harness.chance = 0.99
    for _ in range(20):
        ask(harness, ERROR)
    harness.advance(31)  # longer than is looked back
    harness.chance = 0.0
    ask(harness, OK)
    assert harness.state().room == 1024


def test_an_idle_connection_that_closed_as_it_was_used_blames_nobody(make: Make) -> None:
    harness = make(cluster=FAILURES)
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    caller.send(GET)
    first.lose()
    harness.connect().send(OK)
    assert caller.take() == OK + OK
    assert harness.state().room == 1024


def test_sessions_count_by_whether_a_connection_came_about(make: Make) -> None:
    harness = make(protocol="tcp", cluster=FAILURES)
    harness.open(b"x")
    harness.connect()
    assert harness.state().room == 1024
    for _ in range(9):
        harness.open(b"x")
        while harness.begun:
            harness.fail()
    assert harness.state().room == 0


def test_what_was_learned_survives_a_push_that_leaves_it_as_it_is(make: Make) -> None:
    harness = shrunk(make)
    gradient = gradient_of(harness)
    harness.swap(cluster=LATENCY, endpoints=("10.0.0.1:80", "10.0.0.2:80"))
    assert gradient_of(harness) is gradient
    assert harness.state().room == gradient.limit
    watchers = harness.endpoint("10.0.0.2:80").watchers
    assert guard_of(harness) in watchers
    assert sum(isinstance(w, Guard) for w in harness.endpoint().watchers) == 1
    harness.swap(cluster={**LATENCY, **FAILURES})
    assert gradient_of(harness) is not gradient
    assert sum(isinstance(w, Guard) for w in harness.endpoint().watchers) == 1


def test_who_came_under_the_old_limit_is_held_to_that_one(make: Make) -> None:
    harness = make(route={"faults": [{"delay": {"fixed": 1}}]})
    caller = harness.open(GET)
    harness.swap(limits={"requests": 0})
    assert b"requests-overflow" in harness.open(GET).take()
    harness.advance(1.1)
    harness.connect().send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("cluster", [LATENCY, FAILURES])
def test_who_was_outrun_has_taken_at_least_so_long(make: Make, cluster: dict[str, Any]) -> None:
    harness = make(cluster=cluster, endpoints=("10.0.0.1:80", "10.0.0.2:80"), route={"hedge": 0.5})
    ask(harness, OK, 0.1)
    for _ in range(10):
        caller = harness.open(GET)
        if harness.begun:
            harness.connect()
        (first,) = (u for u in harness.upstreams if u.take())
        harness.advance(1)
        if harness.begun:
            harness.connect()
        (second,) = (u for u in harness.upstreams if u.take() and u is not first)
        second.send(OK)
        assert caller.take() == OK
    room = harness.state().room
    if cluster is LATENCY:
        assert room == gradient_of(harness).limit < 50
    else:
        assert room == 1024


def test_where_nothing_is_configured_nobody_watches_and_nobody_is_asked(make: Make) -> None:
    harness = make(cluster={**LATENCY, **FAILURES})
    harness.swap(limits={"requests": 7})
    state = harness.state()
    assert (state.guard, state.room, harness.endpoint().watchers) == (None, 7, ())
    assert list(guards(harness.book)) == []
    under_way(harness, 7)
    answered = harness.open(GET).take()
    assert b"code requests-overflow, flag UO" in answered
    assert b"cluster app: 7 requests are under way" in answered
