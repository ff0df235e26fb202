"""A second attempt beside a slow one: when it begins, who wins, and what becomes of the loser."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.hedge import Hedges
from sidecar.telemetry.metrics import hedges
from sidecar.traffic.quantile import ENOUGH
from sidecar.wire.http2_frames import (
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    REFUSED_STREAM,
)
from tests.core.harness import GET, OK, Harness, forwarded
from tests.core.test_grpc import MESSAGE, answer, call, trailers_only
from tests.core.transport import CLOSED, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
PUT = POST.replace(b"POST", b"PUT")
KEYED = POST.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: 1\r\n\r\n")
UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
OTHER = OK.replace(b"ok", b"no")
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
DELAY = 0.1
LATE = 0.12  # seconds: after the delay, and the wheel's tick


def hedged(make: Make, **config: Any) -> Harness:
    """Return a harness of two endpoints and a route that hedges after `DELAY`."""
    route = {"hedge": DELAY, **config.pop("route", {})}
    return make(**{"endpoints": (A, B), "route": route, **config})


def raced(harness: Harness, request: bytes = GET) -> tuple[FakeTransport, ...]:
    """Return a caller and the two connections on which its request has been sent."""
    caller = harness.open(request)
    first = harness.connect() if harness.begun else harness.upstreams[0]
    assert first.take()
    harness.advance(LATE)
    second = harness.connect()
    assert second.take()
    return caller, first, second


def active(harness: Harness) -> list[int]:
    return [harness.endpoint(place).active for place in (A, B)]


def counts(harness: Harness) -> dict[str, int]:
    found = harness.state().hedges
    assert found is not None
    return dict(found.counts)


@pytest.mark.parametrize("request_", [GET, PUT, KEYED])
def test_a_request_that_takes_long_is_sent_to_another_endpoint_as_well(
    make: Make, request_: bytes
) -> None:
    harness = hedged(make)
    caller = harness.open(request_)
    first = harness.connect()
    assert first.take() == forwarded(request_)
    harness.advance(DELAY - 0.02)
    assert harness.begun == []
    harness.advance(0.04)
    (dial,) = harness.begun
    assert {dial.address, harness.dials[0].address} == {A, B}
    second = dial.connect()
    assert second.take() == forwarded(request_)
    assert active(harness) == [1, 1]
    assert harness.state().retries == 1
    second.send(OK)
    assert caller.take() == OK
    assert first.fate == CLOSED
    assert active(harness) == [0, 0]
    outcome = harness.outcomes[0]
    assert (outcome.status, outcome.attempts, outcome.endpoint) == (200, 2, dial.address)
    assert counts(harness) == {"begun": 1, "won": 1}


def test_when_the_first_answers_first_the_second_is_cancelled(make: Make) -> None:
    harness = hedged(make)
    caller, first, second = raced(harness)
    first.send(OK)
    assert caller.take() == OK
    assert (first.fate, second.fate) == (OPEN, CLOSED)
    assert harness.outcomes[0].endpoint == harness.dials[0].address
    assert counts(harness) == {"begun": 1, "lost": 1}
    caller.send(GET)  # the winner's connection is as good as any
    harness.advance(LATE)
    assert [u.fate for u in harness.upstreams[:2]] == [OPEN, CLOSED]
    caller.lose()
    assert list(hedges(harness.book)) == [
        ("sidecar_hedges_total", (("cluster", "app"), ("result", "begun")), (2,)),
        ("sidecar_hedges_total", (("cluster", "app"), ("result", "lost")), (1,)),
    ]


def test_the_second_that_never_connects_waits_no_longer_when_the_first_answers(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(LATE)
    first.send(OK)
    assert caller.take() == OK
    assert harness.state().pending == 0
    assert harness.connect().take() == b""


def test_the_first_that_never_connects_is_overtaken(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    harness.advance(LATE)
    slow, quick = harness.begun
    second = quick.connect()
    assert second.take() == forwarded(GET)
    second.send(OK)
    assert caller.take() == OK
    assert slow.connect().take() == b""
    assert active(harness) == [0, 0]


def test_the_first_may_connect_late_and_win(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    harness.advance(LATE)
    slow, quick = harness.begun
    second = quick.connect()
    first = slow.connect()
    assert first.take() == forwarded(GET)
    first.send(OK)
    assert caller.take() == OK
    assert second.fate == CLOSED
    assert harness.outcomes[0].endpoint == slow.address


@pytest.mark.parametrize("bad", [BUSY, BUSY.replace(b"503", b"500"), BUSY.replace(b"503", b"429")])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_a_bad_response_leaves_the_field_to_the_other(
    make: Make, bad: bytes, which: int, whole: bool
) -> None:
    harness = hedged(make)
    caller, *both = raced(harness)
    loser, winner = both[which], both[1 - which]
    loser.send(bad if whole else bad.replace(b": 0", b": 9"))
    assert caller.take() == b""
    assert loser.fate == (OPEN if whole else CLOSED)
    assert sum(active(harness)) == 1
    winner.send(OTHER[:-1])
    winner.send(OTHER[-1:])
    assert caller.take() == OTHER
    assert harness.outcomes[0][:4] == (200, "", "", 2)


def test_what_the_policy_lists_is_no_good_response_either(make: Make) -> None:
    retry = {"on": ["retriable-headers"], "retriable_headers": {"x-again": {"present": True}}}
    harness = hedged(make, retry=retry)
    caller, first, second = raced(harness)
    first.send(OK.replace(b"\r\n\r\n", b"\r\nX-Again: 1\r\n\r\n"))
    assert caller.take() == b""
    second.send(OK)
    assert caller.take() == OK


def test_the_last_response_goes_to_the_caller_however_bad(make: Make) -> None:
    harness = hedged(make)
    caller, first, second = raced(harness)
    first.send(BUSY)
    second.send(BUSY.replace(b"503", b"500"))
    assert caller.take() == BUSY.replace(b"503", b"500")
    assert harness.outcomes[0][:4] == (500, "", "", 2)


@pytest.mark.parametrize("which", [0, 1])
def test_a_connection_that_dies_leaves_the_field_to_the_other(make: Make, which: int) -> None:
    harness = hedged(make)
    caller, *both = raced(harness)
    both[which].lose()
    assert sum(active(harness)) == 1
    assert sum(harness.endpoint(place).failures for place in (A, B)) == 1
    both[1 - which].send(OK)
    assert caller.take() == OK


def test_when_both_die_the_policy_decides(make: Make) -> None:
    harness = hedged(make, retry={"on": ["reset"], "attempts": 3})
    caller, first, second = raced(harness)
    first.lose()
    second.lose()
    harness.advance(1)
    harness.connect().send(OK)
    assert caller.take() == OK
    assert harness.outcomes[0].attempts == 3
    ended = hedged(make)
    caller, first, second = raced(ended)
    second.lose()
    first.lose()
    assert caller.take().startswith(b"HTTP/1.1 502")
    assert ended.outcomes[0][:4] == (502, "upstream-closed", "UC", 2)


def test_a_second_that_cannot_connect_leaves_the_first_alone(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(LATE)
    harness.fail()
    assert (first.fate, active(harness).count(1)) == (OPEN, 1)
    first.send(OK)
    assert caller.take() == OK


def test_a_first_that_cannot_connect_leaves_the_second_to_connect(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    harness.advance(LATE)
    harness.fail()
    second = harness.connect()
    assert second.take() == forwarded(GET)
    second.send(OK)
    assert caller.take() == OK
    assert harness.outcomes[0].attempts == 2


def test_a_first_that_dies_leaves_the_second_to_connect(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(LATE)
    first.lose()
    harness.connect().send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize(
    ("request_", "config"),
    [
        (POST, {}),
        (UPGRADE, {"route": {"hedge": {"delay": DELAY, "methods": ["GET"]}}}),
        (GET, {"endpoints": (A,)}),
        (GET, {"limits": {"retries": 0, "retry_budget": 0.0}}),
        (PUT.replace(b": 2", b": 22") + b"x" * 20, {"route": {"buffer_limit": 10}}),
        (PUT[:-1], {}),  # it is not whole
    ],
)
def test_what_must_not_be_sent_twice_is_not(
    make: Make, request_: bytes, config: dict[str, Any]
) -> None:
    harness = hedged(make, **config)
    caller = harness.open(request_)
    harness.connect().take()
    harness.advance(1)
    assert len(harness.dials) == 1
    caller.lose()


def test_a_method_can_be_allowed(make: Make) -> None:
    harness = hedged(make, route={"hedge": {"delay": DELAY, "methods": ["POST"]}})
    caller, _, second = raced(harness, POST)
    second.send(OK)
    assert caller.take() == OK


def test_the_delay_counts_from_when_the_request_was_whole_and_sent(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(PUT[:-1])
    first = harness.connect()
    harness.advance(0.25)
    caller.send(PUT[-1:])
    harness.advance(0.04)
    assert harness.begun == []
    harness.advance(LATE)
    second = harness.connect()
    assert second.take() == forwarded(PUT)
    second.send(OK)
    assert (caller.take(), first.fate) == (OK, CLOSED)


def test_a_connection_that_came_late_has_its_time_as_well(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    harness.advance(DELAY - 0.02)
    first = harness.connect()
    harness.advance(0.06)
    assert harness.begun == []
    harness.advance(0.08)
    harness.connect().send(OK)
    assert (caller.take(), first.fate) == (OK, CLOSED)


def test_a_retry_that_waits_is_not_overtaken(make: Make) -> None:
    harness = hedged(make, retry={"on": ["5xx"], "backoff": 1, "backoff_max": 1})
    caller = harness.open(GET)
    first = harness.connect()
    first.send(BUSY)
    harness.advance(0.45)
    assert len(harness.dials) == 1
    harness.advance(0.1)
    second = harness.connect()
    second.send(OK)
    assert caller.take() == OK
    assert counts(harness) == {}


def test_a_retry_that_takes_long_may_have_its_second_attempt(make: Make) -> None:
    harness = hedged(make, endpoints=(A, B, C), retry={"on": ["5xx"], "backoff": 0})
    caller = harness.open(GET)
    harness.connect().send(BUSY)
    harness.advance(0.05)
    harness.connect()
    harness.advance(0.3)
    third = harness.connect()
    assert harness.state().retries == 1
    third.send(OK)
    assert caller.take() == OK
    assert {dial.address for dial in harness.dials} == {A, B, C}


def test_a_request_that_has_found_no_room_is_not_sent(make: Make) -> None:
    harness = hedged(make, limits={"requests": 0})
    caller = harness.open(GET)
    assert caller.take().startswith(b"HTTP/1.1 503")
    harness.advance(1)
    assert harness.dials == []


def test_a_second_that_finds_no_room_is_given_up(make: Make) -> None:
    harness = hedged(make, limits={"pending": 1})
    caller = harness.open(GET)
    first = harness.connect()
    waiting = harness.open(GET)  # for a connection, so that nobody else may
    harness.advance(DELAY + 0.001)
    harness.advance(0.02)
    assert first.take()
    first.send(OK)
    assert caller.take() == OK
    waiting.lose()


def test_a_second_that_waits_too_long_for_a_connection_is_given_up(make: Make) -> None:
    harness = hedged(make, limits={"connections": 1, "pending_timeout": 0.5})
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(1)
    assert counts(harness) == {"begun": 1}
    assert (len(harness.dials), sum(active(harness))) == (1, 1)
    assert [harness.endpoint(place).failures for place in (A, B)] == [0, 0]
    first.send(OK)
    assert caller.take() == OK


def test_where_the_other_endpoint_was_tried_there_is_no_second_attempt(make: Make) -> None:
    harness = hedged(make, retry={"attempts": 3, "backoff": 0})
    caller = harness.open(GET)
    harness.fail()
    harness.advance(0.05)
    first = harness.connect()
    harness.advance(1)
    assert len(harness.dials) == 2
    first.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("connected", [True, False])
def test_a_timeout_ends_both(make: Make, connected: bool) -> None:
    harness = hedged(make, route={"hedge": DELAY, "timeout": 1})
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(LATE)
    second = harness.connect() if connected else None
    harness.advance(1)
    assert caller.take().startswith(b"HTTP/1.1 504")
    assert first.fate == CLOSED
    assert second is None or second.fate == CLOSED
    assert active(harness) == [0, 0]


def test_a_caller_that_goes_away_ends_both(make: Make) -> None:
    harness = hedged(make)
    caller, first, second = raced(harness)
    caller.lose()
    assert {first.fate, second.fate} <= {CLOSED, RESET}
    assert active(harness) == [0, 0]


def test_a_try_that_is_over_ends_both_and_is_followed_by_one(make: Make) -> None:
    retry = {"on": ["reset"], "per_try_timeout": 0.5, "backoff": 0}
    harness = hedged(make, endpoints=(A, B, C), retry=retry)
    caller, first, second = raced(harness)
    harness.advance(0.6)
    assert (first.fate, second.fate) == (CLOSED, CLOSED)
    harness.connect().send(OK)
    assert caller.take() == OK
    assert harness.outcomes[0].attempts == 3


def test_interim_responses_wait_for_who_wins(make: Make) -> None:
    harness = hedged(make)
    caller, first, second = raced(harness)
    hint = b"HTTP/1.1 103 Hints\r\n\r\n"
    first.send(hint)
    assert caller.take() == b""
    second.send(BUSY)
    first.send(hint + OK)
    assert caller.take() == hint + OK


def test_trailers_are_passed_on_as_ever(make: Make) -> None:
    harness = hedged(make)
    caller, _, second = raced(harness)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n"
    second.send(head + b"1\r\nx\r\n0\r\na: 1\r\n\r\n")
    assert caller.take().endswith(b"1\r\nx\r\n0\r\na: 1\r\n\r\n")
    assert harness.outcomes[0].status == 200


def test_a_caller_that_reads_slowly_holds_the_winner_back(make: Make) -> None:
    harness = hedged(make)
    caller = harness.open(GET)
    first = harness.connect()
    caller.stall()
    hint = b"HTTP/1.1 103 Hints\r\nX: %b\r\n\r\n" % (b"x" * 50000)
    for _ in range(4):
        first.send(hint)
    harness.advance(LATE)
    assert first.is_reading()  # what is interim waits for nobody now
    second = harness.connect()
    second.send(OK[:-1])
    assert not second.is_reading()
    caller.catch_up()
    assert second.is_reading()
    second.send(OK[-1:])
    assert caller.take() == hint * 3 + OK


def test_a_connection_that_names_its_caller_names_it_twice(make: Make) -> None:
    harness = hedged(make, cluster={"proxy_protocol": "v1"})
    caller = harness.open(GET)
    harness.connect()
    harness.advance(LATE)
    callers = [dial.caller for dial in harness.dials]
    assert callers[0] is callers[1] is not None
    harness.connect().send(OK)
    assert caller.take() == OK


def test_an_endpoint_that_reads_slowly_at_first_does_not_stop_the_caller(make: Make) -> None:
    harness = hedged(make, route={"hedge": DELAY, "buffer_limit": 1000000})
    big = PUT.replace(b": 2", b": 300002") + b"x" * 300000
    caller = harness.open(big)
    first = harness.begun[0].connect(stalled=True)
    harness.advance(LATE)
    second = harness.begun[0].connect(stalled=True)
    first.catch_up()
    second.catch_up()
    assert second.take() == forwarded(big)
    second.send(OK)
    assert caller.take() == OK
    caller.send(GET)
    harness.connect().send(OK) if harness.begun else harness.upstreams[1].send(OK)
    assert caller.take() == OK


def test_calls_are_judged_by_their_status(make: Make) -> None:
    harness = hedged(make, route={"hedge": {"delay": DELAY, "methods": ["POST"]}})
    request = call(b"grpc-timeout: 2S")
    caller, first, second = raced(harness, request)
    first.send(trailers_only(b"14"))
    assert caller.take() == b""
    second.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")


def test_the_second_call_is_told_the_time_that_is_left(make: Make) -> None:
    harness = hedged(make, route={"hedge": {"delay": DELAY, "methods": ["POST"]}})
    caller = harness.open(call(b"grpc-timeout: 2S"))
    harness.connect()
    harness.advance(LATE)
    second = harness.connect()
    sent = second.take()
    left = int(sent.partition(b"grpc-timeout: ")[2].partition(b"u")[0])
    assert 1_800_000 < left < 1_900_000
    assert sent.endswith(MESSAGE)
    second.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")


def test_a_call_whose_head_is_there_is_not_made_again(make: Make) -> None:
    harness = hedged(
        make,
        route={"hedge": {"delay": DELAY, "methods": ["POST"]}},
        retry={"on": ["unavailable"]},
    )
    caller = harness.open(call())
    first = harness.connect()
    whole = answer(b"grpc-status: 0", body=b"")
    first.send(whole[:-20])
    harness.advance(LATE)
    assert len(harness.dials) == 1
    first.send(whole[-20:])
    assert caller.take() == whole


def test_endpoints_can_be_told_which_attempt_it_is(make: Make) -> None:
    harness = hedged(make, retry={"attempt_count": True})
    caller = harness.open(GET)
    assert b"x-envoy-attempt-count: 1\r\n" in harness.connect().take()
    harness.advance(LATE)
    second = harness.connect()
    assert b"x-envoy-attempt-count: 2\r\n" in second.take()
    second.send(OK)
    assert caller.take() == OK


PERCENTILE: dict[str, Any] = {"route": {"hedge": {"percentile": 90}}}


def answered_after(harness: Harness, seconds: float, count: int) -> None:
    for _ in range(count):
        caller = harness.open(GET)
        if harness.begun:
            harness.connect()
        (upstream,) = (u for u in harness.upstreams if u.take())
        harness.advance(seconds)
        upstream.send(OK)
        caller.lose()


def test_a_percentile_of_what_answers_took_is_the_delay(make: Make) -> None:
    harness = hedged(make, **PERCENTILE)
    answered_after(harness, 0.05, ENOUGH)
    assert counts(harness) == {}
    caller = harness.open(GET)
    harness.advance(0.03)
    assert counts(harness) == {}
    harness.advance(0.05)
    assert counts(harness) == {"begun": 1}
    first, second = (u for u in harness.upstreams if u.take())
    second.send(OK)
    assert (caller.take(), first.fate) == (OK, CLOSED)


def test_with_few_answers_there_is_no_percentile_and_no_second_attempt(make: Make) -> None:
    harness = hedged(make, **PERCENTILE)
    answered_after(harness, 0.05, ENOUGH - 1)
    caller = harness.open(GET)
    harness.advance(5)
    (upstream,) = (u for u in harness.upstreams if u.take())
    upstream.send(OK)
    assert caller.take() == OK


def test_what_was_known_may_be_out_of_date_when_it_is_due(make: Make) -> None:
    harness = hedged(make, **PERCENTILE)
    answered_after(harness, 0.05, ENOUGH)
    caller = harness.open(GET)
    found = harness.state().hedges
    assert found is not None
    found.recent.observe(0.05, harness.now + 100)  # as if nothing had come for long
    harness.advance(1)
    (upstream,) = (u for u in harness.upstreams if u.take())
    upstream.send(OK)
    assert caller.take() == OK


def test_the_losers_latency_counts_as_what_it_has_taken(make: Make) -> None:
    harness = hedged(make, route={"hedge": {"percentile": 50}}, cluster={"balancer": "peak_ewma"})
    answered_after(harness, 0.02, ENOUGH)
    harness.open(GET)
    harness.advance(0.06)
    first, second = [u for u in harness.upstreams if u.take()] + [
        harness.connect() for _ in range(len(harness.begun))
    ]
    harness.advance(0.2)
    second.send(OK)
    place = first.get_extra_info("peername")[0]
    slow = harness.endpoint(place)
    (average,) = (w.average for w in slow.watchers if hasattr(w, "average"))
    assert average.read(harness.now) > 0.2


def test_a_push_without_hedging_leaves_nobody_watching(make: Make) -> None:
    harness = hedged(make, **PERCENTILE)
    both = [harness.endpoint(place) for place in (A, B)]
    assert all(any(isinstance(w, Hedges) for w in e.watchers) for e in both)
    route = {"cluster": "app", "hedge": {"percentile": 90}}
    harness.swap(endpoints=(A, B), listener={"routes": [{**route, "match": {"path": "/"}}, route]})
    assert all(sum(isinstance(w, Hedges) for w in e.watchers) == 1 for e in both)
    harness.swap(endpoints=(A, B), route={"hedge": DELAY})
    assert not any(isinstance(w, Hedges) for e in both for w in e.watchers)
    harness.swap(endpoints=(A, B))
    assert not any(isinstance(w, Hedges) for e in both for w in e.watchers)


@pytest.mark.parametrize("h2", ["first", "second"])
def test_over_http2_the_loser_is_reset(make: Make, h2: str) -> None:
    harness = hedged(make, cluster={"protocol": "http2"})
    caller = harness.open(GET)
    first = harness.serve()
    harness.advance(LATE)
    second = harness.serve()
    winner, loser = (first, second) if h2 == "first" else (second, first)
    winner.answer(1, body=b"ok")
    assert caller.take().endswith(b"ok")
    assert loser[1].reset == "CANCEL"
    assert not winner[1].reset


@pytest.mark.parametrize("code", [NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM])
def test_over_http2_who_resets_leaves_the_field_to_the_other(make: Make, code: int) -> None:
    harness = hedged(make, cluster={"protocol": "http2"})
    caller = harness.open(GET)
    first = harness.serve()
    harness.advance(LATE)
    second = harness.serve()
    first.reset(1, code)
    second.answer(1, body=b"ok")
    assert caller.take().endswith(b"ok")
    assert harness.outcomes[0][:4] == (200, "", "", 2)


def test_over_http2_the_last_to_reset_says_why(make: Make) -> None:
    harness = hedged(make, cluster={"protocol": "http2"})
    caller = harness.call()
    number = caller.ask()
    first = harness.serve()
    harness.advance(LATE)
    second = harness.serve()
    first.reset(1, INTERNAL_ERROR)
    second.answer(1, body=b"o", end=False)
    second.reset(1, ENHANCE_YOUR_CALM)
    assert caller[number].reset == "ENHANCE_YOUR_CALM"
