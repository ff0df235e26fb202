"""Limits of time that are off unless asked for: whole streams, silent tries, connections."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import GET, OK, Harness
from tests.core.transport import CLOSED, OPEN, RESET

Make = Callable[..., Harness]

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
KIND = (b"content-type", b"application/grpc")
GRPC = [(b"te", b"trailers"), KIND]


def status_of(data: bytes) -> bytes:
    return data[9:12]


# Maximum stream duration:


@pytest.mark.parametrize("where", ["listener", "route"])
def test_a_whole_stream_may_take_so_long(make: Make, where: str) -> None:
    config: dict[str, Any] = {where: {"max_stream_duration": 10}}
    harness = make(**config)
    caller = harness.open(GET)
    harness.connect()
    harness.advance(9.9)
    assert caller.take() == b""
    harness.advance(0.2)
    answer = caller.take()
    assert status_of(answer) == b"408"
    assert b"code stream-duration, flag DT" in answer
    assert harness.outcomes[0][:4] == (408, "stream-duration", "DT", 1)
    assert harness.endpoint().failures == 0


def test_a_response_under_way_is_cut(make: Make) -> None:
    harness = make(listener={"max_stream_duration": 10})
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK[:-1])
    for _ in range(5):
        harness.advance(2.01)
    assert (caller.fate, upstream.is_gone) == (RESET, True)
    assert harness.outcomes[0][:3] == (200, "stream-duration", "DT")


def test_a_route_may_have_no_limit_where_the_listener_has_one(make: Make) -> None:
    harness = make(
        listener={"max_stream_duration": 10}, route={"max_stream_duration": 0, "timeout": 0}
    )
    caller = harness.open(GET)
    upstream = harness.connect()
    harness.advance(200)
    upstream.send(OK)
    assert caller.take() == OK


def test_the_route_s_timeout_comes_first_where_it_is_shorter(make: Make) -> None:
    harness = make(listener={"max_stream_duration": 10}, route={"timeout": 3})
    caller = harness.open(POST)
    harness.connect()
    harness.advance(8)
    caller.send(b"body")
    harness.advance(2.1)
    assert b"code stream-duration" in caller.take()
    caller.send(GET)
    harness.connect()
    harness.advance(3.1)
    assert b"code upstream-timeout" in caller.take()


def test_a_grpc_call_that_takes_too_long_has_passed_its_deadline(make: Make) -> None:
    harness = make(route={"max_stream_duration": 10}, cluster={"protocol": "http2"})
    caller = harness.call()
    timed = [*GRPC, (b"grpc-timeout", b"3S")]
    first, second = caller.ask(b"POST", fields=GRPC), caller.ask(b"POST", fields=timed)
    harness.serve()
    harness.advance(3.1)
    assert [o.code for o in harness.outcomes] == ["grpc-deadline"]
    harness.advance(7)
    assert [o.code for o in harness.outcomes] == ["grpc-deadline", "stream-duration"]
    for stream in (first, second):
        assert caller[stream].head[b"grpc-status"] == b"4"


def test_a_call_that_has_begun_is_held_to_both_limits(make: Make) -> None:
    harness = make(route={"max_stream_duration": 10}, cluster={"protocol": "http2"})
    caller = harness.call()
    stream = caller.ask(b"POST", fields=GRPC)
    harness.serve().answer(1, fields=[KIND], end=False)
    harness.advance(10.1)
    assert caller[stream].reset == "CANCEL"
    assert harness.outcomes[0][:3] == (200, "stream-duration", "DT")


# Of one try:


def test_a_try_may_take_so_long(make: Make) -> None:
    harness = make(cluster={"max_stream_duration": 10}, route={"timeout": 0})
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK[:-1])
    harness.advance(9.9)
    assert caller.fate == OPEN
    harness.advance(0.2)
    assert (caller.fate, upstream.is_gone) == (RESET, True)
    assert harness.outcomes[0][:3] == (200, "upstream-stream-duration", "UMSDR")


def test_another_try_has_its_own_time(make: Make) -> None:
    harness = make(
        cluster={"max_stream_duration": 10},
        route={"timeout": 0},
        retry={"on": ["reset"], "attempts": 2},
    )
    caller = harness.open(GET)
    harness.connect()
    harness.advance(10.1)
    harness.advance(0.3)
    harness.connect()
    harness.advance(9.5)
    assert caller.take() == b""
    harness.advance(0.6)
    assert status_of(caller.take()) == b"408"
    assert harness.outcomes[0][:4] == (408, "upstream-stream-duration", "UMSDR", 2)


def test_the_head_of_a_try_may_be_wanted_sooner_than_its_end(make: Make) -> None:
    harness = make(cluster={"max_stream_duration": 10}, retry={"per_try_timeout": 2, "attempts": 1})
    caller = harness.open(GET)
    harness.connect()
    harness.advance(2.1)
    assert b"code per-try-timeout" in caller.take()
    caller.send(GET)
    upstream = harness.connect()
    upstream.send(OK[:-1])
    harness.advance(5)
    assert caller.fate == OPEN
    harness.advance(5.1)
    assert harness.outcomes[1].code == "upstream-stream-duration"


# Silence of one try:


def silent(make: Make, **config: Any) -> Harness:
    retry = {"per_try_idle_timeout": 5, "on": ["reset"], "attempts": 2}
    return make(
        retry=retry, route={"timeout": 0}, endpoints=("10.0.0.1:80", "10.0.0.2:80"), **config
    )


def test_a_silent_try_is_followed_by_another(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    first = harness.connect()
    harness.advance(4.9)
    assert first.fate == OPEN
    harness.advance(0.2)
    assert first.is_gone
    harness.advance(0.3)
    harness.connect().send(OK)
    assert caller.take() == OK
    assert harness.outcomes[0][:4] == (200, "", "", 2)


def test_the_last_try_s_silence_is_told(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    harness.connect()
    harness.advance(5.1)
    harness.advance(0.3)
    harness.connect()
    harness.advance(5.1)
    answer = caller.take()
    assert status_of(answer) == b"504"
    assert b"code per-try-idle-timeout, flag UT" in answer


def test_a_connection_that_does_not_come_about_is_silent_as_well(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    harness.advance(5.1)
    harness.advance(0.3)
    assert len(harness.dials) == 2
    harness.begun[-1].connect().send(OK)
    assert caller.take() == OK


def test_a_response_that_falls_silent_is_cut(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    upstream = harness.connect()
    for octet in (OK[:-2], OK[-2:-1]):
        harness.advance(4.9)
        upstream.send(octet)
    harness.advance(4.9)
    assert caller.fate == OPEN
    harness.advance(0.2)
    assert caller.fate == RESET
    assert harness.outcomes[0][:3] == (200, "per-try-idle-timeout", "UT")


def test_a_slow_caller_is_no_silent_try(make: Make) -> None:
    harness = silent(make, listener={"stream_idle_timeout": 60})
    caller = harness.open(POST)
    upstream = harness.connect()
    harness.advance(30)
    caller.send(b"bo")
    harness.advance(59)
    assert harness.outcomes == []
    caller.send(b"dy")
    harness.advance(4.9)
    assert not upstream.is_gone
    harness.advance(0.2)
    assert harness.outcomes[0].code == "per-try-idle-timeout"  # a POST is not tried again


def test_a_slow_caller_is_not_waited_for_without_end(make: Make) -> None:
    harness = silent(make, listener={"stream_idle_timeout": 60})
    caller = harness.open(POST)
    harness.connect()
    harness.advance(59)
    assert caller.take() == b""
    harness.advance(1.1)
    assert harness.outcomes[0][:3] == (408, "stream-idle", "SI")


def test_a_slow_reader_is_no_silent_try(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    caller.stall()
    size = 400_000
    upstream = harness.connect()
    upstream.send(OK.replace(b": 2", b": %d" % size)[:-2] + b"x" * size)
    harness.advance(20)
    assert (caller.fate, harness.outcomes[0].code) == (OPEN, "")


def test_a_slow_reader_of_a_response_under_way_is_none_either(make: Make) -> None:
    harness = silent(make)
    caller = harness.open(GET)
    caller.stall()
    size = 400_000
    upstream = harness.connect()
    upstream.send(OK.replace(b": 2", b": %d" % size)[:-2] + b"x" * (size - 1))
    harness.advance(20)
    assert (caller.fate, harness.outcomes) == (OPEN, [])


def test_between_two_tries_nobody_is_silent(make: Make) -> None:
    retry = {"per_try_idle_timeout": 1, "on": ["reset"], "backoff": 20, "backoff_max": 20}
    harness = make(retry=retry, route={"timeout": 0})
    caller = harness.open(GET)
    harness.chance = 0.999
    harness.connect().lose()
    harness.advance(19.9)
    assert (harness.outcomes, len(harness.dials)) == ([], 1)
    harness.advance(0.2)
    harness.connect().send(OK)
    assert caller.take() == OK


# The route's own silence, and whole requests:


@pytest.mark.parametrize(("own", "status"), [(20, b"408"), (0, b"")])
def test_a_route_may_have_another_idle_time_than_its_listener(
    make: Make, own: int, status: bytes
) -> None:
    route = {"stream_idle_timeout": own, "timeout": 0}
    harness = make(listener={"stream_idle_timeout": 5}, route=route)
    caller = harness.open(GET)
    harness.connect()
    harness.advance(19.9)
    assert caller.take() == b""
    harness.advance(0.2)
    assert status_of(caller.take()) == status


def test_a_request_may_take_so_long_to_arrive(make: Make) -> None:
    harness = make(listener={"request_timeout": 10})
    caller = harness.open(POST)
    harness.connect()
    for octet in (b"b", b"o", b"d"):
        harness.advance(3)
        caller.send(octet)
    harness.advance(1.1)
    answer = caller.take()
    assert (status_of(answer), b"code request-timeout" in answer) == (b"408", True)
    assert harness.outcomes[0][:3] == (408, "request-timeout", "DPE")
    assert harness.endpoint().failures == 0


def test_a_whole_request_is_held_up_by_its_answer_only(make: Make) -> None:
    harness = make(listener={"request_timeout": 10}, route={"timeout": 0})
    caller = harness.open(POST)
    upstream = harness.connect()
    harness.advance(9)
    caller.send(b"body")
    harness.advance(9)
    upstream.send(OK)
    assert caller.take() == OK
    caller.send(GET)
    harness.advance(20)
    upstream.send(OK)
    assert caller.take() == OK


# How fast it arrives:


SLOW = POST.replace(b": 4", b": 100000")


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_whole_request_that_a_filter_holds_up_has_arrived_in_time(make: Make, kind: str) -> None:
    harness = make(listener={"request_timeout": 5}, route={"faults": [{"delay": 8}], "timeout": 0})
    head = (
        POST
        if kind == "http"
        else POST.replace(b"\r\n\r\n", b"\r\ncontent-type: application/grpc\r\n\r\n")
    )
    caller = harness.open(head + b"12")
    caller.send(b"34")
    harness.advance(7.0)
    assert harness.outcomes == []
    harness.advance(1.1)
    assert harness.connect().take().endswith(b"1234")


def test_a_body_that_trickles_is_refused(make: Make) -> None:
    harness = make(listener={"min_request_rate": 100})
    caller = harness.open(SLOW)
    harness.connect()
    caller.send(b"x" * 1000)
    harness.advance(10)
    assert harness.outcomes == []
    caller.send(b"x" * 999)
    harness.advance(9.9)
    assert caller.take() == b""
    harness.advance(0.2)
    answer = caller.take()
    assert (status_of(answer), b"code request-too-slow" in answer) == (b"408", True)
    assert harness.outcomes[0][:3] == (408, "request-too-slow", "DPE")
    assert harness.endpoint().failures == 0


def test_a_body_that_comes_fast_enough_is_waited_for(make: Make) -> None:
    harness = make(listener={"min_request_rate": 100, "request_timeout": 65})
    caller = harness.open(SLOW)
    harness.connect()
    for _ in range(6):
        caller.send(b"x" * 1000)
        harness.advance(10)
    assert harness.outcomes == []
    caller.send(b"x" * 1000)
    harness.advance(5.1)
    assert harness.outcomes[0].code == "request-timeout"


@pytest.mark.parametrize(
    "head", [POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked"), GET]
)
def test_a_stream_of_events_has_no_rate(make: Make, head: bytes) -> None:
    harness = make(listener={"min_request_rate": 100}, route={"timeout": 0})
    caller = harness.open(head)
    upstream = harness.connect()
    harness.advance(60)
    upstream.send(OK)
    assert caller.take().startswith(OK[:15])


def test_a_caller_that_waits_for_the_endpoint_is_not_slow(make: Make) -> None:
    harness = make(listener={"min_request_rate": 100})
    caller = harness.open(SLOW.replace(b": 100000", b": 400000"))
    upstream = harness.connect()
    upstream.stall()
    caller.send(b"x" * 300_000)
    harness.advance(35)
    assert harness.outcomes == []
    upstream.catch_up()
    harness.advance(14)
    assert harness.outcomes == []
    harness.advance(2)
    assert harness.outcomes[0].code == "request-too-slow"


def test_a_call_that_arrives_slowly_has_its_deadline_still(make: Make) -> None:
    harness = make(listener={"min_request_rate": 100}, cluster={"protocol": "http2"})
    caller = harness.call()
    fields = [*GRPC, (b"content-length", b"9000"), (b"grpc-timeout", b"15S")]
    stream = caller.ask(b"POST", fields=fields, end=False)
    harness.serve()
    caller.say(stream, b"x" * 2000)
    harness.advance(12)
    assert harness.outcomes == []
    harness.advance(3.1)
    assert harness.outcomes[0].code == "grpc-deadline"


def test_a_caller_that_was_not_told_to_go_on_is_not_slow(make: Make) -> None:
    harness = make(listener={"min_request_rate": 100})
    asking = SLOW.replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length")
    caller = harness.open(asking)
    upstream = harness.connect()
    harness.advance(25)
    assert caller.take() == b""
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert caller.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    harness.advance(10.1)
    assert b"code request-too-slow" in caller.take()


# Maximum duration of connections:


def test_a_caller_s_connection_ends_with_the_request_under_way(make: Make) -> None:
    harness = make(listener={"max_connection_duration": 10})
    caller, idle = harness.open(GET), harness.open(GET)
    upstream = harness.connect()
    harness.connect().send(OK)
    harness.advance(0.5)
    gone = harness.open(GET)
    gone.lose()
    harness.advance(8)
    assert (caller.fate, idle.fate) == (OPEN, OPEN)
    assert harness.listener.lifetimes is not None
    assert len(harness.listener.lifetimes) == 2  # who is gone is forgotten
    harness.advance(3)
    assert (caller.fate, idle.fate) == (OPEN, CLOSED)
    upstream.send(OK)
    assert b"Connection: close\r\n" in caller.take()
    assert len(harness.listener.lifetimes) == 0
    assert harness.open(GET).fate == OPEN


def test_over_http2_the_end_is_announced(make: Make) -> None:
    harness = make(listener={"max_connection_duration": 10})
    caller = harness.call()
    harness.advance(9)
    assert caller.read().goaways == []
    harness.advance(2)
    assert caller.read().goaways != []


def test_a_session_is_closed(make: Make) -> None:
    harness = make(protocol="tcp", listener={"max_connection_duration": 10})
    caller = harness.open(b"hello")
    harness.connect()
    harness.advance(8.9)
    assert caller.fate == OPEN
    harness.advance(2.2)
    assert caller.fate == RESET
    assert harness.sink.sessions[0][1:3] == ("connection-duration", "DT")


def test_an_endpoint_s_connection_is_used_no_longer(make: Make) -> None:
    harness = make(cluster={"max_connection_duration": 10, "idle_timeout": 100})
    caller = harness.open(GET)
    first = harness.connect()
    first.send(OK)
    harness.advance(9)
    assert first.fate == OPEN
    harness.advance(2)
    assert first.is_gone
    caller.send(GET)
    second = harness.connect()
    harness.advance(11)
    assert second.fate == OPEN  # it carries a request
    second.send(OK)
    assert caller.take() == OK * 2
    assert second.is_gone
    caller.send(GET)
    harness.connect().lose()
    harness.advance(3)


def test_an_endpoint_s_connection_over_http2_takes_no_further_request(make: Make) -> None:
    harness = make(cluster={"max_connection_duration": 10, "protocol": "http2"})
    one, other = harness.open(GET), harness.open()
    upstream = harness.serve()
    harness.advance(11)
    other.send(GET)
    again = harness.serve()
    assert not upstream.transport.is_gone
    upstream.answer(1, 204)
    again.answer(1, 204)
    assert status_of(one.take()) == status_of(other.take()) == b"204"
    assert upstream.transport.is_gone
