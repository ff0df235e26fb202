"""Which limit of time ends what, and what does not count."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, OK, Harness
from tests.core.transport import OPEN, RESET

Make = Callable[..., Harness]

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


def status_of(data: bytes) -> bytes:
    return data[9:12]


@pytest.mark.parametrize("connected", [True, False])
def test_the_route_s_timeout_counts_until_the_response_s_head(make: Make, connected: bool) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(GET)
    if connected:
        harness.connect()
    harness.advance(2.9)
    assert caller.take() == b""
    harness.advance(0.2)
    assert status_of(caller.take()) == b"504"
    assert harness.outcomes[0][:4] == (504, "upstream-timeout", "UT", 1)
    assert harness.endpoint().failures == 1
    assert caller.fate == OPEN


def test_outbound_routes_have_one_by_default(harness: Harness) -> None:
    caller = harness.open(GET)
    harness.connect()
    harness.advance(15.1)
    assert status_of(caller.take()) == b"504"


def test_it_begins_with_the_request_s_end(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(POST)
    harness.connect()
    for octet in (b"b", b"o", b"d", b"y"):
        harness.advance(2)
        caller.send(octet)
    harness.advance(2.9)
    assert caller.take() == b""
    harness.advance(0.2)
    assert status_of(caller.take()) == b"504"


def test_it_ends_with_the_response_s_head(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK[:-2])
    harness.advance(100)
    upstream.send(OK[-2:])
    assert caller.take() == OK


def test_a_request_whose_end_comes_after_the_response_s_head_has_none(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(POST)
    upstream = harness.connect()
    upstream.send(OK[:-2])
    caller.send(b"body")
    harness.advance(100)
    upstream.send(OK[-2:])
    assert caller.take() == OK


def test_an_interim_response_is_no_head(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(GET)
    harness.connect().send(b"HTTP/1.1 103 Hints\r\n\r\n")
    harness.advance(3.1)
    assert b"HTTP/1.1 504" in caller.take()


@pytest.mark.parametrize("answered", [True, False])
def test_a_stream_without_octets_ends(make: Make, answered: bool) -> None:
    harness = make(listener={"stream_idle_timeout": 30}, route={"timeout": 0})
    caller = harness.open(GET)
    upstream = harness.connect()
    if answered:
        upstream.send(OK[:-1])
    harness.advance(29)
    assert caller.fate == OPEN
    harness.advance(2)
    assert upstream.is_gone
    status = 200 if answered else 408
    assert harness.outcomes[0][:3] == (status, "stream-idle", "SI")
    if answered:
        assert caller.fate == RESET
    else:
        assert status_of(caller.take()) == b"408"


def test_each_octet_begins_the_idle_time_anew(make: Make) -> None:
    harness = make(listener={"stream_idle_timeout": 30}, route={"timeout": 0})
    caller = harness.open(POST)
    upstream = harness.connect()
    for octet in (b"b", b"o", b"d"):
        harness.advance(29)
        caller.send(octet)
    for octet in (OK[i : i + 1] for i in range(38, len(OK) - 1)):
        if octet == OK[38:39]:
            upstream.send(OK[:38])
        harness.advance(29)
        upstream.send(octet)
    assert harness.outcomes == []
    harness.advance(31)
    assert harness.outcomes[0].code == "stream-idle"


@pytest.mark.parametrize("reader", ["caller", "endpoint"])
def test_a_slow_reader_that_reads_is_not_idle(make: Make, reader: str) -> None:
    harness = make(listener={"stream_idle_timeout": 30}, route={"timeout": 0})
    size = 400_000
    head = POST.replace(b": 4", b": %d" % size)
    caller = harness.open(head if reader == "endpoint" else GET)
    upstream = harness.connect()
    slow = caller if reader == "caller" else upstream
    slow.stall()
    if reader == "caller":
        upstream.send(OK.replace(b": 2", b": %d" % size)[:-2] + b"x" * size)
    else:
        caller.send(b"x" * size)
    for _ in range(10):
        harness.advance(20)
        slow.catch_up(slow.buffered - 20_000)  # below the low mark, so that it is noticed
        if reader == "endpoint":
            break
    assert [o.code for o in harness.outcomes] == [""] * (reader == "caller")
    if reader == "endpoint":
        harness.advance(29)
        assert harness.outcomes == []


@pytest.mark.parametrize("name", ["stream_idle_timeout", "both"])
def test_zero_is_no_limit(make: Make, name: str) -> None:
    route = {"timeout": 0} if name == "both" else {"timeout": 100_000}
    harness = make(listener={"stream_idle_timeout": 0}, route=route)
    caller = harness.open(GET)
    upstream = harness.connect()
    harness.advance(50_000)
    upstream.send(OK)
    assert caller.take() == OK


def test_the_next_request_has_its_own_time(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller = harness.open(GET)
    upstream = harness.connect()
    for _ in range(5):
        harness.advance(2)
        upstream.send(OK)
        harness.advance(2)
        caller.send(GET)
    assert caller.take() == OK * 5
    harness.advance(3.1)
    assert status_of(caller.take()) == b"504"


def test_without_a_timeout_an_idle_caller_may_stay(make: Make) -> None:
    harness = make(listener={"idle_timeout": 0})
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert caller.take() == OK
    harness.advance(100_000)
    assert caller.fate == OPEN


def test_without_a_limit_of_idleness_a_caller_that_does_not_read_is_waited_for(make: Make) -> None:
    harness = make(listener={"stream_idle_timeout": 0})
    harness.connects_at_once = True
    caller = harness.open()
    caller.stall()
    caller.send(GET)
    size = 200_000
    harness.upstreams[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
    harness.advance(4000.0)
    assert caller.fate == OPEN
    caller.catch_up()
    assert caller.take().endswith(b"b" * 100)
