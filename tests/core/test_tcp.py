"""Opaque sessions: octets both ways, each direction with its own end, and every way to fail."""

from collections.abc import Callable
from itertools import permutations

import pytest

from tests.core.harness import Harness, Outcome
from tests.core.transport import CLOSED, HALF, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]

A, B, C, D = (f"10.0.0.{i}:80" for i in range(1, 5))


@pytest.fixture
def harness(make: Make) -> Harness:
    return make(protocol="tcp")


def joined(harness: Harness) -> tuple[FakeTransport, FakeTransport]:
    caller = harness.open()
    return caller, harness.connect()


def ended(harness: Harness) -> Outcome:
    (session,) = harness.sink.sessions
    return session


def test_octets_pass_both_ways(harness: Harness) -> None:
    caller, upstream = joined(harness)
    caller.send(b"GET / HTTP/1.1\r\n")
    upstream.send(b"\x00\xff")
    caller.send(b"x")
    assert upstream.take() == b"GET / HTTP/1.1\r\nx"
    assert caller.take() == b"\x00\xff"
    assert len(harness.sink.opened) == 1
    caller.lose()
    assert upstream.fate == CLOSED
    assert ended(harness) == Outcome(0, "", "", 1, 17, 2, A)


def test_what_is_said_before_the_endpoint_is_there_is_kept(harness: Harness) -> None:
    caller = harness.open(b"early")
    assert not caller.is_reading()
    caller.send(b", later")
    upstream = harness.connect()
    assert upstream.take() == b"early, later"
    upstream.send(b"ok")
    assert caller.take() == b"ok"


STEPS = ("caller says", "endpoint says", "caller ends", "endpoint ends")
ORDERS = [
    order
    for order in permutations(STEPS)
    if order.index("caller says") < order.index("caller ends")
    and order.index("endpoint says") < order.index("endpoint ends")
]


@pytest.mark.parametrize("order", ORDERS)
def test_each_direction_ends_by_itself(harness: Harness, order: tuple[str, ...]) -> None:
    caller, upstream = joined(harness)
    for step in order:
        assert harness.sink.sessions == []
        source = caller if step.startswith("caller") else upstream
        if step.endswith("says"):
            source.send(step.encode())
        else:
            source.end()
            other = upstream if source is caller else caller
            assert other.fate in (HALF, CLOSED)
    assert upstream.take() == b"caller says"
    assert caller.take() == b"endpoint says"
    assert (caller.fate, upstream.fate) == (CLOSED, CLOSED)
    assert ended(harness)[1:6] == ("", "", 1, 11, 13)


@pytest.mark.parametrize("data", [b"", b"all"])
def test_a_caller_may_have_said_all_before_the_endpoint_is_there(
    harness: Harness, data: bytes
) -> None:
    caller = harness.open(data)
    caller.end()
    upstream = harness.connect()
    assert upstream.take() == data
    assert upstream.fate == HALF
    upstream.send(b"answer")
    upstream.end()
    assert caller.take() == b"answer"
    assert caller.fate == CLOSED


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
@pytest.mark.parametrize("who", ["caller", "endpoint"])
@pytest.mark.parametrize("half", ["none", "caller", "endpoint"])
def test_a_loss_is_passed_on(
    harness: Harness, who: str, half: str, error: Exception | None
) -> None:
    caller, upstream = joined(harness)
    if half != "none":
        (caller if half == "caller" else upstream).end()
    lost, other = (caller, upstream) if who == "caller" else (upstream, caller)
    lost.lose(error)
    assert other.fate == (CLOSED if error is None else RESET)
    code = "" if error is None else "downstream-closed" if who == "caller" else "upstream-closed"
    assert ended(harness).code == code


@pytest.mark.parametrize("late", ["connects", "fails"])
def test_a_caller_that_goes_before_the_endpoint_is_there(harness: Harness, late: str) -> None:
    harness.open(b"early").lose()
    assert ended(harness).code == ""
    assert harness.state().connections == 1
    if late == "connects":
        upstream = harness.connect()
        assert (upstream.take(), upstream.fate) == (b"", RESET)
    else:
        harness.fail()
    assert harness.state().connections == 0
    assert harness.endpoint().active == 0


def test_octets_behind_the_end_of_a_session_are_dropped(harness: Harness) -> None:
    caller, upstream = joined(harness)
    with harness.together():
        caller.lose()
        upstream.send(b"late")
        upstream.end()
    assert ended(harness).code == ""
    assert upstream.is_gone


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_other_endpoints_are_tried(make: Make, count: int) -> None:
    harness = make(protocol="tcp", endpoints=(A, B, C, D)[:count])
    caller = harness.open(b"hello")
    tries = min(count, 3)
    for _ in range(tries):
        assert caller.fate == OPEN
        harness.fail()
    assert caller.fate == RESET
    assert len({d.address for d in harness.dials}) == len(harness.dials) == tries
    assert ended(harness)[1:4] == ("connect-failed", "UF", tries)


def test_what_was_said_goes_to_the_endpoint_that_is_there(make: Make) -> None:
    harness = make(protocol="tcp", endpoints=(A, B))
    caller = harness.open(b"hello")
    harness.fail()
    upstream = harness.connect()
    assert upstream.take() == b"hello"
    upstream.end()
    caller.end()
    assert ended(harness) == Outcome(0, "", "", 2, 5, 0, harness.dials[1].address)


def test_sessions_have_a_limit(make: Make) -> None:
    harness = make(protocol="tcp", limits={"connections": 1})
    first, second = harness.open(), harness.open()
    assert (first.fate, second.fate) == (OPEN, RESET)
    assert ended(harness)[1:3] == ("pending-overflow", "UO")
    first.lose()
    harness.fail()
    assert harness.open().fate == OPEN


def test_a_cluster_may_be_empty(make: Make) -> None:
    harness = make(protocol="tcp", cluster={"dns": "a.example:80", "endpoints": []})
    assert harness.open().fate == RESET
    assert ended(harness)[1:3] == ("no-endpoint", "UH")


@pytest.mark.parametrize("half", ["none", "caller", "endpoint"])
def test_a_silent_session_ends(make: Make, half: str) -> None:
    harness = make(protocol="tcp", listener={"idle_timeout": 60})
    caller, upstream = joined(harness)
    if half != "none":
        (caller if half == "caller" else upstream).end()
    for _ in range(3):
        harness.advance(50)
        (upstream if half == "caller" else caller).send(b".")
    harness.advance(59)
    assert harness.sink.sessions == []
    harness.advance(2)
    assert ended(harness)[1:3] == ("stream-idle", "SI")
    assert (caller.fate, upstream.fate) == (RESET, RESET)


def test_a_session_may_be_silent_for_ever(make: Make) -> None:
    harness = make(protocol="tcp", listener={"idle_timeout": 0})
    caller, upstream = joined(harness)
    harness.advance(1_000_000)
    caller.send(b"x")
    assert upstream.take() == b"x"
    upstream.stall()
    caller.send(b"y")
    caller.lose()
    harness.advance(1_000_000)
    upstream.catch_up()
    assert upstream.take() == b"y"


def test_a_drain_lets_sessions_go_on_until_its_deadline(harness: Harness) -> None:
    caller, upstream = joined(harness)
    for connection in tuple(harness.listener.connections):
        connection.drain()
    caller.send(b"still")
    assert upstream.take() == b"still"
    for connection in tuple(harness.listener.connections):
        connection.abort()
    harness.settle()
    assert (caller.fate, upstream.fate) == (RESET, RESET)
    assert ended(harness)[1:3] == ("draining", "OM")


def test_a_caller_without_an_allowed_identity_is_refused(make: Make) -> None:
    listener = {"mtls": "permissive", "allow": ["spiffe://cluster.local/ns/default/sa/b"]}
    certificates = {"certificate": "a", "key": "b", "roots": "c"}
    harness = make(role="inbound", protocol="tcp", listener=listener, certificates=certificates)
    caller = harness.open(b"x" * 10)
    assert caller.fate == RESET
    assert harness.dials == []
    assert ended(harness)[1:3] == ("peer-not-allowed", "RBAC")


def test_a_name_that_no_route_takes_is_refused(make: Make) -> None:
    harness = make(protocol="tcp", route={"match": {"sni": ["other.example"]}})
    caller = harness.open(b"SSH-2.0-x\r\n")
    assert caller.fate == RESET
    assert ended(harness)[1:3] == ("no-route", "NR")


def test_a_listener_finds_out_that_it_is_no_http(make: Make) -> None:
    harness = make(protocol="auto")
    caller = harness.open(b"\x00\x01")
    upstream = harness.connect()
    assert upstream.take() == b"\x00\x01"
    silent = harness.open()
    harness.advance(0.4)
    harness.connect().send(b"banner")
    assert silent.take() == b"banner"
    caller.lose()


def test_a_caller_without_an_identity_may_be_let_in(make: Make) -> None:
    harness = make(role="inbound", protocol="tcp")
    caller = harness.open(b"hello")
    upstream = harness.connect()
    assert upstream.take() == b"hello"
    caller.lose()


def test_opaque_octets_ask_for_no_protocol(make: Make) -> None:
    harness = make(protocol="tcp")
    harness.open()
    assert harness.begun[0].alpn == ""
