"""Upgrades: opaque octets after a 101 that was asked for, each direction with an end of its own."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, OK, OWN, Harness, Outcome, forwarded
from tests.core.transport import CLOSED, HALF, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

ASK = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
UP = b"GET /ws HTTP/1.1\r\nHost: a\r\n" + OWN + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Go\r\nX: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
DOWN = b"HTTP/1.1 101 Go\r\nX: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def tunnel(harness: Harness) -> tuple[FakeTransport, FakeTransport]:
    caller = harness.open(ASK)
    upstream = harness.connect()
    assert upstream.take() == UP
    upstream.send(SWITCH)
    assert caller.take() == DOWN
    return caller, upstream


def outcome(harness: Harness) -> Outcome:
    (outcome,) = harness.outcomes
    return outcome


def test_octets_pass_both_ways_as_they_are(harness: Harness) -> None:
    caller, upstream = tunnel(harness)
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff", b"0\r\n\r\n"):
        caller.send(data)
        assert upstream.take() == data
        upstream.send(data)
        assert caller.take() == data
    caller.lose()
    assert upstream.fate == CLOSED
    assert outcome(harness)[:3] == (101, "downstream-closed", "DC")
    assert outcome(harness)[4:6] == (25, 25)


@pytest.mark.parametrize("at", range(len(ASK)))
def test_what_comes_behind_the_request_is_the_tunnel_s(harness: Harness, at: int) -> None:
    stream = ASK + b"hello"
    caller = harness.open()
    caller.send(stream[:at] or stream)
    if at:
        caller.send(stream[at:])
    upstream = harness.connect()
    assert upstream.take() == UP  # it might be refused, and be the next request
    upstream.send(SWITCH + b"you")
    assert upstream.take() == b"hello"
    assert caller.take() == DOWN + b"you"
    caller.send(b"!")
    assert upstream.take() == b"!"


def test_a_reader_stopped_by_much_behind_the_request_goes_on(harness: Harness) -> None:
    caller = harness.open(ASK)
    for _ in range(3):
        caller.send(b"x" * 65536)
    upstream = harness.connect()
    upstream.send(SWITCH)
    assert upstream.take() == UP + b"x" * 3 * 65536


@pytest.mark.parametrize("refusal", [OK, OK.replace(b"200 OK", b"426 No")])
def test_an_upgrade_may_be_refused(harness: Harness, refusal: bytes) -> None:
    caller = harness.open(ASK + GET)
    upstream = harness.connect()
    upstream.send(refusal)
    assert caller.take() == refusal
    assert upstream.take() == UP + forwarded(GET)
    upstream.send(OK)
    assert caller.take() == OK


@pytest.mark.parametrize("caller_first", [True, False])
@pytest.mark.parametrize("how", ["end", "lose"])
def test_each_direction_ends_by_itself(harness: Harness, caller_first: bool, how: str) -> None:
    caller, upstream = tunnel(harness)
    first, second = (caller, upstream) if caller_first else (upstream, caller)
    first.send(b"last words")
    first.end()
    assert second.take() == b"last words"
    assert second.fate == HALF
    second.send(b"yes?")
    assert first.take() == b"yes?"
    assert harness.outcomes == []
    if how == "end":
        second.end()
    else:
        second.lose()
    assert (first.fate, second.fate) == (CLOSED, CLOSED)
    assert outcome(harness)[4:6] == ((10, 4) if caller_first else (4, 10))


def test_a_caller_that_has_said_all_before_the_switch(harness: Harness) -> None:
    caller = harness.open(ASK + b"all")
    caller.end()
    upstream = harness.connect()
    upstream.send(SWITCH)
    assert upstream.take() == UP + b"all"
    assert upstream.fate == HALF
    upstream.send(b"answer")
    upstream.end()
    assert caller.take() == DOWN + b"answer"
    assert caller.fate == CLOSED
    assert outcome(harness)[:3] == (101, "", "")


@pytest.mark.parametrize("upstream_first", [True, False])
def test_a_reset_resets(harness: Harness, upstream_first: bool) -> None:
    caller, upstream = tunnel(harness)
    if upstream_first:
        upstream.lose(ConnectionResetError())
        assert caller.fate == RESET
        assert outcome(harness)[:3] == (101, "upstream-body-cut", "UC")
    else:
        caller.lose(ConnectionResetError())
        assert upstream.fate == CLOSED
        assert outcome(harness)[:3] == (101, "downstream-closed", "DC")


@pytest.mark.parametrize("half", ["none", "caller", "upstream"])
def test_a_silent_tunnel_ends(make: Make, half: str) -> None:
    harness = make(listener={"stream_idle_timeout": 60}, route={"timeout": 5})
    caller, upstream = tunnel(harness)
    if half != "none":
        (caller if half == "caller" else upstream).end()
    for _ in range(3):
        harness.advance(50)
        (upstream if half == "caller" else caller).send(b".")
    harness.advance(59)
    assert harness.outcomes == []
    harness.advance(2)
    assert outcome(harness)[:3] == (101, "stream-idle", "SI")
    assert caller.is_gone
    assert upstream.is_gone


def test_a_tunnel_outlives_a_drain_until_its_deadline(harness: Harness) -> None:
    caller, upstream = tunnel(harness)
    harness.engine.draining = True
    for connection in tuple(harness.listener.connections):
        connection.drain()
    caller.send(b"still")
    assert upstream.take() == b"still"
    for connection in tuple(harness.listener.connections):
        connection.abort()
    harness.settle()
    assert upstream.fate == CLOSED


UNASKED = {
    "a plain request": GET,
    "another protocol": ASK.replace(b"websocket", b"h2c"),
    "HTTP/1.0": ASK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a request with a body": ASK.replace(b"a\r\n", b"a\r\nContent-Length: 1\r\n") + b"x",
    "a request in chunks": ASK.replace(b"a\r\n", b"a\r\nTransfer-Encoding: chunked\r\n")
    + b"0\r\n\r\n",
}


@pytest.mark.parametrize("name", UNASKED)
def test_a_switch_that_nobody_asked_for_is_an_error(harness: Harness, name: str) -> None:
    caller = harness.open(UNASKED[name])
    upstream = harness.connect()
    assert b"pgrade" not in upstream.take()
    upstream.send(SWITCH)
    assert caller.take()[:12] == b"HTTP/1.1 502"
    assert outcome(harness)[:3] == (502, "upstream-protocol", "UPE")
    assert upstream.fate != OPEN


def test_a_switch_to_nothing_is_an_error(harness: Harness) -> None:
    caller = harness.open(ASK)
    harness.connect().send(b"HTTP/1.1 101 Go\r\n\r\n")
    assert caller.take()[:12] == b"HTTP/1.1 502"


def test_an_endpoint_that_has_said_all_and_goes_says_it_once(harness: Harness) -> None:
    caller, upstream = tunnel(harness)
    upstream.end()
    assert caller.fate == HALF
    caller.faults["write_eof"] = AssertionError("the end was told twice")
    upstream.lose()
    assert caller.fate == CLOSED
    assert outcome(harness)[:3] == (101, "", "")
