"""Connections of HTTP/2 from callers: what is refused, how they end, and what a drain leaves alone."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.http2_server import DRAIN_WAIT
from sidecar.wire.http2_frames import (
    CANCEL,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    window_update,
)
from tests.core.harness import OK, Harness
from tests.core.http2_peer import Head, Peer
from tests.core.transport import CLOSED, OPEN, RESET

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}
SOON = (LARGEST_STREAM, "NO_ERROR")


def drain(harness: Harness) -> None:
    for connection in tuple(harness.listener.connections):
        connection.drain()
    harness.settle()


# What is refused:


MALFORMED: dict[str, Head] = {
    "a field of the connection": [(b"connection", b"close")],
    "an upper-case name": [(b"X", b"1")],
    "a length that is none": [(b"content-length", b"+5")],
    "another host": [(b"host", b"b")],
    "a length without a body": [(b"content-length", b"5")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_reset_and_counted(harness: Harness, name: str) -> None:
    caller = harness.call()
    stream = caller.ask(fields=MALFORMED[name])
    assert caller[stream].reset == "PROTOCOL_ERROR"
    assert [r[1] for r in harness.sink.refusals] == ["http2-stream-error"]
    assert harness.outcomes == []
    other = caller.ask()
    harness.connect().send(OK)
    assert caller[other].data == b"ok"


ANSWERED: dict[str, tuple[int, str, Head]] = {
    "too much": (431, "head-too-large", [(b"x", b"x" * 4000)] * 20),
    "too many": (431, "head-too-large", [(b"x", b"")] * 200),
    "another expectation": (417, "bad-expectation", [(b"expect", b"fortune")]),
}


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_over_the_limits_is_answered(harness: Harness, name: str, end: bool) -> None:
    status, code, fields = ANSWERED[name]
    caller = harness.call()
    stream = caller.ask(b"POST", fields=fields, end=end)
    got = caller[stream]
    assert got.status == status
    assert got.data.startswith(b"sidecar: ")
    assert len(got.data) == int(got.head[b"content-length"])
    assert (got.ended, got.reset) == (True, "" if end else "NO_ERROR")
    assert [refusal[1:] for refusal in harness.sink.refusals] == [(code, "10.9.9.9:5000")]
    assert harness.begun == []


@pytest.mark.parametrize("then", ["windows", "reset", "nothing", "loss", "data"])
def test_a_refusal_waits_for_windows(harness: Harness, then: str) -> None:
    caller = harness.call(options={INITIAL_WINDOW_SIZE: 0})
    stream = caller.ask(b"POST", fields=[(b"expect", b"fortune")], end=False)
    assert (caller[stream].data, caller[stream].reset) == (b"", "")
    if then == "windows":
        caller.grant(stream, 1000)
        assert caller[stream].ended
        assert caller[stream].reset == "NO_ERROR"
    elif then == "reset":
        caller.reset(stream, CANCEL)
    elif then == "loss":
        caller.transport.lose()
    elif then == "data":
        caller.say(stream, b"ignored")
        caller.trail(stream, [(b"x", b"1")])
        caller.grant(stream, 1000)
        assert (caller[stream].ended, caller[stream].reset) == (True, "")
    assert [r[1] for r in harness.sink.refusals] == ["bad-expectation"]
    assert harness.outcomes == []


def test_more_streams_than_were_allowed_are_refused(make: Make) -> None:
    harness = make(listener={"http2": {"max_concurrent_streams": 2}})
    caller = harness.call()
    streams = [caller.ask() for _ in range(3)]
    assert [caller[s].reset for s in streams] == ["", "", "REFUSED_STREAM"]
    assert len(harness.begun) == 2


BROKEN: dict[str, tuple[bytes, str]] = {
    "SETTINGS that are none": (PREFACE + frame(SETTINGS, 0, 0, b"?"), "FRAME_SIZE_ERROR"),
    "no SETTINGS": (PREFACE + frame(PING, 0, 0, b"12345678"), "PROTOCOL_ERROR"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_connection_that_breaks_the_rules_is_closed(harness: Harness, name: str) -> None:
    octets, code = BROKEN[name]
    caller = Peer(harness.open(octets), caller=True, silent=True)
    assert caller.read().goaways == [(0, code)]
    assert caller.transport.fate == CLOSED
    assert [r[1] for r in harness.sink.refusals] == ["http2-connection-error"]


def test_what_is_under_way_ends_with_the_connection(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call()
    first, second = caller.ask(), caller.ask(b"POST", end=False)
    upstream = harness.serve()
    upstream.answer(1, end=False)
    caller.send(frame(HEADERS, 4, 0, b""))
    assert caller.read().goaways == [(second, "PROTOCOL_ERROR")]
    assert caller.transport.fate == CLOSED
    assert [o[:3] for o in harness.outcomes] == [
        (200, "downstream-reset", "DR"),
        (499, "downstream-reset", "DR"),
    ]
    assert (upstream[1].reset, upstream[3].reset) == ("CANCEL", "CANCEL")
    assert caller[first].status == 200


def test_a_flood_of_resets_ends_the_connection(harness: Harness) -> None:
    caller = harness.call()
    for _ in range(300):
        caller.reset(caller.ask(), CANCEL)
    assert [code for _, code in caller.read().goaways] == ["ENHANCE_YOUR_CALM"]
    assert caller.transport.fate == CLOSED
    assert harness.sink.refusals[-1][1] == "http2-flood"
    assert len(harness.outcomes) < 300


def test_a_flood_of_questions_whose_answers_nobody_reads_is_held_back(harness: Harness) -> None:
    caller = harness.call(polite=False)
    caller.transport.stall()
    ping = frame(PING, 0, 0, b"12345678")
    for _ in range(100):
        caller.send(ping * 9)
    assert caller.transport.buffered < 2 * 1048576
    assert caller.transport.fate in (OPEN, CLOSED)


def test_answers_that_need_no_window_do_not_pile_up(harness: Harness) -> None:
    caller = harness.call(polite=False)
    caller.transport.stall()
    caller.ask(b"HEAD")
    upstream = harness.connect()
    big = b"HTTP/1.1 204 No\r\nX: " + b"x" * 16_000 + b"\r\n\r\n"
    for _ in range(100):
        upstream.send(big)
        caller.ask(b"HEAD")
        assert caller.transport.buffered < 1048576 + 40_000
    assert caller.transport.waiting
    assert not caller.transport.is_reading()
    caller.transport.catch_up()
    assert caller.transport.is_reading()
    assert caller.transport.waiting == 0
    assert harness.state().pending > 0


# Resets, and loss:


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("answered", [True, False])
def test_a_caller_s_reset_reaches_the_endpoint(make: Make, up: int, answered: bool) -> None:
    harness = make(**(H2 if up == 2 else {}))
    caller = harness.call()
    stream = caller.ask()
    upstream = harness.serve(silent=up == 1)
    if answered and up == 2:
        upstream.answer(1, end=False)
    elif answered:
        upstream.send(OK[:-1])
    caller.reset(stream, CANCEL)
    status = 200 if answered else 499
    assert harness.outcomes[0][:3] == (status, "downstream-reset", "DR")
    if up == 2:
        assert upstream[1].reset == "CANCEL"
        assert upstream.transport.fate == OPEN
    else:
        assert upstream.transport.fate != OPEN


def test_a_caller_that_is_gone_leaves_nothing_behind(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call()
    for _ in range(10):
        caller.ask()
    upstream = harness.serve()
    caller.transport.lose()
    upstream.read()
    assert [got.reset for got in upstream.got.values()] == ["CANCEL"] * 10
    assert [o.flag for o in harness.outcomes] == ["DC"] * 10
    assert harness.endpoint().idle == 1


def test_a_caller_that_says_goodbye_is_still_answered(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.ask()
    caller.leave(0)
    harness.connect().send(OK)
    assert caller[stream].data == b"ok"
    caller.transport.end()
    assert caller.transport.fate == CLOSED


# Early answers:


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("window", [65535, 0])
def test_an_early_answer_is_whole_before_the_rest_is_declined(
    make: Make, up: int, window: int
) -> None:
    harness = make(**(H2 if up == 2 else {}))
    caller = harness.call(options={INITIAL_WINDOW_SIZE: window})
    stream = caller.ask(b"POST", end=False, body=b"begun")
    upstream = harness.serve(silent=up == 1)
    if up == 2:
        upstream.answer(1, 413, body=b"no")
        assert upstream[1].reset == "CANCEL"
    else:
        upstream.send(OK.replace(b"200 OK", b"413 No"))
    got = caller[stream]
    assert got.status == 413
    if not window:
        assert (got.ended, got.reset) == (False, "")
        caller.say(stream, b"more that nobody wants")
        caller.grant(stream, 2)
        got = caller[stream]
    assert (len(got.data), got.ended, got.reset) == (2, True, "NO_ERROR")
    caller.say(stream, b"late")  # it was on its way
    assert harness.outcomes[0][:2] == (413, "")
    assert caller.read().goaways == []


def test_our_own_early_answer_is_whole_too(make: Make) -> None:
    harness = make(route={"match": {"path": "/elsewhere"}})
    caller = harness.call()
    stream = caller.ask(b"POST", end=False)
    got = caller[stream]
    assert (got.status, got.ended, got.reset) == (404, True, "NO_ERROR")
    head = caller.ask(b"HEAD")
    assert (caller[head].status, caller[head].data, caller[head].ended) == (404, b"", True)


@pytest.mark.parametrize("timed", [True, False])
def test_a_response_that_is_cut_is_reset(make: Make, timed: bool) -> None:
    harness = make(listener={"stream_idle_timeout": 5})
    caller = harness.call()
    stream = caller.ask()
    upstream = harness.connect()
    upstream.send(OK[:-1])
    if timed:
        harness.advance(6)
    else:
        upstream.lose()
    assert caller[stream].reset == ("CANCEL" if timed else "INTERNAL_ERROR")
    assert harness.outcomes[0][:2] == (200, "stream-idle" if timed else "upstream-body-cut")


# Idleness:


def test_a_connection_is_idle_from_its_last_response_on(make: Make) -> None:
    harness = make(listener={"idle_timeout": 60})
    caller = harness.call()
    caller.ask()
    upstream = harness.connect()
    harness.advance(10)
    upstream.send(OK)
    harness.advance(55)
    assert caller.read().goaways == []
    harness.advance(6)
    assert caller.read().goaways == [SOON, (1, "NO_ERROR")]
    assert caller.transport.fate == CLOSED


def test_a_busy_connection_is_not_idle(make: Make) -> None:
    harness = make(listener={"idle_timeout": 10}, route={"timeout": 0})
    caller = harness.call()
    stream = caller.ask()
    upstream = harness.connect()
    harness.advance(35)
    upstream.send(OK)
    assert caller[stream].data == b"ok"


def test_a_request_that_crosses_the_farewell_is_served(make: Make) -> None:
    harness = make(listener={"idle_timeout": 10})
    caller = harness.call(polite=False)
    harness.advance(10.1)
    assert caller.read().goaways == [SOON]
    stream = caller.ask()
    harness.connect().send(OK)
    assert caller[stream].data == b"ok"
    harness.advance(1.1)
    assert caller.read().goaways == [SOON, (1, "NO_ERROR")]
    assert caller.transport.fate == CLOSED


def test_without_a_timeout_nothing_is_idle(make: Make) -> None:
    harness = make(listener={"idle_timeout": 0})
    caller = harness.call()
    harness.advance(100_000)
    assert caller.read().goaways == []
    assert caller.transport.fate == OPEN


def test_a_caller_that_reads_no_answer_is_let_go_in_the_end(make: Make) -> None:
    harness = make(listener={"idle_timeout": 10, "stream_idle_timeout": 5})
    caller = harness.call(options={INITIAL_WINDOW_SIZE: 0})
    stream = caller.ask()
    harness.connect().send(OK)
    assert caller[stream].status == 200
    assert len(harness.outcomes) == 1
    caller.transport.stall()
    harness.advance(10.1)  # idle
    harness.advance(1.1)  # said
    harness.advance(10.1)  # and over
    assert caller.transport.fate == OPEN
    harness.advance(5.1)
    assert caller.transport.fate == RESET


# Drain:


def test_a_drain_has_two_steps(harness: Harness) -> None:
    caller = harness.call(polite=False)
    first = caller.ask()
    drain(harness)
    drain(harness)
    assert (caller.read().goaways, caller.pings) == ([SOON], 1)
    second = caller.ask()
    caller.send(frame(PING, 1, 0, b"sidecar\x00"))
    assert caller.read().goaways == [SOON, (second, "NO_ERROR")]
    third = caller.ask()
    upstream = harness.connect()
    upstream.send(OK)
    upstream.send(OK)
    assert (caller[first].data, caller[second].data) == (b"ok", b"ok")
    assert caller[third].heads == []
    assert caller.transport.fate == CLOSED
    assert len(harness.outcomes) == 2


def test_a_drain_does_not_wait_for_a_caller_that_does_not_answer(harness: Harness) -> None:
    caller = harness.call(polite=False)
    drain(harness)
    assert caller.transport.fate == OPEN
    harness.advance(DRAIN_WAIT + 0.1)
    assert caller.read().goaways == [SOON, (0, "NO_ERROR")]
    assert caller.transport.fate == CLOSED
    for connection in tuple(harness.listener.connections):
        connection.drain()


ACTS: tuple[Callable[[Peer, Peer], None], ...] = (
    lambda caller, upstream: caller.say(1, b"abc"),
    lambda caller, upstream: upstream.read().answer(1, 103, end=False),
    lambda caller, upstream: caller.trail(1, [(b"x", b"1")]),
    lambda caller, upstream: upstream.read().answer(1, end=False),
    lambda caller, upstream: upstream.say(1, b"ok"),
    lambda caller, upstream: upstream.trail(1, [(b"x", b"1")]),
)


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("moment", range(len(ACTS) + 1))
def test_a_drain_harms_nothing_at_any_moment(make: Make, moment: int, polite: bool) -> None:
    harness = make(**H2)
    caller = harness.call(polite=polite)
    stream = caller.ask(b"POST", end=False)
    upstream = harness.serve()
    for index, act in enumerate(ACTS):
        if index == moment:
            drain(harness)
            caller.read()
        act(caller, upstream)
    if moment == len(ACTS):
        drain(harness)
    got = caller[stream]
    assert [len(head) for head in got.heads] == [1, 1, 1]
    assert (got.data, got.ended, got.reset) == (b"ok", True, "")
    harness.advance(DRAIN_WAIT + 0.1)
    assert caller.read().goaways == [SOON, (1, "NO_ERROR")]
    assert caller.transport.fate == CLOSED
    assert harness.outcomes[0][:2] == (200, "")


def test_a_drain_ends_with_the_last_stream_however_it_ends(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.ask()
    drain(harness)
    caller.read()
    caller.reset(stream, CANCEL)
    assert caller.transport.fate == CLOSED


def test_a_caller_that_leaves_in_a_drain_is_let_go(harness: Harness) -> None:
    caller = harness.call(options={INITIAL_WINDOW_SIZE: 0})
    stream = caller.ask()
    harness.connect().send(OK)
    drain(harness)
    caller.read()
    caller.leave(0)
    assert caller.transport.fate == OPEN
    caller.send(window_update(stream, 2))
    assert caller[stream].data == b"ok"


def test_who_was_told_to_go_is_aborted_at_the_deadline(harness: Harness) -> None:
    caller = harness.call()
    caller.ask()
    drain(harness)
    for connection in tuple(harness.listener.connections):
        connection.abort()
    harness.settle()
    assert caller.transport.fate == RESET
    assert harness.outcomes[0].flag == "DC"


def test_malformed_trailers_are_an_error_of_their_stream(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.ask(b"POST", end=False)
    harness.connect()
    caller.trail(stream, [(b"connection", b"close")])
    assert caller[stream].reset == "PROTOCOL_ERROR"
    assert harness.outcomes[0][:2] == (499, "downstream-reset")


def test_a_body_that_is_no_grpc_web_is_an_error_of_its_stream(make: Make) -> None:
    harness = make(listener={"grpc_web": True})
    caller = harness.call()
    stream = caller.ask(
        b"POST", fields=[(b"content-type", b"application/grpc-web-text")], end=False
    )
    harness.connect()
    caller.say(stream, b"!!!!")
    assert caller[stream].reset == "PROTOCOL_ERROR"
    assert harness.outcomes[0][:2] == (499, "downstream-reset")


def test_the_end_of_a_long_answer_may_be_read_late(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call(polite=False)
    stream = caller.ask()
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    upstream.say(1, b"x" * 200_000, end=True)
    assert len(harness.outcomes) == 1
    assert len(caller[stream].data) == 65535
    caller.grant(stream, 200_000)
    assert (len(caller[stream].data), caller[stream].ended) == (200_000, True)


def test_an_answer_to_no_question_is_overlooked(harness: Harness) -> None:
    caller = harness.call()
    caller.send(frame(PING, 1, 0, b"12345678"))
    assert caller.read().goaways == []
