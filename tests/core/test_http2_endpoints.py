"""Connections of HTTP/2 to endpoints: what they carry, for how long, and how they are given up."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.wire.http2_frames import (
    PING,
    frame,
)
from tests.core.harness import GET, Harness
from tests.core.transport import CLOSED, OPEN, RESET

Make = Callable[..., Harness]

A, B = "10.0.0.1:80", "10.0.0.2:80"
DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


def h2(**cluster: Any) -> dict[str, Any]:
    return {"cluster": {"protocol": "http2", **cluster}}


def alive(**http2: Any) -> dict[str, Any]:
    return h2(http2={"keepalive": 10, "keepalive_timeout": 5, **http2})


def status_of(data: bytes) -> int:
    return int(data[9:12])


# Keep-alive:


def test_a_silent_endpoint_is_asked_for_a_sign_of_life(make: Make) -> None:
    harness = make(**alive(), route={"timeout": 0})
    caller = harness.open(GET)
    upstream = harness.serve()
    for count in range(1, 4):
        harness.advance(12)
        assert upstream.read().pings == count
    upstream.answer(1)
    assert caller.take() == DONE


@pytest.mark.parametrize("asked", [GET, POST])
def test_one_that_does_not_answer_is_given_up_with_all_it_carries(make: Make, asked: bytes) -> None:
    harness = make(**alive(), retry={"on": ["reset"], "attempts": 2}, route={"timeout": 60})
    callers = [harness.open(asked) for _ in range(3)]
    upstream = harness.serve(polite=False)
    harness.advance(10.1)
    assert upstream.read().pings == 1
    assert upstream.transport.fate == OPEN
    harness.advance(5.1)
    assert upstream.transport.fate == RESET
    if asked == POST:
        assert [status_of(c.take()) for c in callers] == [502] * 3
        return
    harness.advance(1)
    second = harness.serve()
    for stream in second.read().order:
        second.answer(stream)
    assert [c.take() for c in callers] == [DONE] * 3


def test_new_requests_do_not_put_the_question_off(make: Make) -> None:
    """A connection that has gone dead would else swallow requests for ever."""
    harness = make(**alive(), retry={"attempts": 1})
    upstream = None
    for _ in range(4):
        harness.open(GET)
        upstream = upstream or harness.serve(polite=False)
        harness.advance(4)
    assert upstream is not None
    assert upstream.read().pings == 1
    assert upstream.transport.fate == RESET


def test_whatever_is_heard_is_a_sign_of_life(make: Make) -> None:
    """The answer to a PING may be far behind in what a slow link carries."""
    harness = make(**alive())
    caller = harness.open(GET)
    upstream = harness.serve(polite=False)
    upstream.answer(1, end=False)
    for _ in range(10):
        harness.advance(11)
        upstream.read()
        upstream.say(1, b"x")
    assert upstream.pings > 1
    upstream.say(1, b"", end=True)
    assert caller.take().endswith(b"0\r\n\r\n")


def test_an_endpoint_that_talks_is_not_asked(make: Make) -> None:
    harness = make(**alive())
    harness.open(GET)
    upstream = harness.serve()
    upstream.answer(1, end=False)
    for _ in range(5):
        harness.advance(6)
        upstream.say(1, b"x")
    assert upstream.read().pings == 0
    upstream.say(1, b"", end=True)


@pytest.mark.parametrize("alpn", ["h2", "sidecar-h2"])
def test_a_sidecar_is_asked_without_being_told_to(make: Make, alpn: str) -> None:
    harness = make(**h2(tls={"mode": "simple"}))
    harness.open(GET)
    upstream = harness.serve(alpn)
    harness.advance(11)
    assert upstream.read().pings == (alpn == "sidecar-h2")


def test_an_unused_connection_is_not_asked_and_closes_in_time(make: Make) -> None:
    harness = make(**h2(http2={"keepalive": 10, "keepalive_timeout": 5}, idle_timeout=30))
    caller = harness.open(GET)
    upstream = harness.serve(polite=False)
    harness.advance(11)
    upstream.answer(1)
    assert caller.take() == DONE
    harness.advance(29)
    assert upstream.transport.fate == OPEN
    harness.advance(2)
    assert upstream.read().goaways == [(0, "NO_ERROR")]
    assert upstream.transport.fate == CLOSED
    assert upstream.pings == 1


def test_a_connection_is_idle_from_its_last_response_on(make: Make) -> None:
    harness = make(**h2(idle_timeout=10))
    harness.open(GET)
    upstream = harness.serve()
    harness.advance(11)
    assert upstream.transport.fate == OPEN
    upstream.answer(1)
    harness.advance(9)
    harness.open(GET)
    upstream.read()
    harness.advance(9)
    upstream.answer(3)
    upstream.send(frame(PING, 0, 0, b"12345678"))
    harness.advance(9)
    assert upstream.transport.fate == OPEN
    harness.advance(2)
    assert upstream.transport.fate == CLOSED


def test_a_connection_that_nobody_came_to_use_is_idle(make: Make) -> None:
    harness = make(**h2(idle_timeout=10))
    caller = harness.open(GET)
    caller.lose()
    upstream = harness.serve()
    harness.advance(11)
    assert upstream.transport.fate == CLOSED


def test_an_endpoint_that_does_not_read_the_farewell_is_cut_off(make: Make) -> None:
    harness = make(**h2(idle_timeout=10))
    caller = harness.open(GET)
    upstream = harness.serve()
    upstream.answer(1)
    assert caller.take() == DONE
    upstream.transport.stall()
    harness.advance(11)
    assert upstream.transport.fate == OPEN
    assert harness.state().connections == 1
    harness.advance(11)
    assert upstream.transport.fate == RESET
    assert harness.state().connections == 0
